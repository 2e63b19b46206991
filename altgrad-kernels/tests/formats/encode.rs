//! Encoding against the oracle.

use altgrad_kernels::{Fp8, Overflow};
use half::{bf16, f16};

use crate::{assert_code, format_of};
use altgrad_testing::{NAMED, Oracle, Spec, all_specs, corpus};

/// Every input under both ways of overflow.
fn check(spec: Spec, format: Fp8, oracle: &Oracle, input: impl Into<f64> + Copy) {
    let value: f64 = input.into();
    assert_code(spec, value, format.encode(input), oracle.saturated(value));
    assert_code(spec, value, format.encode_with(input, Overflow::Saturate), oracle.saturated(value));
    assert_code(spec, value, format.encode_with(input, Overflow::Special), oracle.special(value));
}

#[test]
fn f32_inputs_where_rounding_changes() {
    for spec in all_specs() {
        let (format, oracle) = (format_of(spec), Oracle::new(spec));
        let inputs = corpus::f32s(&oracle);
        // A format of 6 bits has a quarter of the values, one of 4 bits a sixteenth.
        let fewest = [2000, 1200, 800][usize::from(8 - format.bits()) / 2];
        assert!(inputs.len() > fewest, "{}: {}", spec.name, inputs.len());
        for input in inputs {
            check(spec, format, &oracle, input);
        }
    }
}

#[test]
fn f64_inputs_are_rounded_once() {
    for spec in all_specs() {
        let (format, oracle) = (format_of(spec), Oracle::new(spec));
        for input in corpus::f64s(&oracle) {
            check(spec, format, &oracle, input);
        }
    }
}

#[test]
fn no_tie_is_seen_where_there_is_none() {
    // 1 and 1.125 are neighbours in E4M3, the tie between them goes down to 1, whose code is even.
    let tie = 1.0625f64;
    assert_eq!(Fp8::E4M3.encode(tie), Some(0x38));
    assert_eq!(Fp8::E4M3.encode(tie + 2f64.powi(-52)), Some(0x39));
    // Rounding to `f32` on the way would make it a tie.
    assert_eq!(tie + 2f64.powi(-40), 1.062_500_000_000_909_5);
    assert_eq!(Fp8::E4M3.encode(tie + 2f64.powi(-40)), Some(0x39));
    // The same just below the tie of 1.125 and 1.25, which goes up.
    let tie = 1.1875f64;
    assert_eq!(Fp8::E4M3.encode(tie), Some(0x3A));
    assert_eq!(Fp8::E4M3.encode(tie - 2f64.powi(-40)), Some(0x39));
    // Near the tie of zero and the smallest value there is room for 2^-60 and more.
    let tie = 2f64.powi(-10);
    assert_eq!(Fp8::E4M3.encode(tie), Some(0x00));
    assert_eq!(Fp8::E4M3.encode(tie + 2f64.powi(-60)), Some(0x01));
    assert_eq!(Fp8::E4M3.encode(-tie - 2f64.powi(-60)), Some(0x81));
    // The threshold of overflow, a tie of 448 and what would be 480.
    assert_eq!(Fp8::E4M3.encode_with(464.0, Overflow::Special), Some(0x7E));
    assert_eq!(Fp8::E4M3.encode_with(464.0 + 2f64.powi(-40), Overflow::Special), Some(0x7F));
    assert_eq!(Fp8::E5M2.encode_with(61440.0, Overflow::Special), Some(0x7C));
    assert_eq!(Fp8::E5M2.encode_with(61440.0 - 2f64.powi(-36), Overflow::Special), Some(0x7B));
}

#[test]
fn all_f16_and_bf16_inputs() {
    for spec in all_specs() {
        let (format, oracle) = (format_of(spec), Oracle::new(spec));
        for bits in 0..=u16::MAX {
            check(spec, format, &oracle, f16::from_bits(bits));
            check(spec, format, &oracle, bf16::from_bits(bits));
        }
    }
}

#[test]
fn f32_inputs_in_an_odd_stride() {
    for spec in NAMED {
        let (format, oracle) = (format_of(spec), Oracle::new(spec));
        for bits in (0..=u32::MAX).step_by(40_009) {
            check(spec, format, &oracle, f32::from_bits(bits));
        }
    }
}

#[test]
fn codes_come_back_from_their_values() {
    for spec in all_specs() {
        let format = format_of(spec);
        for code in spec.codes() {
            let value = format.decode(code);
            if value.is_nan() {
                assert_eq!(format.encode(value), format.nan_code(), "{} {code:02X}", spec.name);
            } else {
                assert_eq!(format.encode_with(value, Overflow::Special), Some(code), "{} {code:02X}", spec.name);
                if value.is_finite() {
                    assert_eq!(format.encode(value), Some(code), "{} {code:02X}", spec.name);
                }
            }
        }
    }
}

#[test]
fn encoding_is_monotone_and_odd() {
    for spec in all_specs() {
        let (format, oracle) = (format_of(spec), Oracle::new(spec));
        let mut inputs = corpus::f64s(&oracle);
        inputs.retain(|value| !value.is_nan());
        inputs.sort_by(f64::total_cmp);
        let encoded: Vec<_> = inputs.iter().map(|value| format.decode(format.encode(*value).unwrap())).collect();
        assert!(encoded.is_sorted(), "{}", spec.name);
        for (input, encoded) in inputs.iter().zip(encoded) {
            let negated = format.decode(format.encode(-*input).unwrap());
            assert_eq!(negated, -encoded, "{} {input:e}", spec.name);
        }
    }
}

