//! The codes of a weight that stays as it is, in the form that its layer's products read.

use std::sync::Arc;

use altgrad_kernels::PackedCodes;
use candle_core::{DType, Device, Tensor};

use crate::quantizer::{Fp8Tensor, Granularity, has_kernels};
use crate::{Fp8, Result};

/// The codes of a weight, once.
#[derive(Clone, Debug)]
pub(super) enum FixedWeight {
    /// In the order in which the CPU's kernels read them.
    Packed { codes: Arc<PackedCodes>, granularity: Granularity, dtype: DType },
    /// For candle's products, from dequantized values.
    Tensor(Fp8Tensor),
}

impl FixedWeight {
    /// The codes of a matrix.
    pub(super) fn new(weight: Fp8Tensor) -> Result<Self> {
        if !has_kernels(weight.dtype(), weight.codes().device()) {
            return Ok(Self::Tensor(weight));
        }
        let codes = Arc::new(weight.pack()?);
        Ok(Self::Packed { codes, granularity: weight.granularity(), dtype: weight.dtype() })
    }

    /// The codes as a tensor.
    pub(super) fn to_tensor(&self) -> Result<Fp8Tensor> {
        match self {
            Self::Packed { codes, granularity, dtype } => Fp8Tensor::unpack(codes, *granularity, *dtype),
            Self::Tensor(weight) => Ok(weight.clone()),
        }
    }

    pub(super) fn format(&self) -> Fp8 {
        match self {
            Self::Packed { codes, .. } => codes.format(),
            Self::Tensor(weight) => weight.format(),
        }
    }

    pub(super) fn granularity(&self) -> Granularity {
        match self {
            Self::Packed { granularity, .. } => *granularity,
            Self::Tensor(weight) => weight.granularity(),
        }
    }

    pub(super) fn dtype(&self) -> DType {
        match self {
            Self::Packed { dtype, .. } => *dtype,
            Self::Tensor(weight) => weight.dtype(),
        }
    }

    pub(super) fn device(&self) -> &Device {
        match self {
            Self::Packed { .. } => &Device::Cpu,
            Self::Tensor(weight) => weight.codes().device(),
        }
    }

    /// The scales, block after block.
    pub(super) fn scales(&self) -> Result<Vec<f32>> {
        match self {
            Self::Packed { codes, .. } => Ok(codes.scales().to_vec()),
            Self::Tensor(weight) => weight.scale_values(),
        }
    }

    /// Bytes of the codes and scales.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Packed { codes, .. } => codes.bytes(),
            Self::Tensor(weight) => weight.bytes(),
        }
    }

    /// Bytes that these codes would take: of an odd row in the order of the kernels one more.
    pub(super) fn bytes_of(weight: &Fp8Tensor) -> usize {
        let of_odd_rows = match *weight.shape().dims() {
            [rows, cols] if has_kernels(weight.dtype(), weight.codes().device()) => rows * (cols % 2),
            _ => 0,
        };
        weight.bytes() + of_odd_rows
    }

    /// The values.
    pub(super) fn dequantize(&self) -> Result<Tensor> {
        self.to_tensor()?.dequantize()
    }
}
