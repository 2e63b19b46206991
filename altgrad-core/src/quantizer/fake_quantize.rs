//! Fake quantization as a differentiable candle operation.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor, WithDType};
use serde::Serialize;

use super::scaling::check_scale;
use super::{Fp8Tensor, Quantizer, cpu, dispatch_float};
use crate::format::Fp8;
use crate::{Error, Result, kernels};

/// The straight-through estimator: what the backward pass of fake quantization does with the gradient. The scale is a
/// constant to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Ste {
    /// The gradient passes unchanged.
    #[default]
    PassThrough,
    /// The gradient is zero where the value was clipped, that is where `x / scale` is nearer to a number beyond the
    /// format's range than to its largest finite value, and passes elsewhere. A value that defines the scale is never
    /// clipped, although the rounding of the scale may put it a little past the largest value.
    Clipped,
}

/// `decode(encode(x / scale)) × scale` under the scale of `x` alone, in the dtype and shape of `x`.
///
/// Differentiable with [`Ste::PassThrough`]. NaN stays NaN; infinities saturate. The quotient is computed in `f32` (in
/// `f64` for `f64` tensors) and correctly rounded, as is the product.
///
/// # Errors
///
/// A dtype other than f32, f64, f16 and bf16, a device other than the CPU, an invalid quantizer, or an `f64` tensor whose
/// largest magnitude is finite but beyond `f32`.
///
/// ```
/// use altgrad_core::{Fp8, Quantizer, fake_quantize};
/// use candle_core::{Device, Tensor};
///
/// let x = Tensor::new(&[448f32, 17.0, -0.3], &Device::Cpu)?;
/// let q = fake_quantize(&x, &Quantizer::from(Fp8::E4M3))?;
/// assert_eq!(q.to_vec1::<f32>()?, [448.0, 16.0, -0.3125]);
/// # Ok::<(), altgrad_core::Error>(())
/// ```
pub fn fake_quantize(x: &Tensor, quantizer: &Quantizer) -> Result<Tensor> {
    let scale = quantizer.first_scale(x, "the tensor")?;
    fake_quantize_with_scale(x, quantizer.format, scale, Ste::PassThrough)
}

/// [`fake_quantize`] under a scale and an estimator of your choice.
///
/// # Errors
///
/// A dtype other than f32, f64, f16 and bf16, a device other than the CPU, or a scale that is not a positive finite number.
pub fn fake_quantize_with_scale(x: &Tensor, format: Fp8, scale: f32, ste: Ste) -> Result<Tensor> {
    check_scale(scale)?;
    apply(x, FakeQuantize { format, scale, ste, cached: None })
}

/// [`fake_quantize`] of an `x` whose codes are known already: the same result and the same gradient.
pub(crate) fn fake_quantize_cached(x: &Tensor, cached: &Fp8Tensor, ste: Ste) -> Result<Tensor> {
    let (format, scale) = (cached.format(), cached.scale()?);
    apply(x, FakeQuantize { format, scale, ste, cached: Some(cached.clone()) })
}

fn apply(x: &Tensor, operation: FakeQuantize) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return Err(Error::UnsupportedDevice { operation: "fake quantization", device: x.device().location() });
    }
    Ok(x.contiguous()?.apply_op1(operation)?)
}

struct FakeQuantize {
    format: Fp8,
    scale: f32,
    ste: Ste,
    /// The codes of the argument, if they are known.
    cached: Option<Fp8Tensor>,
}

impl FakeQuantize {
    fn forward(&self, storage: &CpuStorage, layout: &Layout, dtype: DType) -> Result<CpuStorage> {
        dispatch_float!(dtype, "the tensor", T => Ok(T::to_cpu_storage_owned(if let Some(cached) = &self.cached {
            cached.decode()?
        } else {
            let from = cpu::contiguous_values::<T>(storage, layout)?;
            let mut to = vec![T::default(); from.len()];
            kernels::fake_quantize(from, &mut to, self.format, self.scale);
            to
        })))
    }
}

impl CustomOp1 for FakeQuantize {
    fn name(&self) -> &'static str {
        "fake_quantize"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        Ok((self.forward(storage, layout, storage.dtype())?, layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        match self.ste {
            Ste::PassThrough => Ok(Some(grad.clone())),
            Ste::Clipped => {
                // The same quotient, in the same precision, as in the forward pass.
                let dtype = if arg.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
                let scale = Tensor::new(self.scale, arg.device())?.to_dtype(dtype)?;
                let quotient = arg.detach().to_dtype(dtype)?.broadcast_div(&scale)?;
                let midpoint = f64::from(self.format.overflow_midpoint());
                let clipped = if self.format.overflow_midpoint_overflows() {
                    quotient.abs()?.ge(midpoint)?
                } else {
                    quotient.abs()?.gt(midpoint)?
                };
                Ok(Some(clipped.where_cond(&grad.zeros_like()?, grad)?))
            }
        }
    }
}
