//! Tensors on the CPU as slices of floats, and back.

use std::ops::{Deref, Range};

use altgrad_kernels::lock::Lock;
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Shape, Storage, Tensor};

use super::Computed;
use crate::Result;
use crate::quantizer::to_storage;

/// The elements of a tensor of any floating-point type in logical order, as `f32`: those that are stored on the CPU if
/// they are, a copy otherwise.
pub(crate) fn floats(tensor: &Tensor) -> Result<impl Deref<Target = [f32]>> {
    if tensor.dtype() == DType::F32 && tensor.device().is_cpu() {
        let (storage, layout) = tensor.storage_and_layout();
        if let Some((start, end)) = layout.contiguous_offsets() {
            return Ok(Floats::Stored(storage, start..end));
        }
    }
    Ok(Floats::Own(tensor.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
}

/// Floats in a storage that is borrowed through a guard, or in memory of their own.
enum Floats<G> {
    Stored(G, Range<usize>),
    Own(Vec<f32>),
}

impl<G: Deref<Target = Storage>> Deref for Floats<G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Stored(storage, range) => match &**storage {
                Storage::Cpu(CpuStorage::F32(values)) => &values[range.clone()],
                // `floats` has looked.
                _ => &[],
            },
            Self::Own(values) => values,
        }
    }
}

/// A result of a kernel, in the dtype of a tensor.
pub(crate) fn computed(values: Vec<f32>, dtype: DType) -> Result<Computed> {
    Ok(Computed::Cpu(to_storage(values, dtype)?))
}

/// A result of candle's that nothing else has: its memory is not copied.
pub(crate) fn owned(result: Tensor) -> Result<Computed> {
    let memory = Take(Lock::new(None));
    if result.device().is_cpu() && result.is_contiguous() {
        result.inplace_op1(&memory)?;
    }
    Ok(memory.0.into_inner().map_or(Computed::Tensor(result), Computed::Cpu))
}

/// Takes the memory of a tensor that is not needed any more, if all of it is the tensor's.
struct Take(Lock<Option<CpuStorage>>);

impl InplaceOp1 for Take {
    fn name(&self) -> &'static str {
        "altgrad"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let len = match storage {
            CpuStorage::F32(values) => values.len(),
            CpuStorage::F64(values) => values.len(),
            CpuStorage::F16(values) => values.len(),
            CpuStorage::BF16(values) => values.len(),
            _ => return Ok(()),
        };
        if layout.contiguous_offsets() == Some((0, len)) {
            self.0.replace(Some(std::mem::replace(storage, CpuStorage::U8(Vec::new()))));
        }
        Ok(())
    }
}

/// The same as a tensor outside of the graph.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
    let storage = Storage::Cpu(to_storage(values, dtype)?);
    Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
}
