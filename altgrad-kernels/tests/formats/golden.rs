//! The golden tables: what other implementations say.

use altgrad_kernels::{Fp8, Overflow};
use half::{bf16, f16};

use crate::{assert_code, format_of};
use altgrad_testing::golden::{Codes, Golden};
use altgrad_testing::{CUSTOM_GOLDEN, NAMED, Spec};

fn specs() -> impl Iterator<Item = Spec> {
    NAMED.into_iter().chain(CUSTOM_GOLDEN)
}

fn check(spec: Spec, format: Fp8, input: impl Into<f64>, expected: Codes) {
    let value: f64 = input.into();
    assert_code(spec, value, format.encode_with(value, Overflow::Special), expected.special);
    assert_code(spec, value, format.encode_with(value, Overflow::Saturate), expected.saturated);
}

#[test]
fn decode() {
    for spec in specs() {
        let format = format_of(spec);
        let golden = Golden::read(spec.name).decode;
        assert_eq!(golden.len(), 1 << format.bits(), "{}", spec.name);
        for (code, expected) in spec.codes().zip(golden) {
            let value = format.decode(code);
            let bits = (!value.is_nan()).then_some(value.to_bits());
            assert_eq!(bits, expected, "{} {code:02X}", spec.name);
        }
    }
}

#[test]
fn encode_f32() {
    let mut count = 0;
    for spec in specs() {
        let format = format_of(spec);
        for (bits, expected) in Golden::read(spec.name).f32 {
            check(spec, format, f32::from_bits(bits), expected);
            count += 1;
        }
    }
    assert_eq!(count, 44_950, "inputs in the tables");
}

#[test]
fn encode_f64() {
    let mut count = 0;
    for spec in specs() {
        let format = format_of(spec);
        for (bits, expected) in Golden::read(spec.name).f64 {
            check(spec, format, f64::from_bits(bits), expected);
            count += 1;
        }
    }
    assert_eq!(count, 20_111, "inputs in the tables");
}

#[test]
fn encode_f16_and_bf16() {
    for spec in specs() {
        let (format, golden) = (format_of(spec), Golden::read(spec.name));
        assert_eq!((golden.f16.len(), golden.bf16.len()), (0x1_0000, 0x1_0000), "{}", spec.name);
        for (bits, (f16_codes, bf16_codes)) in (0..=u16::MAX).zip(golden.f16.into_iter().zip(golden.bf16)) {
            check(spec, format, f16::from_bits(bits), f16_codes);
            check(spec, format, bf16::from_bits(bits), bf16_codes);
        }
    }
}
