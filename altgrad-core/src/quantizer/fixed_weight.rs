//! The codes of a matrix that does not change, in the order in which its layer reads them.

use std::sync::Arc;

use altgrad_kernels::PackedCodes;
use candle_core::{DType, Device, Tensor};

use super::{Fp8Tensor, Granularity, has_kernels};
use crate::{Fp8, Result};

/// The order in which a layer reads codes that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In the order of products, for each group of rows separately.
    Products {
        /// Number of groups, which divides the number of rows.
        groups: usize,
    },
    /// Row by row.
    Rows,
}

impl Layout {
    /// Number of groups of rows, each of which is the operand of its own product.
    pub(crate) fn groups(self) -> usize {
        match self {
            Self::Products { groups } => groups,
            Self::Rows => 1,
        }
    }
}

/// The codes of a matrix, in one of two forms.
#[derive(Clone, Debug)]
pub(crate) enum FixedWeight {
    /// In the order in which the CPU's kernels read them: a matrix for each group of rows.
    Packed { groups: Arc<[PackedCodes]>, format: Fp8, granularity: Granularity, dtype: DType },
    /// For candle's operations on dequantized values.
    Tensor(Fp8Tensor),
}

impl FixedWeight {
    /// The codes of a matrix.
    pub(crate) fn new(weight: Fp8Tensor, layout: Layout) -> Result<Self> {
        if let Layout::Products { groups } = layout
            && has_kernels(weight.dtype(), weight.codes().device())
            && let Some(codes) = weight.pack(groups)?
        {
            let (format, granularity, dtype) = (weight.format(), weight.granularity(), weight.dtype());
            return Ok(Self::Packed { groups: codes.into(), format, granularity, dtype });
        }
        Ok(Self::Tensor(weight))
    }

    /// The codes as a tensor.
    pub(crate) fn to_tensor(&self) -> Result<Fp8Tensor> {
        match self {
            Self::Packed { groups, granularity, dtype, .. } => Fp8Tensor::unpack(groups, *granularity, *dtype),
            Self::Tensor(weight) => Ok(weight.clone()),
        }
    }

    /// The values of the rows with these numbers, as a matrix.
    ///
    /// # Errors
    ///
    /// A row number that is out of range.
    pub(crate) fn rows(&self, rows: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed { groups, granularity, dtype, .. } => match &**groups {
                [codes] => {
                    let rows = row_numbers(rows, codes.blocks().shape().0)?;
                    Fp8Tensor::unpack_rows(codes, &rows, *granularity, *dtype)?.dequantize()
                }
                groups => Fp8Tensor::unpack(groups, *granularity, *dtype)?.rows(rows)?.dequantize(),
            },
            Self::Tensor(weight) => weight.rows(rows)?.dequantize(),
        }
    }

    pub(crate) fn format(&self) -> Fp8 {
        match self {
            Self::Packed { format, .. } => *format,
            Self::Tensor(weight) => weight.format(),
        }
    }

    pub(crate) fn granularity(&self) -> Granularity {
        match self {
            Self::Packed { granularity, .. } => *granularity,
            Self::Tensor(weight) => weight.granularity(),
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Packed { dtype, .. } => *dtype,
            Self::Tensor(weight) => weight.dtype(),
        }
    }

    pub(crate) fn device(&self) -> &Device {
        match self {
            Self::Packed { .. } => &Device::Cpu,
            Self::Tensor(weight) => weight.codes().device(),
        }
    }

    /// Bytes of the codes and scales.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Packed { groups, .. } => groups.iter().map(PackedCodes::bytes).sum(),
            Self::Tensor(weight) => weight.bytes(),
        }
    }

    /// Bytes that the codes of this matrix would take. In the order of the kernels, each row of odd length takes one
    /// byte more, and each group has its own copy of the scales that groups share.
    pub(crate) fn bytes_of(weight: &Fp8Tensor, layout: Layout) -> usize {
        let [rows, cols] = *weight.shape().dims() else { return weight.bytes() };
        match layout {
            Layout::Products { groups } if has_kernels(weight.dtype(), weight.codes().device()) => {
                let blocks = weight.granularity().blocks(&[rows, cols]);
                if blocks.of_rows(0..rows / groups.max(1)).is_none() {
                    return weight.bytes();
                }
                let (down, across) = blocks.grid();
                let copies = if down == 1 { groups.saturating_sub(1) * across } else { 0 };
                weight.bytes() + rows * (cols % 2) + copies * size_of::<f32>()
            }
            Layout::Products { .. } | Layout::Rows => weight.bytes(),
        }
    }

    /// The values.
    pub(crate) fn dequantize(&self) -> Result<Tensor> {
        self.to_tensor()?.dequantize()
    }
}

/// Row numbers from a vector of integers, which must be below `count`. The largest number of the integers' type gives
/// `None`: candle's lookups treat it as a row of zeros.
fn row_numbers(rows: &Tensor, count: usize) -> Result<Vec<Option<usize>>> {
    let padding = match rows.dtype() {
        DType::U8 => i64::from(u8::MAX),
        DType::U32 => i64::from(u32::MAX),
        _ => i64::MAX,
    };
    let rows = rows.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let number = |row: i64| match usize::try_from(row) {
        _ if row == padding => Ok(None),
        Ok(row) if row < count => Ok(Some(row)),
        _ => {
            Err(candle_core::Error::Msg(format!("row {row} is out of range for an embedding with {count} rows")).into())
        }
    };
    rows.into_iter().map(number).collect()
}
