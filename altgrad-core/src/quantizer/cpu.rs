//! From candle tensors of any layout to the slices that the kernels take.

use candle_core::{CpuStorage, DType, Layout, Storage, Tensor, WithDType};

use crate::kernels;
use crate::{Error, Result};

/// Runs `$body` with `$type` standing for the element type of `$dtype`, or returns [`Error::UnsupportedDType`].
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
            dtype => Err($crate::Error::UnsupportedDType { what: $what, dtype }),
        }
    };
}
pub(crate) use dispatch_float;

/// Whether tensors of this dtype can be quantized.
pub(crate) fn is_supported(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

/// The elements of a contiguous tensor.
pub(crate) fn contiguous_values<'s, T: WithDType>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [T]> {
    let (start, end) =
        layout.contiguous_offsets().ok_or(candle_core::Error::RequiresContiguous { op: "quantization" })?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Calls `function` with the elements of a tensor on the CPU in logical order.
pub(crate) fn with_values<T: WithDType, R>(
    tensor: &Tensor,
    operation: &'static str,
    function: impl FnOnce(&[T]) -> R,
) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(function(contiguous_values(storage, layout)?)),
        _ => Err(Error::UnsupportedDevice { operation, device: tensor.device().location() }),
    }
}

/// The largest magnitude of a tensor, of which `what` says the role; NaN if an element is NaN.
pub(crate) fn amax(x: &Tensor, what: &'static str) -> Result<f64> {
    dispatch_float!(x.dtype(), what, T => with_values(x, "quantization", kernels::amax::<T>))
}

/// The largest magnitude of a tensor in which every scale can be kept.
///
/// # Errors
///
/// [`Error::NotFinite`] naming the first element that is not finite, or [`Error::AmaxOutOfRange`].
pub(crate) fn check_finite(x: &Tensor, what: &'static str) -> Result<f32> {
    let amax = amax(x, what)?;
    if (amax as f32).is_finite() {
        return Ok(amax as f32);
    }
    Err(match first_not_finite(x, what)? {
        Some((index, value)) => Error::NotFinite { what, value, index },
        None => Error::AmaxOutOfRange { what, amax },
    })
}

/// The first element that is not finite, with its index.
fn first_not_finite(x: &Tensor, what: &'static str) -> Result<Option<(Vec<usize>, f64)>> {
    let find = |values: &mut dyn Iterator<Item = f64>| {
        values.enumerate().find(|(_, value)| !value.is_finite()).map(|(position, value)| (index(x, position), value))
    };
    dispatch_float!(x.dtype(), what, T => with_values(x, "quantization", |values: &[T]| {
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
