//! How moments are stored, and as which tensors they are saved.

use std::collections::HashMap;

use altgrad_kernels::optim::{BLOCK, Moment};
use candle_core::{DType, Device, Shape, Tensor};
use half::bf16;

use crate::{OptimError, Result};

/// In which type an optimizer keeps its moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Moments {
    /// 4 bytes an element.
    #[default]
    F32,
    /// 2 bytes an element.
    Bf16,
    /// About 1 byte an element: E4M3 with one f32 scale, `max(amax, 1e-12) / 448`, for each 256 elements, as in
    /// torchao's `AdamWFp8`. As there, variables of fewer than 4096 elements, or not a multiple of 256, have f32.
    E4M3,
}

/// The smallest variable whose moments are codes.
const LEAST_CODES: usize = 4096;

impl Moments {
    /// Zeros for a variable of `len` elements.
    pub(super) fn zeros(self, len: usize) -> Moment {
        match self {
            Self::Bf16 => Moment::bf16(len),
            Self::E4M3 if len >= LEAST_CODES && len.is_multiple_of(BLOCK) => Moment::codes(len),
            Self::F32 | Self::E4M3 => Moment::f32(len),
        }
    }
}

/// Adds a moment to named tensors, under `key` and, for the scales of codes, `key_scale`.
pub(super) fn save(moment: &Moment, key: String, shape: &Shape, to: &mut HashMap<String, Tensor>) -> Result<()> {
    let tensor = match moment {
        Moment::F32(values) => Tensor::from_slice(values, shape, &Device::Cpu)?,
        Moment::Bf16(values) => Tensor::from_slice(values, shape, &Device::Cpu)?,
        Moment::Codes { codes, scales } => {
            to.insert(scale_key(&key), Tensor::from_slice(scales, scales.len(), &Device::Cpu)?);
            Tensor::from_slice(codes, shape, &Device::Cpu)?
        }
    };
    to.insert(key, tensor);
    Ok(())
}

/// Takes the moment of the same kind and length as `like` out of named tensors.
pub(super) fn take(like: &Moment, key: &str, shape: &Shape, from: &mut HashMap<&str, &Tensor>) -> Result<Moment> {
    Ok(match like {
        Moment::F32(_) => Moment::F32(elements::<f32>(key, DType::F32, shape, from)?),
        Moment::Bf16(_) => Moment::Bf16(elements::<bf16>(key, DType::BF16, shape, from)?),
        Moment::Codes { scales, .. } => {
            let of_scales = Shape::from(scales.len());
            Moment::Codes {
                scales: elements(&scale_key(key), DType::F32, &of_scales, from)?,
                codes: elements(key, DType::U8, shape, from)?,
            }
        }
    })
}

fn scale_key(key: &str) -> String {
    format!("{key}_scale")
}

/// The elements of a named tensor of this dtype and shape.
pub(super) fn elements<T: candle_core::WithDType>(
    key: &str,
    dtype: DType,
    shape: &Shape,
    from: &mut HashMap<&str, &Tensor>,
) -> Result<Vec<T>> {
    let Some(tensor) = from.remove(key) else {
        return Err(invalid(key, "is missing".to_owned()));
    };
    if tensor.dtype() != dtype || tensor.shape() != shape {
        let (found, expected) = (tensor.dims(), shape.dims());
        return Err(invalid(key, format!("is {:?} {found:?}, expected {dtype:?} {expected:?}", tensor.dtype())));
    }
    Ok(tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
}

pub(super) fn invalid(key: &str, why: String) -> crate::Error {
    OptimError::InvalidState { key: key.to_owned(), why }.into()
}
