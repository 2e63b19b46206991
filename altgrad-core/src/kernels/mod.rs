//! Loops over slices: the largest magnitude, fake quantization, encoding and decoding.
//!
//! Each loop is branch-free in the format and the values, so that the compiler vectorizes it for each instruction set of
//! which a processor may turn out to have the strongest. Each computes exactly what
//! [`Fp8::encode_with`](crate::Fp8::encode_with) and [`Fp8::decode`](crate::Fp8::decode) specify, on every one.

mod blocks;
mod conversion;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod draws;
mod element;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod elementwise;
mod level;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod product;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod round;
#[cfg(test)]
pub(crate) mod tests;
mod threads;

pub(crate) use blocks::Blocks;
pub(crate) use conversion::{Conversion, Scale};
pub(crate) use draws::Draws;
pub(crate) use element::Element;

use crate::format::Fp8;
use level::Level;

/// The largest magnitude of each block; NaN if any of its values is NaN, 0 if it has none.
pub(crate) fn amax<T: Element>(values: &[T], blocks: Blocks) -> Vec<f64> {
    elementwise::amax(Level::detect(), values, blocks)
}

/// `to[i] = decode(encode(from[i] / scale)) × scale`, NaN staying NaN; both slices have the same length.
pub(crate) fn fake_quantize<T: Element>(from: &[T], to: &mut [T], conversion: &Conversion) {
    elementwise::fake_quantize(Level::detect(), from, to, conversion);
}

/// `to[i] = encode(from[i] / scale)`; false if a value is NaN and the format has no NaN, and then `to` is of no use.
pub(crate) fn encode<T: Element>(from: &[T], to: &mut [u8], conversion: &Conversion) -> bool {
    elementwise::encode(Level::detect(), from, to, conversion)
}

/// `to[i] = decode(codes[i]) × scale`, with one scale for each block; both slices have the same length.
pub(crate) fn decode<T: Element>(codes: &[u8], to: &mut [T], format: Fp8, blocks: Blocks, scales: &[f32]) {
    elementwise::decode(Level::detect(), codes, to, format, blocks, scales);
}
