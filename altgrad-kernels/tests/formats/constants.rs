//! The named constants, as literals.

use altgrad_kernels::{Fp8, Specials};

use crate::{format_of, specials_of};
use altgrad_testing::{NAMED, Oracle, all_specs};

fn pow2(exponent: i32) -> f32 {
    2f32.powi(exponent)
}

#[test]
fn named_formats_are_the_ones_of_the_definition() {
    assert_eq!(Fp8::NAMED.len(), NAMED.len());
    for ((name, format), spec) in Fp8::NAMED.into_iter().zip(NAMED) {
        assert_eq!(name, spec.name);
        assert_eq!(format, format_of(spec), "{name}");
        assert_eq!(format.exponent_bits(), spec.exponent_bits, "{name}");
        assert_eq!(format.mantissa_bits(), spec.mantissa_bits, "{name}");
        assert_eq!(format.bias(), spec.bias, "{name}");
        let bits = if let "E2M3" | "E3M2" = name { 6 } else { 8 };
        assert_eq!(format.bits(), if name == "E2M1" { 4 } else { bits }, "{name}");
        assert_eq!(format.specials(), specials_of(spec.kind), "{name}");
    }
    let constants = [
        Fp8::E0M7,
        Fp8::E1M6,
        Fp8::E2M5,
        Fp8::E3M4,
        Fp8::E4M3,
        Fp8::E5M2,
        Fp8::E6M1,
        Fp8::E7M0,
        Fp8::E4M3_FNUZ,
        Fp8::E5M2_FNUZ,
        Fp8::E4M3_B11_FNUZ,
        Fp8::E4M3_IEEE,
        Fp8::E3M4_IEEE,
        Fp8::E2M3,
        Fp8::E3M2,
        Fp8::E2M1,
    ];
    assert_eq!(constants, Fp8::NAMED.map(|(_, format)| format));
}

#[test]
fn limits() {
    let limits = [
        (Fp8::E0M7, 127.0 / 128.0, pow2(-7), None),
        (Fp8::E1M6, 3.968_75, pow2(-5), Some(2.0)),
        (Fp8::E2M5, 7.875, pow2(-5), Some(1.0)),
        (Fp8::E3M4, 31.0, pow2(-6), Some(0.25)),
        (Fp8::E4M3, 448.0, pow2(-9), Some(pow2(-6))),
        (Fp8::E5M2, 57344.0, pow2(-16), Some(pow2(-14))),
        (Fp8::E6M1, 6_442_450_944.0, pow2(-31), Some(pow2(-30))),
        (Fp8::E7M0, 18_446_744_073_709_551_616.0, pow2(-62), Some(pow2(-62))),
        (Fp8::E4M3_FNUZ, 240.0, pow2(-10), Some(pow2(-7))),
        (Fp8::E5M2_FNUZ, 57344.0, pow2(-17), Some(pow2(-15))),
        (Fp8::E4M3_B11_FNUZ, 30.0, pow2(-13), Some(pow2(-10))),
        (Fp8::E4M3_IEEE, 240.0, pow2(-9), Some(pow2(-6))),
        (Fp8::E3M4_IEEE, 15.5, pow2(-6), Some(0.25)),
        (Fp8::E2M3, 7.5, 0.125, Some(1.0)),
        (Fp8::E3M2, 28.0, 0.0625, Some(0.25)),
        (Fp8::E2M1, 6.0, 0.5, Some(1.0)),
    ];
    assert_eq!(limits.len(), Fp8::NAMED.len());
    for (format, largest, smallest, smallest_normal) in limits {
        assert_eq!(format.largest_finite(), largest, "{format}");
        assert_eq!(format.smallest_positive(), smallest, "{format}");
        assert_eq!(format.smallest_normal(), smallest_normal, "{format}");
    }
}

#[test]
fn special_codes() {
    // Largest finite, infinity, NaN, and whether there is a negative zero.
    let codes = [
        (Fp8::E0M7, 0x7F, None, None, true),
        (Fp8::E1M6, 0x7F, None, None, true),
        (Fp8::E2M5, 0x7F, None, None, true),
        (Fp8::E3M4, 0x7F, None, None, true),
        (Fp8::E4M3, 0x7E, None, Some(0x7F), true),
        (Fp8::E5M2, 0x7B, Some(0x7C), Some(0x7E), true),
        (Fp8::E6M1, 0x7F, None, None, true),
        (Fp8::E7M0, 0x7F, None, None, true),
        (Fp8::E4M3_FNUZ, 0x7F, None, Some(0x80), false),
        (Fp8::E5M2_FNUZ, 0x7F, None, Some(0x80), false),
        (Fp8::E4M3_B11_FNUZ, 0x7F, None, Some(0x80), false),
        (Fp8::E4M3_IEEE, 0x77, Some(0x78), Some(0x7C), true),
        (Fp8::E3M4_IEEE, 0x6F, Some(0x70), Some(0x78), true),
        (Fp8::E2M3, 0x1F << 2, None, None, true),
        (Fp8::E3M2, 0x1F << 2, None, None, true),
        (Fp8::E2M1, 0x7 << 4, None, None, true),
        (Fp8::new(1, 6, 0, Specials::Ieee).unwrap(), 0x3F, Some(0x40), Some(0x60), true),
        (Fp8::new(6, 1, 31, Specials::Ieee).unwrap(), 0x7D, Some(0x7E), Some(0x7F), true),
        (Fp8::new(7, 0, 63, Specials::NanOnly).unwrap(), 0x7E, None, Some(0x7F), true),
    ];
    for (format, largest, infinity, nan, negative_zero) in codes {
        assert_eq!(format.largest_finite_code(), largest, "{format}");
        assert_eq!(format.infinity_code(), infinity, "{format}");
        assert_eq!(format.has_infinity(), infinity.is_some(), "{format}");
        assert_eq!(format.nan_code(), nan, "{format}");
        assert_eq!(format.has_nan(), nan.is_some(), "{format}");
        assert_eq!(format.has_negative_zero(), negative_zero, "{format}");
    }
}

