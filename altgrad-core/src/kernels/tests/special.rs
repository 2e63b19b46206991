//! Overflow to infinity and NaN, and quotients by way of a multiplier.

use half::{bf16, f16};

use super::*;

/// Checks fake quantization and encoding of the inputs under a scale and its multiplier, if it has one.
fn check<T: Sample>(oracle: &Oracle, inputs: &[T], scale: Scale, overflow: Overflow) {
    let format = format_of(oracle.spec);
    let conversion = Conversion { overflow, scales: vec![scale], ..whole(inputs.len(), format, 1.0) };
    let (mut fake, mut codes) = (vec![T::default(); inputs.len()], vec![0; inputs.len()]);
    convert(inputs, &mut fake, &conversion);
    let complete = convert_to_codes(inputs, &mut codes, &conversion);
    let has_nan = inputs.iter().any(|input| input.exact().is_nan());
    assert_eq!(complete, !has_nan || oracle.spec.has_nan(), "{format}");
    for ((input, fake), code) in inputs.iter().zip(fake).zip(codes) {
        let context = || format!("{format}, {overflow:?}, {scale:?}, {input:?}");
        let quotient = match scale.multiplier() {
            Some(multiplier) => input.times(multiplier),
            None => input.quotient(scale.value()),
        };
        let expected = match overflow {
            Overflow::Saturate => oracle.saturated(quotient),
            Overflow::Special => oracle.special(quotient),
        };
        if let Some(expected) = expected {
            assert_eq!(code, expected, "{}", context());
            assert_bits(fake, T::product_bits(oracle.decode(expected), scale.value()), false, &context);
            continue;
        }
        assert_bits(fake, 0, true, &context);
        assert!(format.decode(code).is_nan() || !oracle.spec.has_nan(), "{}: {code:X}", context());
        // What overflows keeps its sign, where the sign of a NaN is free.
        if quotient.is_finite() && oracle.spec.has_negative_zero() {
            assert_eq!(code >= 0x80, quotient < 0.0, "{}", context());
        }
    }
}

fn check_specs<T: Sample>() {
    for spec in specs() {
        let oracle = Oracle::new(spec);
        for scale in [1.0, 0.3, 1e-30] {
            check(&oracle, &inputs::<T>(&oracle, scale), Scale::new(scale), Overflow::Special);
        }
        // The reciprocals of the first two are not exact; the last is no reciprocal at all, to tell the two apart.
        for (scale, multiplier) in [(0.3, 1.0 / 0.3), (3.7e5, 1.0 / 3.7e5), (2.9e-39, f32::MAX), (0.5, 3.0)] {
            let inputs = inputs::<T>(&oracle, 1.0 / multiplier);
            for overflow in [Overflow::Saturate, Overflow::Special] {
                check(&oracle, &inputs, Scale::with_multiplier(scale, multiplier), overflow);
            }
        }
    }
}

#[test]
fn specials_and_multipliers_in_f32() {
    check_specs::<f32>();
}

#[test]
fn specials_and_multipliers_in_f64() {
    check_specs::<f64>();
}

#[test]
fn specials_and_multipliers_in_f16_and_bf16() {
    check_specs::<f16>();
    check_specs::<bf16>();
}
