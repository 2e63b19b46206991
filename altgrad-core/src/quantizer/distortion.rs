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
    /// Fraction of the elements that were clipped, from 0 to 1. An element is clipped if it is nearer to the number
    /// that would follow the format's largest finite value than to that value.
    pub saturated: f64,
    /// Fraction of the elements that were not zero and became zero, from 0 to 1.
    pub flushed_to_zero: f64,
}

impl Distortion {
    /// Compares a tensor with its codes, which have the same shape.
    pub(crate) fn measure(original: &Tensor, codes: &Fp8Tensor) -> Result<Self> {
        let mut sums = DistortionSums::default();
        sums.add(original, codes)?;
        Ok(sums.distortion())
    }
}

/// Accumulates the [`Distortion`] of a tensor that comes in parts.
#[derive(Debug, Default)]
pub(crate) struct DistortionSums {
    elements: usize,
    signal: f64,
    noise: f64,
    max_abs_error: f64,
    saturated: usize,
    flushed_to_zero: usize,
}

impl DistortionSums {
    /// Adds a part and its codes, which have the same shape.
    pub(crate) fn add(&mut self, original: &Tensor, codes: &Fp8Tensor) -> Result<()> {
        // On the CPU, since not every device has f64.
        let original = original.detach().to_device(&Device::Cpu)?;
        let quantized = codes.dequantize()?.to_device(&Device::Cpu)?;
        let (scales, blocks) = (codes.scale_values()?, codes.blocks());
        let midpoint = f64::from(codes.format().overflow_midpoint());
        self.elements += original.elem_count();
        dispatch_float!(original.dtype(), "the weight", T => {
            with_values(&original, |original: &[T]| with_values(&quantized, |quantized: &[T]| {
                for (run, block) in blocks.runs() {
                    let limit = midpoint * f64::from(scales[block]);
                    for (x, q) in original[run.clone()].iter().zip(&quantized[run]) {
                        let (x, q) = (x.to_f64(), q.to_f64());
                        let error = (x - q).abs();
                        self.signal += x * x;
                        self.noise += error * error;
                        self.max_abs_error = self.max_abs_error.max(error);
                        self.saturated += usize::from(x.abs() > limit);
                        self.flushed_to_zero += usize::from(x != 0.0 && q == 0.0);
                    }
                }
            }))?
        })
    }

    /// The distortion of all parts added so far.
    pub(crate) fn distortion(&self) -> Distortion {
        let fraction = |count: usize| count as f64 / self.elements.max(1) as f64;
        Distortion {
            sqnr_db: sqnr_db(self.signal, self.noise),
            max_abs_error: self.max_abs_error,
            saturated: fraction(self.saturated),
            flushed_to_zero: fraction(self.flushed_to_zero),
        }
    }
}

/// The ratio of two sums of squares in decibels; infinite without noise.
pub(crate) fn sqnr_db(signal: f64, noise: f64) -> f64 {
    if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() }
}
