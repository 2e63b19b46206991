//! Quantization on the CPU: from candle tensors of any layout to the slices that the kernels take.

use altgrad_kernels::{self as kernels, Blocks, Conversion, Scalar as _};
use candle_core::{CpuStorage, DType, Layout, Storage, Tensor, WithDType};

use crate::{Fp8, Result};

/// Runs `$body` with `$type` standing for the element type of `$dtype`, or returns
/// [`TensorError::UnsupportedDType`](crate::TensorError::UnsupportedDType).
macro_rules! dispatch_float {
    ($dtype:expr, $what:expr, $type:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $type = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $type = f64;
                $body
            }
            candle_core::DType::F16 => {
                type $type = half::f16;
                $body
            }
            candle_core::DType::BF16 => {
                type $type = half::bf16;
                $body
            }
            dtype => Err($crate::Error::Tensor(crate::TensorError::UnsupportedDType { what: $what, dtype })),
        }
    };
}
pub(crate) use dispatch_float;

/// Whether tensors of this dtype can be quantized.
pub(crate) fn is_supported(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

/// The elements of a contiguous tensor.
pub(super) fn contiguous_values<'s, T: WithDType>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [T]> {
    let (start, end) =
        layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op: "quantization" })?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Calls `function` with the elements of a tensor on the CPU in logical order.
pub(super) fn with_values<T: WithDType, R>(tensor: &Tensor, function: impl FnOnce(&[T]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(function(contiguous_values(storage, layout)?)),
        _ => Err(candle_core::Error::Msg("a kernel for the CPU got a tensor of another device".to_owned()).into()),
    }
}

pub(super) fn block_amax(x: &Tensor, blocks: Blocks, what: &'static str) -> Result<Vec<f64>> {
    dispatch_float!(x.dtype(), what, T => Ok(with_values(x, |values: &[T]| kernels::amax(values, blocks))??))
}

/// The codes in the shape of `x`.
pub(super) fn encode(x: &Tensor, conversion: &Conversion) -> Result<Tensor> {
    let codes = dispatch_float!(x.dtype(), "the tensor", T => Ok(with_values(x, |values: &[T]| {
        let mut codes = kernels::zeroed(values.len());
        kernels::encode(values, &mut codes, conversion).map(|()| codes)
    })??))?;
    Ok(Tensor::from_vec(codes, x.shape(), x.device())?)
}

/// Decodes codes into new storage.
pub(super) fn decode(codes: &Tensor, format: Fp8, blocks: Blocks, scales: &[f32], dtype: DType) -> Result<CpuStorage> {
    dispatch_float!(dtype, "the dequantized tensor", T => Ok(with_values(codes, |codes: &[u8]| {
        let mut values = T::zeroed(codes.len());
        kernels::decode_with(codes, &mut values, format, blocks, scales).map(|()| T::to_cpu_storage_owned(values))
    })??))
}

/// Fake-quantizes a contiguous tensor into new storage.
pub(super) fn fake_quantize(
    storage: &CpuStorage,
    layout: &Layout,
    dtype: DType,
    conversion: &Conversion,
) -> Result<CpuStorage> {
    dispatch_float!(dtype, "the tensor", T => {
        let from = contiguous_values::<T>(storage, layout)?;
        let mut to = T::zeroed(from.len());
        kernels::fake_quantize(from, &mut to, conversion)?;
        Ok(T::to_cpu_storage_owned(to))
    })
}

/// The first element that is not finite, with its index.
pub(super) fn first_not_finite(x: &Tensor, what: &'static str) -> Result<Option<(Vec<usize>, f64)>> {
    let find = |values: &mut dyn Iterator<Item = f64>| {
        values.enumerate().find(|(_, value)| !value.is_finite()).map(|(position, value)| (index(x, position), value))
    };
    dispatch_float!(x.dtype(), what, T => with_values(x, |values: &[T]| {
        find(&mut values.iter().map(|value| value.to_f64()))
    }))
}

/// The index of the element at `position` in logical order.
fn index(x: &Tensor, mut position: usize) -> Vec<usize> {
    let mut index: Vec<usize> = Vec::with_capacity(x.rank());
    for &dim in x.dims().iter().rev() {
        index.push(position % dim);
        position /= dim;
    }
    index.reverse();
    index
}
