//! The operands of a product: matrices of codes under scales, and of floats.

use std::ops::Range;

use crate::format::Fp8;
use crate::level::Level;
use crate::{Blocks, elementwise, memory};

/// A matrix of codes under one scale for each block, read as it is stored or as its transpose.
#[derive(Clone, Copy, Debug)]
pub struct CodeMatrix<'a> {
    codes: &'a [u8],
    format: Fp8,
    blocks: Blocks,
    scales: &'a [f32],
    transposed: bool,
}

impl<'a> CodeMatrix<'a> {
    /// A matrix of the shape of `blocks` with a scale for each of them.
    #[must_use]
    pub fn new(codes: &'a [u8], format: Fp8, blocks: Blocks, scales: &'a [f32]) -> Self {
        let (rows, cols) = blocks.shape();
        debug_assert_eq!(codes.len(), rows * cols, "one code per element");
        debug_assert_eq!(scales.len(), blocks.count(), "one scale per block");
        Self { codes, format, blocks, scales, transposed: false }
    }

    /// A matrix with everything but codes.
    pub(super) fn outline(format: Fp8, blocks: Blocks, scales: &'a [f32]) -> Self {
        Self { codes: &[], format, blocks, scales, transposed: false }
    }

    /// Some consecutive rows of a matrix that is read as it is stored; `None` if that would cut a block, or if this
    /// is a transpose.
    #[must_use]
    pub fn rows(self, rows: Range<usize>) -> Option<Self> {
        let (blocks, scales) = self.blocks.of_rows(rows.clone()).filter(|_| !self.transposed)?;
        let cols = self.blocks.shape().1;
        let codes = self.codes.get(rows.start * cols..rows.end * cols)?;
        Some(Self { codes, blocks, scales: self.scales.get(scales)?, ..self })
    }

    /// The transpose, without moving anything.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns, of the transpose if it is one.
    pub(super) fn shape(&self) -> (usize, usize) {
        self.seen(self.blocks.shape())
    }

    /// Rows and columns of a block.
    pub(super) fn block(&self) -> (usize, usize) {
        self.seen(self.blocks.block())
    }

    pub(super) fn format(&self) -> Fp8 {
        self.format
    }

    pub(super) fn scales(&self) -> &'a [f32] {
        self.scales
    }

    /// The smallest and the largest scale, except for very small ones of blocks of zeros: the scale of such a block
    /// may be the smallest there is.
    pub(super) fn extreme_scales(&self) -> (f32, f32) {
        /// With two scales of at least this size, products of E4M3 codes are normal numbers.
        const SMALL: f32 = 1.0 / (1_u64 << 40) as f32;
        let scales = self.scales.iter().enumerate();
        let used = scales.filter(|(block, scale)| **scale >= SMALL || !self.is_zero(*block));
        used.fold((f32::MAX, f32::MIN_POSITIVE), |(smallest, largest), (_, scale)| {
            (smallest.min(*scale), largest.max(*scale))
        })
    }

    /// Whether all codes of a block are known to be zeros.
    fn is_zero(&self, block: usize) -> bool {
        let (_, cols) = self.blocks.shape();
        let (block_rows, block_cols) = self.blocks.block();
        let (down, across) = (block / self.blocks.grid().1, block % self.blocks.grid().1);
        let mut rows = self.codes.chunks(cols.max(1)).skip(down * block_rows).take(block_rows);
        let is_zero = |code: &u8| code << 1 == 0;
        !self.codes.is_empty() && rows.all(|row| row.iter().skip(across * block_cols).take(block_cols).all(is_zero))
    }

    /// Whether the scales are powers of two, and those of two indices of the sum the same where the first is even.
    pub(super) fn scales_keep_pairs(&self) -> bool {
        let block = self.block().1;
        // A subnormal scale is one of zeros, or out of range.
        let is_power_of_two =
            |scale: &f32| scale.to_bits().trailing_zeros() >= f32::MANTISSA_DIGITS - 1 || scale.is_subnormal();
        (block.is_multiple_of(2) || block >= self.shape().1) && self.scales.iter().all(is_power_of_two)
    }

    /// The values in the order of the codes.
    pub(super) fn decoded(&self, level: Level) -> Vec<f32> {
        let mut values = memory::zeroed(self.codes.len());
        elementwise::decode(level, self.codes, &mut values, self.format, self.blocks, self.scales);
        values
    }

    /// The matrix of values in the order of the codes.
    pub(super) fn with_values<'v>(&self, values: &'v [f32]) -> FloatMatrix<'v> {
        FloatMatrix { values, shape: self.blocks.shape(), transposed: self.transposed }
    }

    pub(super) fn stored(&self) -> Strided<'a, u8> {
        let stride = self.blocks.shape().1;
        Strided { elements: self.codes, stride, transposed: self.transposed, length: self.shape().1 }
    }

    /// The scales of some rows in one column.
    pub(super) fn scales_of(&self, rows: Range<usize>, col: usize, to: &mut [f32]) {
        let (block_rows, block_cols) = self.block();
        let (down, across) = match (self.transposed, self.blocks.grid().1) {
            (false, across) => (across, 1),
            (true, across) => (1, across),
        };
        if block_rows == 1 {
            let first = &self.scales[rows.start * down + col / block_cols * across..];
            to.iter_mut().zip(first.iter().step_by(down)).for_each(|(to, scale)| *to = *scale);
            return;
        }
        let mut rest = to;
        let mut row = rows.start;
        while row < rows.end {
            let end = ((row / block_rows + 1) * block_rows).min(rows.end);
            let (of_block, after) = rest.split_at_mut(end - row);
            of_block.fill(self.scales[row / block_rows * down + col / block_cols * across]);
            (rest, row) = (after, end);
        }
    }

    fn seen(&self, (a, b): (usize, usize)) -> (usize, usize) {
        if self.transposed { (b, a) } else { (a, b) }
    }
}

/// A matrix of floats, read as it is stored or as its transpose.
#[derive(Clone, Copy, Debug)]
pub struct FloatMatrix<'a> {
    values: &'a [f32],
    shape: (usize, usize),
    transposed: bool,
}

impl<'a> FloatMatrix<'a> {
    /// A matrix of `rows` by `cols` values.
    #[must_use]
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        debug_assert_eq!(values.len(), rows * cols, "one value per element");
        Self { values, shape: (rows, cols), transposed: false }
    }

    /// The transpose, without moving anything.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns, of the transpose if it is one.
    pub(super) fn shape(&self) -> (usize, usize) {
        let (rows, cols) = self.shape;
        if self.transposed { (cols, rows) } else { (rows, cols) }
    }

    pub(super) fn stored(&self) -> Strided<'a, f32> {
        let stride = self.shape.1;
        Strided { elements: self.values, stride, transposed: self.transposed, length: self.shape().1 }
    }
}

/// Elements as they lie in memory.
pub(super) struct Strided<'a, E> {
    pub(super) elements: &'a [E],
    /// Elements from one stored row to the next.
    pub(super) stride: usize,
    /// Whether a row of the operand is a column of what is stored.
    pub(super) transposed: bool,
    /// Number of indices of the sum.
    pub(super) length: usize,
}
