//! Overflow to infinity and NaN, infinities that propagate, and quotients by way of a multiplier.

use half::{bf16, f16};

use super::*;

/// Checks fake quantization and encoding of the inputs under a scale and its multiplier, if it has one.
fn check<T: Sample>(oracle: &Oracle, inputs: &[T], scale: Scale, overflow: Overflow) {
    for infinity in [Infinity::Saturate, Infinity::Propagate] {
        check_with(oracle, inputs, scale, overflow, infinity);
    }
}

fn check_with<T: Sample>(oracle: &Oracle, inputs: &[T], scale: Scale, overflow: Overflow, infinity: Infinity) {
    let format = format_of(oracle.spec);
    let conversion = Conversion { overflow, infinity, scales: vec![scale], ..whole(inputs.len(), format, 1.0) };
    let (mut fake, mut codes) = (vec![T::default(); inputs.len()], vec![0; inputs.len()]);
    convert(inputs, &mut fake, &conversion);
    let complete = convert_to_codes(inputs, &mut codes, &conversion);
    let propagates = |input: &T| input.exact().is_infinite() && infinity == Infinity::Propagate;
    let has_nan = inputs.iter().any(|input| input.exact().is_nan() || propagates(input));
    assert_eq!(complete, !has_nan || oracle.spec.has_nan(), "{format}");
    for ((input, fake), code) in inputs.iter().zip(fake).zip(codes) {
        let context = || format!("{format}, {overflow:?}, {infinity:?}, {scale:?}, {input:?}");
        let quotient = match scale.multiplier() {
            Some(multiplier) => input.times(multiplier),
            None => input.quotient(scale.value()),
        };
        let expected = match overflow {
            _ if propagates(input) && oracle.spec.kind == Kind::Ieee => {
                assert_bits(fake, input.bits(), false, &context);
                assert_eq!(f64::from(format.decode(code)), input.exact(), "{}", context());
                continue;
            }
            _ if propagates(input) => None,
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
fn a_scale_that_is_nan_makes_nan_of_its_block() {
    let x: Vec<f32> = (0..3000).map(|i| [0.5, -3.0, f32::INFINITY, 0.0][i % 4]).collect();
    let blocks = Blocks::new(3, 1000, 1, 300);
    for format in Fp8::NAMED.map(|(_, format)| format) {
        for infinity in [Infinity::Saturate, Infinity::Propagate] {
            for multiplies in [false, true] {
                let scale = |block| if block % 3 == 1 { f32::NAN } else { 2.0 };
                let scale = |block| {
                    let value = scale(block);
                    if multiplies { Scale::with_multiplier(value, value) } else { Scale::new(value) }
                };
                let scales = (0..blocks.count()).map(scale).collect();
                let conversion = Conversion { infinity, ..Conversion::saturating(format, blocks, scales) };
                let (mut fake, mut codes) = (vec![0f32; x.len()], vec![0; x.len()]);
                convert(&x, &mut fake, &conversion);
                assert_eq!(convert_to_codes(&x, &mut codes, &conversion), format.has_nan(), "{format}");
                for (at, (fake, code)) in fake.into_iter().zip(codes).enumerate() {
                    let block = at / 1000 * 4 + at % 1000 / 300;
                    let propagates = x[at].is_infinite() && infinity == Infinity::Propagate;
                    if block % 3 == 1 {
                        assert!(fake.is_nan() && (format.decode(code).is_nan() || !format.has_nan()), "{format} {at}");
                    } else {
                        assert_eq!(fake.is_finite(), !propagates, "{format} {at}");
                        assert!(!format.has_nan() || format.decode(code).is_finite() != propagates, "{format} {at}");
                    }
                }
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
