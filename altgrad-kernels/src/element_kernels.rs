//! The kernels of each element type, compiled with this crate and not with the crate that calls the generic
//! functions.

use half::{bf16, f16};

use crate::blocks::Blocks;
use crate::conversion::Conversion;
use crate::element::Scalar;
use crate::elementwise;
use crate::format::Fp8;
use crate::level::Level;

/// An element type of tensors that can be quantized: `f32`, `f64`, [`half::f16`] or [`half::bf16`]. No other type can
/// implement it.
///
/// Kernels compute `f32` and `f64` in the type itself, and `f16` and `bf16` in `f32`, which holds them exactly.
pub trait Element: ElementKernels {}

impl Element for f32 {}
impl Element for f64 {}
impl Element for f16 {}
impl Element for bf16 {}

/// The kernels of one type.
pub trait ElementKernels: Scalar {
    /// As [`amax`](crate::amax), for as many values as the blocks have elements.
    fn amax(values: &[Self], blocks: Blocks) -> Vec<f64>;

    /// As [`fake_quantize`](crate::fake_quantize), for slices as long as the blocks have elements.
    fn fake_quantize(from: &[Self], to: &mut [Self], conversion: &Conversion);

    /// As [`encode`](crate::encode), for slices as long as the blocks have elements; false if there is no code for a
    /// value.
    fn encode(from: &[Self], to: &mut [u8], conversion: &Conversion) -> bool;

    /// As [`decode_with`](crate::decode_with), for as many scales as there are blocks and slices as long as the
    /// blocks have elements.
    fn decode(codes: &[u8], to: &mut [Self], format: Fp8, blocks: Blocks, scales: &[f32]);
}

macro_rules! kernels {
    ($($type:ty),+) => {$(
        impl ElementKernels for $type {
            fn amax(values: &[Self], blocks: Blocks) -> Vec<f64> {
                elementwise::amax(Level::detect(), values, blocks)
            }

            fn fake_quantize(from: &[Self], to: &mut [Self], conversion: &Conversion) {
                elementwise::fake_quantize(Level::detect(), from, to, conversion);
            }

            fn encode(from: &[Self], to: &mut [u8], conversion: &Conversion) -> bool {
                elementwise::encode(Level::detect(), from, to, conversion)
            }

            fn decode(codes: &[u8], to: &mut [Self], format: Fp8, blocks: Blocks, scales: &[f32]) {
                elementwise::decode(Level::detect(), codes, to, format, blocks, scales);
            }
        }
    )+};
}

kernels!(f32, f64, f16, bf16);
