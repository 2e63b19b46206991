//! Which elements share a scale.

use std::fmt;

use altgrad_kernels::Blocks;
use serde::{Deserialize, Serialize};

use crate::{QuantizerError, Result};

/// Which elements of a tensor share a scale.
///
/// A tensor of more than two dimensions is treated as the matrix of its rows, `(product of all dimensions but the
/// last, last dimension)`. In a product, rows lie along the dimension that the product sums over, because hardware
/// can only apply a scale outside that sum. With one scale per row, a weight `(outputs, inputs)` therefore has one
/// scale per output channel in the forward pass, and an activation `(…, inputs)` one per token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Granularity {
    /// One scale for the whole tensor.
    #[default]
    PerTensor,
    /// One scale per row: per output channel of a weight, per token of an activation.
    PerRow,
    /// One scale for each index of the first dimension: per output channel of a weight, whether it is `(outputs,
    /// inputs)` or `(outputs, inputs, height, width)`. For a matrix this is one scale per row.
    PerChannel,
    /// One scale per block of `rows` × `cols` elements; blocks at the edges may be smaller. The MX formats have
    /// blocks of 1 × 32, DeepSeek-V3 blocks of 128 × 128 and 1 × 128.
    PerBlock {
        /// Rows of a block, at least 1.
        rows: usize,
        /// Columns of a block, at least 1.
        cols: usize,
    },
}

impl Granularity {
    /// An example of each variant, for messages.
    pub(crate) const EXAMPLES: [Self; 4] =
        [Self::PerTensor, Self::PerRow, Self::PerChannel, Self::PerBlock { rows: 128, cols: 128 }];

    /// The blocks of a tensor of these dimensions.
    pub(crate) fn blocks(self, dims: &[usize]) -> Blocks {
        let cols = dims.last().copied().unwrap_or(1);
        let rows = dims.iter().rev().skip(1).product();
        match self {
            Self::PerTensor => Blocks::per_tensor(rows, cols),
            Self::PerRow => Blocks::per_row(rows, cols),
            Self::PerChannel => {
                let channels = dims.first().filter(|_| dims.len() > 1).copied().unwrap_or(1);
                Blocks::per_block((rows, cols), (rows / channels.max(1), cols))
            }
            Self::PerBlock { rows: block_rows, cols: block_cols } => {
                Blocks::per_block((rows, cols), (block_rows, block_cols))
            }
        }
    }

    /// The dimensions of the tensor of scales: none for one scale, otherwise the number of blocks down and across.
    pub(crate) fn scale_dims(self, dims: &[usize]) -> Vec<usize> {
        match self {
            Self::PerTensor => Vec::new(),
            Self::PerRow | Self::PerChannel | Self::PerBlock { .. } => {
                let (rows, cols) = self.blocks(dims).grid();
                vec![rows, cols]
            }
        }
    }

    /// The granularity of rows that are taken from a matrix one by one.
    pub(crate) fn of_single_rows(self) -> Self {
        match self {
            Self::PerTensor | Self::PerRow => self,
            Self::PerChannel => Self::PerRow,
            Self::PerBlock { cols, .. } => Self::PerBlock { rows: 1, cols },
        }
    }

    /// The same blocks, seen in the matrix with a row for each index of the tensor's first dimension (the form in
    /// which layers hold their weights); `None` if they are not blocks of that matrix.
    pub(crate) fn of_matrix(self, dims: &[usize]) -> Option<Self> {
        let last = dims.last().copied().unwrap_or(1);
        match self {
            Self::PerChannel => Some(Self::PerRow),
            _ if dims.len() <= 2 => Some(self),
            Self::PerTensor => Some(self),
            Self::PerRow => Some(Self::PerBlock { rows: 1, cols: last }),
            Self::PerBlock { rows: 1, cols } if cols >= last => Some(Self::PerBlock { rows: 1, cols: last }),
            Self::PerBlock { rows: 1, cols } if last.is_multiple_of(cols) => Some(self),
            Self::PerBlock { .. } => None,
        }
    }

    /// The other way round: the blocks of that matrix, seen in the tensor with these dimensions; `None` if they are
    /// not blocks of that tensor.
    pub(crate) fn of_tensor(self, dims: &[usize]) -> Option<Self> {
        let last = dims.last().copied().unwrap_or(1);
        match self {
            Self::PerChannel if dims.len() <= 2 => Some(Self::PerRow),
            _ if dims.len() <= 2 => Some(self),
            Self::PerTensor => Some(self),
            Self::PerRow | Self::PerChannel => Some(Self::PerChannel),
            Self::PerBlock { rows: 1, cols } if last.is_multiple_of(cols) => Some(self),
            Self::PerBlock { rows: 1, cols } if cols >= dims.iter().skip(1).product() => Some(Self::PerChannel),
            Self::PerBlock { .. } => None,
        }
    }

    /// The blocks that a matrix with so many rows has where those of its transpose are.
    pub(crate) fn transposed(self, rows: usize) -> Self {
        match self {
            Self::PerTensor => self,
            Self::PerRow | Self::PerChannel => Self::PerBlock { rows, cols: 1 },
            Self::PerBlock { rows, cols } => Self::PerBlock { rows: cols, cols: rows },
        }
    }

    /// Whether a matrix and its transpose have the same blocks, so that the same codes serve for both.
    pub(crate) fn is_symmetric(self) -> bool {
        match self {
            Self::PerTensor => true,
            Self::PerRow | Self::PerChannel => false,
            Self::PerBlock { rows, cols } => rows == cols,
        }
    }

    /// Fails for a block without elements.
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::PerBlock { rows, cols } if rows == 0 || cols == 0 => {
                Err(QuantizerError::EmptyBlock { rows, cols }.into())
            }
            _ => Ok(()),
        }
    }
}

/// `per tensor`, `per row`, `per channel` or `per 128×128 block`.
impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerTensor => f.write_str("per tensor"),
            Self::PerRow => f.write_str("per row"),
            Self::PerChannel => f.write_str("per channel"),
            Self::PerBlock { rows, cols } => write!(f, "per {rows}×{cols} block"),
        }
    }
}