#[test]
fn zeros_keep_their_sign_where_there_are_two() {
    for (_, format) in Fp8::NAMED {
        let negative_zero = if format.has_negative_zero() { 0x80 } else { 0x00 };
        for overflow in [Overflow::Saturate, Overflow::Special] {
            assert_eq!(format.encode_with(0.0f32, overflow), Some(0), "{format}");
            assert_eq!(format.encode_with(-0.0f32, overflow), Some(negative_zero), "{format}");
            // Also of what rounds to zero.
            assert_eq!(format.encode_with(-f64::MIN_POSITIVE, overflow), Some(negative_zero), "{format}");
            assert_eq!(format.encode_with(-5e-324, overflow), Some(negative_zero), "{format}");
        }
    }
}

#[test]
fn nan_gives_the_one_nan_code() {
    let nans = [f64::NAN, -f64::NAN, f64::from_bits(0x7FF0_0000_0000_0001), f64::from_bits(0xFFF8_0000_0000_1234)];
    for (_, format) in Fp8::NAMED {
        for nan in nans {
            assert_eq!(format.encode(nan), format.nan_code(), "{format}");
            assert_eq!(format.encode_with(nan, Overflow::Special), format.nan_code(), "{format}");
        }
    }
    assert_eq!(Fp8::E4M3.encode(f32::NAN), Some(0x7F));
    assert_eq!(Fp8::E3M4.encode(f16::NAN), None);
    assert_eq!(Fp8::E5M2_FNUZ.encode(bf16::NAN), Some(0x80));
}

#[test]
fn infinities() {
    let infinities = [f64::INFINITY, f64::NEG_INFINITY];
    let codes = |format: Fp8, overflow| infinities.map(|value| format.encode_with(value, overflow));
    assert_eq!(codes(Fp8::E4M3, Overflow::Saturate), [Some(0x7E), Some(0xFE)]);
    assert_eq!(codes(Fp8::E4M3, Overflow::Special), [Some(0x7F), Some(0xFF)]);
    assert_eq!(codes(Fp8::E5M2, Overflow::Saturate), [Some(0x7B), Some(0xFB)]);
    assert_eq!(codes(Fp8::E5M2, Overflow::Special), [Some(0x7C), Some(0xFC)]);
    assert_eq!(codes(Fp8::E4M3_FNUZ, Overflow::Saturate), [Some(0x7F), Some(0xFF)]);
    assert_eq!(codes(Fp8::E4M3_FNUZ, Overflow::Special), [Some(0x80), Some(0x80)]);
    assert_eq!(codes(Fp8::E3M4, Overflow::Special), [Some(0x7F), Some(0xFF)]);
    assert_eq!(codes(Fp8::E2M3, Overflow::Special), [Some(0x7C), Some(0xFC)]);
    assert_eq!(codes(Fp8::E2M1, Overflow::Saturate), [Some(0x70), Some(0xF0)]);
    assert_eq!(Overflow::default(), Overflow::Saturate);
}

#[test]
fn ties_of_powers_of_two_go_to_the_even_code() {
    // E7M0 has the code 63 for 1, so a tie of 1 and 2 goes up to 64, a tie of 2 and 4 down to 64.
    assert_eq!(Fp8::E7M0.encode(1.5), Some(64));
    assert_eq!(Fp8::E7M0.encode(3.0), Some(64));
    assert_eq!(Fp8::E7M0.encode(-6.0), Some(0xC2));
    // Below the smallest value, whose code is 1, a tie goes to zero.
    assert_eq!(Fp8::E7M0.encode(2f64.powi(-63)), Some(0));
    assert_eq!(Fp8::E7M0.encode(2f64.powi(-63) * (1.0 + f64::EPSILON)), Some(1));
    assert_eq!(Fp8::E7M0.encode(1.5 * 2f64.powi(-62)), Some(2));
}

#[test]
fn ties_of_narrow_formats_go_to_the_even_code() {
    // 2 and 3, codes 4 and 5, are neighbours in E2M1, as are 3 and 4.
    assert_eq!(Fp8::E2M1.encode(2.5), Some(4 << 4));
    assert_eq!(Fp8::E2M1.encode(2.5 + 2f64.powi(-51)), Some(5 << 4));
    assert_eq!(Fp8::E2M1.encode(3.5), Some(6 << 4));
    assert_eq!(Fp8::E2M1.encode(-3.5 + 2f64.powi(-51)), Some(0xD << 4));
    // Zero and the smallest value; the largest, whose code is odd, so that the tie with what would be 8 overflows.
    assert_eq!(Fp8::E2M1.encode(0.25), Some(0));
    assert_eq!(Fp8::E2M1.encode(0.75), Some(2 << 4));
    assert_eq!(Fp8::E2M1.encode_with(7.0, Overflow::Special), Some(7 << 4));
    // E3M2 has 0.25 at the end of its subnormals, code 4.
    assert_eq!(Fp8::E3M2.encode(0.21875), Some(4 << 2));
    assert_eq!(Fp8::E2M3.encode(0.9375), Some(8 << 2));
}
