//! Formats of 8 bits and fewer, and kernels that compute with them on slices, without tensors or layers: the largest
//! magnitude, fake quantization, encoding and decoding, and products of matrices of codes.
//!
//! Use the `altgrad` crate, whose module `kernels` has the conversions. Products and the [`lock`] are for
//! `altgrad-core`: their arguments must fit together as their documentation says.
//!
//! A slice is a matrix of rows that lie one after the other. [`Blocks`] says which of its elements share a scale, and a
//! [`Conversion`] holds the format and the scales. Elements are `f32`, `f64`, `f16` or `bf16`.
//!
//! Each function computes exactly what [`Fp8::encode_with`](crate::Fp8::encode_with) and
//! [`Fp8::decode`](crate::Fp8::decode) specify, bit for bit on every instruction set and any number of threads. Large
//! slices are divided among the threads of the current `rayon` pool; to use a single thread, call from inside a pool
//! of one thread. Loops do not branch on the format or the values, so that the compiler vectorizes them for each
//! [`Level`] that a processor may turn out to have.
//!
//! ```
//! use altgrad::kernels::{self, Blocks, Conversion};
//! use altgrad::{Fp8, compute_scale};
//!
//! let x = [0.1f32, -0.25, 0.3, 448.0, 5.0, -60.0]; // two rows of three
//! let blocks = Blocks::per_row(2, 3);
//! let scales = kernels::amax(&x, blocks)?.into_iter().map(|amax| compute_scale(amax as f32, Fp8::E4M3));
//! let conversion = Conversion::new(Fp8::E4M3, blocks, scales)?;
//!
//! let mut codes = [0; 6];
//! kernels::encode(&x, &mut codes, &conversion)?;
//! assert_eq!(codes[3..], [0x7E, 0x4A, 0xE7]);
//!
//! let (mut decoded, mut fake) = ([0f32; 6], [0f32; 6]);
//! kernels::decode(&codes, &mut decoded, &conversion)?;
//! kernels::fake_quantize(&x, &mut fake, &conversion)?;
//! assert_eq!(decoded[3..], [448.0, 5.0, -60.0]);
//! assert_eq!(decoded, fake);
//! # Ok::<(), altgrad::Error>(())
//! ```

mod blocks;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod columns;
mod conversion;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod draws;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod element;
mod element_kernels;
mod elementwise;
mod error;
mod format;
mod gate;
mod level;
pub mod lock;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod loops;
mod memory;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
pub mod optim;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod product;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod round;
mod specials;
#[cfg(test)]
mod tests;
mod threads;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
pub mod transformer;
mod transpose;
#[allow(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
mod values;
mod windows;

pub use blocks::{Blocks, Runs};
pub use columns::{add, add_bias, sum, sum_rows};
pub use conversion::{Conversion, Scale};
pub use draws::Draws;
pub use element::Scalar;
pub use element_kernels::{Element, ElementKernels};
pub use error::{FormatError, ParseError, Result};
pub use format::{Fp8, Infinity, Overflow, Specials};
pub use level::Level;
pub use memory::zeroed;
pub use product::{CodeMatrix, FloatMatrix, Lhs, PackedCodes, Rhs, Role, TokenPanels, attention};
pub use transpose::transpose;
pub use windows::Windows;

/// The largest magnitude of each block, in the order of the blocks and in units of the values: NaN if the block holds
/// NaN, 0 if it is empty.
///
/// # Errors
///
/// [`FormatError::LengthMismatch`] if there are not as many values as `blocks` has elements.
pub fn amax<T: Element>(values: &[T], blocks: Blocks) -> Result<Vec<f64>> {
    check_len("the slice of values", blocks.elements(), values.len())?;
    Ok(T::amax(values, blocks))
}

/// What `of_one` makes of each of `from`, computed on several threads if there are many: scales from the largest
/// magnitudes of blocks.
pub fn map<A: Copy + Sync, B: Copy + Send>(from: &[A], of_one: impl Fn(A) -> B + Sync) -> Vec<B> {
    /// A scale takes about as long as this many elements of a loop.
    const COST: usize = 16;
    const PART: usize = 1 << 12;
    if from.len() <= PART {
        return from.iter().map(|one| of_one(*one)).collect();
    }
    let parts = from.chunks(PART).collect();
    let of_part = |part: &[A]| part.iter().map(|one| of_one(*one)).collect::<Vec<B>>();
    threads::map(parts, COST * from.len(), of_part).concat()
}

/// `to[i] = decode(encode(from[i] / scale)) × scale`, with NaN staying NaN and infinities as the conversion says.
///
/// Quotients and products are computed in `f32` (in `f64` for `f64`) and correctly rounded.
///
/// # Errors
///
/// [`FormatError::LengthMismatch`] if one of the slices does not have as many elements as the conversion's blocks.
pub fn fake_quantize<T: Element>(from: &[T], to: &mut [T], conversion: &Conversion) -> Result<()> {
    check_len("the slice of values", conversion.blocks.elements(), from.len())?;
    check_len("the slice for results", conversion.blocks.elements(), to.len())?;
    T::fake_quantize(from, to, conversion);
    Ok(())
}

/// `to[i] = encode(from[i] / scale)`.
///
/// # Errors
///
/// [`FormatError::NanNotRepresentable`] if a value is NaN, or an infinity that propagates, and the format has no NaN,
/// in which case the contents of `to` are unspecified; [`FormatError::LengthMismatch`] if one of the slices does not
/// have as many elements as the conversion's blocks.
pub fn encode<T: Element>(from: &[T], to: &mut [u8], conversion: &Conversion) -> Result<()> {
    check_len("the slice of values", conversion.blocks.elements(), from.len())?;
    check_len("the slice for codes", conversion.blocks.elements(), to.len())?;
    if T::encode(from, to, conversion) {
        Ok(())
    } else {
        Err(FormatError::NanNotRepresentable { format: conversion.format.to_string() })
    }
}

/// `to[i] = decode(codes[i]) × scale`; of the conversion, only its format, blocks and scales matter.
///
/// # Errors
///
/// [`FormatError::LengthMismatch`] if one of the slices does not have as many elements as the conversion's blocks.
pub fn decode<T: Element>(codes: &[u8], to: &mut [T], conversion: &Conversion) -> Result<()> {
    let scales: Vec<f32> = conversion.scales.iter().map(|scale| scale.value()).collect();
    decode_with(codes, to, conversion.format, conversion.blocks, &scales)
}

/// As [`decode`], with the scale of each block as a number.
pub fn decode_with<T: Element>(codes: &[u8], to: &mut [T], format: Fp8, blocks: Blocks, scales: &[f32]) -> Result<()> {
    check_len("the slice of codes", blocks.elements(), codes.len())?;
    check_len("the slice for values", blocks.elements(), to.len())?;
    check_len("the list of scales", blocks.count(), scales.len())?;
    T::decode(codes, to, format, blocks, scales);
    Ok(())
}

fn check_len(what: &'static str, expected: usize, actual: usize) -> Result<()> {
    if actual == expected { Ok(()) } else { Err(FormatError::LengthMismatch { what, expected, actual }) }
}

/// `c[i, j] = Σ a[i, p] · b[j, p]` for operands with rows of the same length; `c` has one row for each row of `a`.
///
/// Within `2·k·2⁻²⁴·Σ|a||b|` of the exact result for a sum of `k` products.
pub fn multiply(a: &Lhs<'_>, b: &Rhs<'_>, c: &mut [f32]) {
    product::multiply(Level::detect(), a, b, c);
}
