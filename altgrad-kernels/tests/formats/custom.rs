//! Formats of one's own: which there are, and that all of them work.

use altgrad_kernels::{Fp8, Overflow, Specials};

use crate::specials_of;
use altgrad_testing::{Kind, Oracle, Spec};

const KINDS: [Kind; 4] = [Kind::None, Kind::NanOnly, Kind::Ieee, Kind::Fnuz];

/// The numbers of exponent and mantissa bits that there can be.
fn widths() -> impl Iterator<Item = (u8, u8)> {
    [7, 5, 3].into_iter().flat_map(|sum| (0..=sum).map(move |exponent_bits| (exponent_bits, sum - exponent_bits)))
}

fn specs(biases: impl Iterator<Item = i16> + Clone) -> impl Iterator<Item = Spec> {
    widths().flat_map(move |(exponent_bits, mantissa_bits)| {
        let biases = biases.clone();
        KINDS.into_iter().flat_map(move |kind| {
            biases.clone().map(move |bias| Spec { name: "custom", exponent_bits, mantissa_bits, bias, kind })
        })
    })
}

/// The documented conditions: only 8 bits have specials, infinity and NaN have codes, the lowest step of any byte is a
/// normal `f32`, and so is 2^23 times the highest of the codes.
fn is_valid(spec: Spec) -> bool {
    let (bias, mantissa_bits) = (i32::from(spec.bias), i32::from(spec.mantissa_bits));
    let has_codes = match spec.kind {
        Kind::None => true,
        Kind::Ieee if spec.exponent_bits == 0 || spec.mantissa_bits == 0 => false,
        Kind::NanOnly | Kind::Ieee | Kind::Fnuz => spec.exponent_bits + spec.mantissa_bits == 7,
    };
    let highest_field = match spec.exponent_bits {
        0 => 1,
        count => 2i32.pow(u32::from(count)) - 1,
    };
    let lowest_step = 1 - bias - (7 - i32::from(spec.exponent_bits));
    let highest_step = highest_field - bias - mantissa_bits;
    has_codes && lowest_step >= -126 && highest_step + 23 <= 127
}

fn new(spec: Spec) -> altgrad_kernels::Result<Fp8> {
    Fp8::new(spec.exponent_bits, spec.mantissa_bits, spec.bias, specials_of(spec.kind))
}

#[test]
fn every_valid_format_round_trips_and_no_other_exists() {
    let mut valid = 0;
    for spec in specs((-300..=300).chain([i16::MIN, i16::MIN + 1, i16::MAX - 1, i16::MAX])) {
        let Ok(format) = new(spec) else {
            assert!(!is_valid(spec), "{spec:?}");
            continue;
        };
        assert!(is_valid(spec), "{spec:?}");
        valid += 1;
        for code in 0..=u8::MAX {
            let (value, expected) = (format.decode(code), spec.decode(code));
            assert!(f64::from(value) == expected || (value.is_nan() && expected.is_nan()), "{format} {code:02X}");
            assert!(value == 0.0 || value.is_normal() || !value.is_finite(), "{format} {code:02X}");
            // Also exact in `bf16`.
            assert!(value.is_nan() || value.to_bits().trailing_zeros() >= 16, "{format} {code:02X}");
            if code % spec.spacing() != 0 {
                continue;
            }
            let encoded = format.encode_with(value, Overflow::Special);
            assert_eq!(encoded, if value.is_nan() { format.nan_code() } else { Some(code) }, "{format} {code:02X}");
        }
    }
    // All 231 biases of E0M7, all 105 of E7M0, and so on, `Ieee` only in the six between, and one kind of 6 or 4 bits.
    let counted: usize = widths()
        .map(|(exponent_bits, mantissa_bits)| {
            let padding = usize::from(7 - exponent_bits - mantissa_bits);
            let kinds = if (1..=6).contains(&exponent_bits) { 4 } else { 3 };
            // From max(top - 104, …) - m to 127 - m - padding.
            let top = if exponent_bits == 0 { 1 } else { 2usize.pow(u32::from(exponent_bits)) - 1 };
            (if padding > 0 { 1 } else { kinds }) * (127 - padding + 104 - top + 1)
        })
        .sum();
    assert_eq!(valid, counted);
}

#[test]
fn every_valid_format_rounds_as_the_oracle_does() {
    for spec in specs((-110..=127).step_by(3)).filter(|spec| is_valid(*spec)) {
        let (format, oracle) = (new(spec).unwrap(), Oracle::new(spec));
        for point in oracle.points() {
            let bits = point.to_bits();
            for value in [-1, 0, 1].map(|ulps| f64::from_bits(bits.saturating_add_signed(ulps))) {
                for value in [value, -value] {
                    let expected = oracle.saturated(value);
                    assert_eq!(format.encode(value), expected, "{format} {value:e}");
                    crate::assert_code(
                        spec,
                        value,
                        format.encode_with(value, Overflow::Special),
                        oracle.special(value),
                    );
                }
            }
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let error = |exponent_bits, mantissa_bits, bias, specials| {
        Fp8::new(exponent_bits, mantissa_bits, bias, specials).unwrap_err().to_string()
    };
    assert_eq!(
        error(4, 4, 7, Specials::None),
        "not a format: 4 exponent bits and 4 mantissa bits must add up to 7, 5 or 3: \
         with the sign that is a format of 8, 6 or 4 bits"
    );
    assert_eq!(
        error(3, 1, 3, Specials::None),
        "not a format: 3 exponent bits and 1 mantissa bits must add up to 7, 5 or 3: \
         with the sign that is a format of 8, 6 or 4 bits"
    );
    assert_eq!(
        error(200, 63, 7, Specials::Ieee),
        "not a format: 200 exponent bits and 63 mantissa bits must add up to 7, 5 or 3: \
         with the sign that is a format of 8, 6 or 4 bits"
    );
    assert_eq!(
        error(7, 0, 63, Specials::Ieee),
        "not a format: `Specials::Ieee` needs an exponent bit and a mantissa bit to spell infinity and NaN, \
         but this format has 7 and 0; use another `Specials`"
    );
    assert_eq!(
        error(0, 7, 1, Specials::Ieee),
        "not a format: `Specials::Ieee` needs an exponent bit and a mantissa bit to spell infinity and NaN, \
         but this format has 0 and 7; use another `Specials`"
    );
    assert_eq!(
        error(4, 3, 200, Specials::None),
        "not a format: bias 200 puts values out of the range of f32; with 4 exponent bits it may be -92 to 124"
    );
    assert_eq!(
        error(0, 7, i16::MIN, Specials::None),
        "not a format: bias -32768 puts values out of the range of f32; \
         with 0 exponent bits it may be -110 to 120"
    );
    assert_eq!(
        error(7, 0, 22, Specials::Fnuz),
        "not a format: bias 22 puts values out of the range of f32; with 7 exponent bits it may be 23 to 127"
    );
    assert_eq!(
        error(2, 3, 1, Specials::Ieee),
        "not a format: `Specials::Ieee` needs 8 bits, but this format has 6; use `Specials::None`"
    );
    assert_eq!(
        error(2, 1, 1, Specials::NanOnly),
        "not a format: `Specials::NanOnly` needs 8 bits, but this format has 4; use `Specials::None`"
    );
    assert_eq!(
        error(2, 1, 123, Specials::None),
        "not a format: bias 123 puts values out of the range of f32; with 2 exponent bits it may be -102 to 122"
    );
}
