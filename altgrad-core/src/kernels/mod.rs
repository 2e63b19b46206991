//! Loops over slices: the largest magnitude, fake quantization, encoding and decoding.
//!
//! Each loop is branch-free in the format and the values so that the compiler vectorizes it; each computes exactly
//! what [`Fp8::encode_with`](crate::Fp8::encode_with) and [`Fp8::decode`](crate::Fp8::decode) specify.

mod element;
mod elementwise;
mod round;
#[cfg(test)]
mod tests;

pub(crate) use element::Element;
pub(crate) use elementwise::{amax, decode, encode, fake_quantize};
