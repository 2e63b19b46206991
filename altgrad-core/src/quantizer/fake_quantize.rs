//! Fake quantization as a differentiable candle operation.

use std::sync::Arc;

use altgrad_kernels::{Conversion, Scale};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Shape, Storage, Tensor};
use serde::{Deserialize, Serialize};

use super::scaling::check_scale;
use super::{Granularity, Quantizer, cpu, portable};
use crate::{Error, Fp8, Result, TensorError};

/// The straight-through estimator: what the backward pass of fake quantization does with the gradient. It treats the
/// scale as a constant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ste {
    /// The gradient passes unchanged.
    #[default]
    PassThrough,
    /// The gradient is zero where the value was clipped, and passes elsewhere. A value is clipped if `x / scale` is
    /// nearer to the number that would follow the format's largest finite value than to that value. The value that an
    /// `f32` scale is made from is not clipped, although rounding the scale may put it a little past the largest
    /// value; the floor rule of the MX formats clips values on purpose.
    Clipped,
}

/// Computes `decode(encode(x / scale)) × scale` as in the quantizer's first step, in the dtype and shape of `x`.
/// Scales are made from `x` alone, unless they are static; with delayed scaling the scale is 1.
///
/// Gradients pass as with [`Ste::PassThrough`]. NaN stays NaN, and the quantizer's [`Infinity`](crate::Infinity)
/// decides what infinities become. The quotient and the product are computed in `f32` (in `f64` for `f64` tensors)
/// and correctly rounded. In `f16` the product may be infinite: a power-of-two scale may round a value up past 65504.
/// Stochastic rounding uses the random numbers of step 0.
///
/// # Errors
///
/// A dtype other than f32, f64, f16 and bf16, an invalid quantizer, or an `f64` tensor whose largest magnitude is
/// finite but beyond the range of `f32`.
///
/// ```
/// use altgrad::{Fp8, Granularity, Quantizer, fake_quantize};
/// use candle_core::{Device, Tensor};
///
/// let x = Tensor::new(&[[448f32, 17.0, -0.3], [0.0, 0.017, -0.28]], &Device::Cpu)?;
/// let q = fake_quantize(&x, &Quantizer::from(Fp8::E4M3))?;
/// assert_eq!(q.to_vec2::<f32>()?, [[448.0, 16.0, -0.3125], [0.0, 0.017578125, -0.28125]]);
///
/// // With a scale of its own, the second row comes out more exactly.
/// let q = fake_quantize(&x, &Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow))?;
/// assert_eq!(q.to_vec2::<f32>()?[1][2], -0.28);
/// # Ok::<(), altgrad::Error>(())
/// ```
pub fn fake_quantize(x: &Tensor, quantizer: &Quantizer) -> Result<Tensor> {
    fake_quantize_with(x, quantizer.first_conversion(x, "the tensor")?, Ste::PassThrough)
}

/// [`fake_quantize`] with a scale and an estimator of your choice. Values beyond the format's range saturate, as do
/// infinities.
///
/// # Errors
///
/// A dtype other than f32, f64, f16 and bf16, or a scale that is not a positive finite number.
pub fn fake_quantize_with_scale(x: &Tensor, format: Fp8, scale: f32, ste: Ste) -> Result<Tensor> {
    check_scale(scale)?;
    let (blocks, scales) = (Granularity::PerTensor.blocks(x.dims()), vec![Scale::new(scale)]);
    fake_quantize_with(x, Conversion::saturating(format, blocks, scales), ste)
}

impl Ste {
    /// Where the gradient of `x` stops, if `x` needs one. This is computed in the forward pass, because `x` may be a
    /// variable that has changed by the time of the backward pass.
    pub(crate) fn clip(self, x: &Tensor, conversion: &Conversion) -> Result<Clip> {
        self.clip_values(x, conversion, x.track_op())
    }

    /// As [`clip`](Self::clip), for the values of a tensor; `needs_gradient` says whether the tensor needs a
    /// gradient.
    pub(crate) fn clip_values(self, x: &Tensor, conversion: &Conversion, needs_gradient: bool) -> Result<Clip> {
        match self {
            // The same quotient, in the same precision, as the one that is rounded.
            Self::Clipped if needs_gradient => {
                Ok(Clip(Some(portable::is_clipped(&x.detach().contiguous()?, conversion)?)))
            }
            Self::Clipped | Self::PassThrough => Ok(Clip(None)),
        }
    }
}

/// Where a gradient stops: at elements that were clipped, or nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clip(Option<Tensor>);

impl Clip {
    /// The gradient of a tensor from that of its quantized values.
    pub(crate) fn stop(&self, grad: &Tensor) -> Result<Tensor> {
        match &self.0 {
            None => Ok(grad.clone()),
            Some(clipped) => Ok(clipped.where_cond(&grad.zeros_like()?, grad)?),
        }
    }

    /// The same for some rows of a matrix, given by their numbers.
    pub(crate) fn rows(&self, rows: &Tensor) -> Result<Self> {
        Ok(Self(self.0.as_ref().map(|clipped| clipped.index_select(rows, 0)).transpose()?))
    }
}

/// [`fake_quantize`] under a given conversion and estimator.
pub(crate) fn fake_quantize_with(x: &Tensor, conversion: impl Into<Arc<Conversion>>, ste: Ste) -> Result<Tensor> {
    let conversion = conversion.into();
    let clip = ste.clip(x, &conversion)?;
    if !cpu::is_supported(x.dtype()) {
        return Err(Error::Tensor(TensorError::UnsupportedDType { what: "the tensor", dtype: x.dtype() }));
    }
    let known = if x.device().is_cpu() { None } else { Some(portable::fake_quantize(x, &conversion)?) };
    Ok(x.contiguous()?.apply_op1(FakeQuantize { conversion, clip, known })?)
}

struct FakeQuantize {
    conversion: Arc<Conversion>,
    clip: Clip,
    /// The result, already computed by candle's operations, for a tensor that is not on the CPU.
    known: Option<Tensor>,
}

impl FakeQuantize {
    /// A copy of the known result; `pick` selects its storage.
    fn copy<S: BackendStorage>(
        &self,
        layout: &Layout,
        pick: impl FnOnce(&Storage) -> Option<&S>,
    ) -> candle_core::Result<(S, Shape)> {
        let Some(values) = &self.known else {
            candle_core::bail!("fake quantization on a device starts from its result")
        };
        let values = values.contiguous()?;
        let (storage, values_layout) = values.storage_and_layout();
        match pick(&storage) {
            Some(storage) => Ok((storage.try_clone(values_layout)?, layout.shape().clone())),
            None => candle_core::bail!("fake quantization of a tensor that moved to another device"),
        }
    }
}

impl CustomOp1 for FakeQuantize {
    fn name(&self) -> &'static str {
        "fake_quantize"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let values = cpu::fake_quantize(storage, layout, storage.dtype(), &self.conversion)?;
        Ok((values, layout.shape().clone()))
    }

    fn cuda_fwd(&self, _: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        self.copy(layout, |storage| match storage {
            Storage::Cuda(storage) => Some(storage),
            _ => None,
        })
    }

    fn metal_fwd(&self, _: &MetalStorage, layout: &Layout) -> candle_core::Result<(MetalStorage, Shape)> {
        self.copy(layout, |storage| match storage {
            Storage::Metal(storage) => Some(storage),
            _ => None,
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.clip.stop(grad)?))
    }
}
