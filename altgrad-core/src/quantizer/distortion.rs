//! What quantization did to the values of one tensor.

use candle_core::{Device, Tensor, WithDType};
use serde::Serialize;

use super::Fp8Tensor;
use super::cpu::{dispatch_float, with_values};
use crate::Result;

/// How far the quantized values of a tensor lie from the original ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Distortion {
    /// Signal-to-quantization-noise ratio, `10 log10(Σ x² / Σ (x - q)²)`, in decibels; infinite if nothing changed.
    pub sqnr_db: f64,
    /// Largest `|x - q|`.
    pub max_abs_error: f64,
    /// Fraction of the elements that were clipped, that is nearer to a number beyond the format's range than to its
    /// largest finite value, 0 to 1.
    pub saturated: f64,
    /// Fraction of the elements that were not zero and became zero, 0 to 1.
    pub flushed_to_zero: f64,
}

impl Distortion {
    /// Compares a tensor with its codes, which have the same shape.
    pub(crate) fn measure(original: &Tensor, codes: &Fp8Tensor) -> Result<Self> {
        // On the CPU, since not every device has f64.
        let original = original.detach().to_device(&Device::Cpu)?;
        let quantized = codes.dequantize()?.to_device(&Device::Cpu)?;
        let (scales, blocks) = (codes.scale_values()?, codes.blocks());
        let midpoint = f64::from(codes.format().overflow_midpoint());
        let (mut signal, mut noise, mut max_abs_error) = (0f64, 0f64, 0f64);
        let (mut saturated, mut flushed) = (0usize, 0usize);
        dispatch_float!(original.dtype(), "the weight", T => {
            with_values(&original, |original: &[T]| with_values(&quantized, |quantized: &[T]| {
                for (run, block) in blocks.runs() {
                    let limit = midpoint * f64::from(scales[block]);
                    for (x, q) in original[run.clone()].iter().zip(&quantized[run]) {
                        let (x, q) = (x.to_f64(), q.to_f64());
                        let error = (x - q).abs();
                        signal += x * x;
                        noise += error * error;
                        max_abs_error = max_abs_error.max(error);
                        saturated += usize::from(x.abs() > limit);
                        flushed += usize::from(x != 0.0 && q == 0.0);
                    }
                }
            }))?
        })?;
        let fraction = |count: usize| count as f64 / original.elem_count().max(1) as f64;
        Ok(Self {
            sqnr_db: if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() },
            max_abs_error,
            saturated: fraction(saturated),
            flushed_to_zero: fraction(flushed),
        })
    }
}
