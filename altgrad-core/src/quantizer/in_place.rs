//! A fake-quantized tensor that is updated in place, so that its clones see the new values.

use std::sync::Arc;

use altgrad_kernels::Conversion;
use altgrad_kernels::lock::Lock;
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Shape, Tensor};

use super::{Clip, Fp8Tensor, Granularity, Ste, fake_quantize_with};
use crate::Result;

/// A tensor with the fake-quantized values of another tensor, its source, as of the last [`update`](Self::update).
/// Its gradient goes to the source through an estimator.
#[derive(Debug)]
pub(crate) struct InPlace {
    tensor: Tensor,
    ste: Ste,
    latest: Arc<Lock<Latest>>,
}

/// What the values were computed from last.
#[derive(Clone, Debug, Default)]
struct Latest {
    /// How the source was converted; `None` if the values are those of the source itself.
    conversion: Option<Arc<Conversion>>,
    clip: Clip,
}

impl InPlace {
    pub(crate) fn new(source: &Tensor, conversion: Conversion, ste: Ste) -> Result<Self> {
        let latest = Arc::new(Lock::new(Latest::default()));
        let tensor = source.apply_op1(Estimator { latest: Arc::clone(&latest) })?;
        let in_place = Self { tensor, ste, latest };
        in_place.update(source, Some(conversion))?;
        Ok(in_place)
    }

    /// The tensor to hand out.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The codes of `source` under the scales of the last update; `None` if that had no conversion.
    pub(crate) fn codes(&self, source: &Tensor, granularity: Granularity) -> Result<Option<Fp8Tensor>> {
        let conversion = self.latest.get().conversion;
        conversion.map(|conversion| Fp8Tensor::convert(source, &conversion, granularity)).transpose()
    }

    /// Takes over the fake-quantized values of `source`, or its own values if there is no conversion.
    pub(crate) fn update(&self, source: &Tensor, conversion: Option<Conversion>) -> Result<()> {
        let conversion = conversion.map(Arc::new);
        let values = match &conversion {
            Some(conversion) => fake_quantize_with(&source.detach(), Arc::clone(conversion), self.ste)?,
            None => source.detach().contiguous()?,
        };
        let clip = match &conversion {
            Some(conversion) => self.ste.clip(source, conversion)?,
            None => Clip::default(),
        };
        // Device kernels cannot run on empty tensors.
        if values.elem_count() > 0 {
            self.tensor.slice_set(&values, 0, 0)?;
        }
        self.latest.replace(Latest { conversion, clip });
        Ok(())
    }
}

/// The backward pass; the forward pass only makes room for the values.
struct Estimator {
    latest: Arc<Lock<Latest>>,
}

impl CustomOp1 for Estimator {
    fn name(&self) -> &'static str {
        "fake_quantize_in_place"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        room(storage, layout)
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        room(storage, layout)
    }

    fn metal_fwd(&self, storage: &MetalStorage, layout: &Layout) -> candle_core::Result<(MetalStorage, Shape)> {
        room(storage, layout)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.latest.get().clip.stop(grad)?))
    }
}

/// Zeros of the shape and dtype of a tensor.
fn room<S>(storage: &S, layout: &Layout) -> candle_core::Result<(S, Shape)>
where
    S: BackendStorage<Device: BackendDevice<Storage = S>>,
{
    Ok((storage.device().zeros_impl(layout.shape(), storage.dtype())?, layout.shape().clone()))
}