/// The definition behind the oracle, checked by hand at the places where formats differ.
#[test]
fn the_oracle_knows_the_formats() {
    let value = |name: &str, code: u8| NAMED.into_iter().find(|spec| spec.name == name).unwrap().decode(code);
    assert_eq!(value("E0M7", 0x40), 0.5);
    assert_eq!(value("E1M6", 0x3F), 63.0 / 32.0);
    assert_eq!(value("E1M6", 0x40), 2.0);
    assert_eq!(value("E4M3", 0x38), 1.0);
    assert_eq!(value("E4M3", 0xFE), -448.0);
    assert!(value("E4M3", 0xFF).is_nan());
    assert_eq!(value("E5M2", 0xFC), f64::NEG_INFINITY);
    assert!(value("E5M2", 0x7D).is_nan());
    assert_eq!(value("E7M0", 0x3F), 1.0);
    assert_eq!(value("E7M0", 0x00), 0.0);
    assert!(value("E4M3_FNUZ", 0x80).is_nan());
    assert_eq!(value("E4M3_FNUZ", 0xFF), -240.0);
    assert_eq!(value("E4M3_IEEE", 0x78), f64::INFINITY);
    // All of FP4 (OCP Microscaling Formats specification 1.0, table 5), and what lies between two of its codes.
    let magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    for (code, magnitude) in (0..8).zip(magnitudes) {
        assert_eq!(value("E2M1", code << 4), magnitude);
        assert_eq!(value("E2M1", (code | 8) << 4), -magnitude);
    }
    assert_eq!(value("E2M1", 0x58), 3.5);
    assert_eq!(value("E2M1", 0x04), 0.125);
    assert_eq!(value("E2M3", 0x20 << 2 | 0x1F << 2), -7.5);
    assert_eq!(value("E3M2", 0x0C << 2), 1.0);
    assert_eq!(value("E3M2", 0x1F << 2), 28.0);
}

#[test]
fn every_code_decodes_to_its_value() {
    for spec in all_specs() {
        let format = format_of(spec);
        let values: Vec<_> = format.values().collect();
        assert_eq!((values.len(), format.values().len()), (1 << format.bits(), values.len()), "{}", spec.name);
        for (code, (listed, value)) in spec.codes().zip(values) {
            let expected = spec.decode(code);
            assert_eq!(listed, code);
            assert_eq!(value.is_nan(), expected.is_nan(), "{} {code:02X}", spec.name);
            assert_eq!(format.decode(code).to_bits(), value.to_bits(), "{} {code:02X}", spec.name);
            if !expected.is_nan() {
                assert_eq!(f64::from(value).to_bits(), expected.to_bits(), "{} {code:02X}", spec.name);
            }
        }
    }
}

/// Bytes that are no codes have values all the same.
#[test]
fn every_byte_has_the_value_of_the_format_of_8_bits() {
    for (narrow, wide) in [(Fp8::E2M3, Fp8::E2M5), (Fp8::E3M2, Fp8::E3M4), (Fp8::E2M1, Fp8::E2M5)] {
        for byte in 0..=u8::MAX {
            assert_eq!(narrow.decode(byte).to_bits(), wide.decode(byte).to_bits(), "{narrow} {byte:02X}");
        }
    }
    for spec in all_specs().filter(|spec| spec.spacing() > 1) {
        for byte in 0..=u8::MAX {
            let value = f64::from(format_of(spec).decode(byte));
            assert_eq!(value.to_bits(), spec.decode(byte).to_bits(), "{} {byte:02X}", spec.name);
        }
    }
}

#[test]
fn limits_are_those_of_the_values() {
    for spec in all_specs() {
        let (format, oracle) = (format_of(spec), Oracle::new(spec));
        assert_eq!(format.largest_finite_code(), oracle.largest_code, "{}", spec.name);
        assert_eq!(f64::from(format.largest_finite()), oracle.largest(), "{}", spec.name);
        let positive = spec.codes().filter(|code| (1..0x80).contains(code));
        let positive = positive.map(|code| oracle.decode(code)).filter(|value| value.is_finite());
        assert_eq!(Some(f64::from(format.smallest_positive())), positive.clone().reduce(f64::min), "{}", spec.name);
        // The smallest normal value is where the exponent field becomes 1, if that is a finite value at all.
        let first_normal = positive.clone().nth((1 << spec.mantissa_bits) - 1);
        assert_eq!(format.smallest_normal().map(f64::from), first_normal, "{}", spec.name);
    }
}
