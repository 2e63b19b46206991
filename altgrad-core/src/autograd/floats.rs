//! Tensors on the CPU as slices of floats, and back.

use std::ops::{Deref, Range};

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Shape, Storage, Tensor};

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

/// The same as a tensor outside of the graph.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
    let storage = Storage::Cpu(to_storage(values, dtype)?);
    Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
}
