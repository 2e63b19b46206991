//! The formats against an oracle of the tests' own and against other implementations.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests compare exact values and fail by panicking")]

mod constants;
mod custom;
mod encode;
mod golden;
mod text;

use altgrad_kernels::{Fp8, Specials};
use altgrad_testing::{Kind, Spec};

fn format_of(spec: Spec) -> Fp8 {
    Fp8::new(spec.exponent_bits, spec.mantissa_bits, spec.bias, specials_of(spec.kind)).unwrap()
}

fn specials_of(kind: Kind) -> Specials {
    match kind {
        Kind::None => Specials::None,
        Kind::NanOnly => Specials::NanOnly,
        Kind::Ieee => Specials::Ieee,
        Kind::Fnuz => Specials::Fnuz,
    }
}

/// Asserts that an encoded code is the expected one, where `None` stands for NaN.
#[track_caller]
fn assert_code(spec: Spec, input: f64, actual: Option<u8>, expected: Option<u8>) {
    let is_nan = |code: u8| spec.decode(code).is_nan();
    let agree = match (actual, expected) {
        (Some(actual), Some(expected)) => actual == expected || (is_nan(actual) && is_nan(expected)),
        (Some(actual), None) => is_nan(actual),
        (None, None) => !spec.has_nan(),
        (None, Some(_)) => false,
    };
    assert!(agree, "{}: {input:e} is {actual:02X?}, expected {expected:02X?}", spec.name);
}
