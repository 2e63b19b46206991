//! Reads a tensor of a checkpoint a piece at a time, quantized or not.

use std::ops::Range;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::TensorView;

use super::reader::Checkpoint;
use super::shards::Shards;
use super::stored::{Stored, greatest_common_divisor};
use crate::Result;
use crate::quantizer::Granularity;

/// The approximate number of bytes that are read at once.
const PIECE: usize = 4 << 20;

/// A tensor, and what is known about it before its values are read.
pub(super) struct Source<'c> {
    pub(super) name: &'c str,
    /// Its dimensions.
    pub(super) shape: &'c [usize],
    /// The dtype of its values in the files, or of its codes.
    pub(super) dtype: safetensors::Dtype,
    /// Bytes of its values in the files, or of its codes and scales.
    pub(super) bytes: usize,
    shards: &'c Shards,
    quantized: Option<&'c Stored>,
}

/// A tensor that is being read, with its scales in memory.
pub(super) struct Reading<'s> {
    source: &'s Source<'s>,
    scales: Vec<f32>,
}

/// Some rows of a tensor, viewed as one matrix of all its rows.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) rows: Range<usize>,
    /// Bytes in the files.
    pub(super) bytes: usize,
}

impl<'c> Source<'c> {
    /// The tensor of this name; checks that its scales are valid.
    pub(super) fn new(checkpoint: &'c Checkpoint, name: &'c str) -> Result<Self> {
        let shards = checkpoint.shards();
        let bytes_of = |name: &str| shards.info(name).map_or(0, |info| info.data_offsets.1 - info.data_offsets.0);
        let quantized = checkpoint.stored(name)?;
        let key = quantized.map_or(name, |stored| &stored.codes);
        let Some(info) = shards.info(key) else { return Err(checkpoint.not_there(name)) };
        // Checked now, so that nothing is written if a checkpoint has an invalid scale; kept only while the tensor is
        // processed.
        quantized.map(|stored| stored.scale_values(shards)).transpose()?;
        let bytes = quantized.map_or_else(|| bytes_of(name), |stored| stored.parts().map(bytes_of).sum());
        Ok(Self { name, shape: &info.shape, dtype: info.dtype, bytes, shards, quantized })
    }

    /// Whether it is stored as codes.
    pub(super) fn is_quantized(&self) -> bool {
        self.quantized.is_some()
    }

    /// Whether it has values that can be quantized.
    pub(super) fn is_float(&self) -> bool {
        use safetensors::Dtype::{BF16, F16, F32, F64};
        self.is_quantized() || matches!(self.dtype, F32 | F16 | BF16 | F64)
    }

    /// Reads the scales and prepares to read the values.
    pub(super) fn read(&self) -> Result<Reading<'_>> {
        let scales = self.quantized.map(|stored| stored.scale_values(self.shards)).transpose()?.unwrap_or_default();
        Ok(Reading { source: self, scales })
    }

    /// Calls `copy` with the bytes of a tensor that is not quantized, some at a time.
    pub(super) fn copy(&self, mut copy: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        for start in (0..self.bytes).step_by(PIECE) {
            copy(&self.shards.read_part(self.name, start, PIECE.min(self.bytes - start))?)?;
        }
        Ok(())
    }

    fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn all_rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }
}

impl Reading<'_> {
    /// Cuts the tensor into pieces that are no longer than necessary. Cuts are only between blocks of `block_rows` rows
    /// (which the values may be quantized in later) and between the blocks of its codes.
    pub(super) fn pieces(&self, block_rows: usize) -> Vec<Piece> {
        let rows = self.source.all_rows();
        let row_bytes = self.source.cols() * self.source.dtype.bitsize() / 8;
        let own = match self.source.quantized.map(Stored::flat_granularity) {
            Some(Granularity::PerBlock { rows, .. }) => rows,
            _ => 1,
        };
        let (block_rows, own) = (block_rows.max(1), own.max(1));
        let both = (block_rows / greatest_common_divisor(block_rows, own)).saturating_mul(own);
        // One piece, if a block has at least as many rows as the tensor, or if rows are empty.
        let step = if both >= rows || row_bytes == 0 {
            rows.max(1)
        } else {
            (PIECE / row_bytes).max(1).next_multiple_of(both)
        };
        let piece = |first: usize| {
            let rows = first..first.saturating_add(step).min(rows);
            Piece { bytes: rows.len() * row_bytes, rows }
        };
        (0..rows).step_by(step).map(piece).collect()
    }

    /// The values of a piece: in their dtype in the files, or in `dtype` if they are codes.
    pub(super) fn load(&self, piece: &Piece, dtype: DType) -> Result<Tensor> {
        let source = self.source;
        if let Some(stored) = source.quantized {
            return stored.load_rows(source.shards, &self.scales, piece.rows.clone(), dtype);
        }
        let row_bytes = source.cols() * source.dtype.bitsize() / 8;
        let bytes = source.shards.read_part(source.name, piece.rows.start * row_bytes, piece.bytes)?;
        let view = TensorView::new(source.dtype, vec![piece.rows.len(), source.cols()], &bytes)
            .map_err(|error| source.shards.invalid(source.name, error.to_string()))?;
        Ok(view.load(&Device::Cpu)?)
    }
}
