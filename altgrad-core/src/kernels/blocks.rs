//! How the elements of a tensor share scales.

use std::ops::Range;

/// A tensor as a matrix of contiguous rows that is divided into blocks of one scale each; the last blocks of a row and of
/// a column may be smaller than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    rows: usize,
    cols: usize,
    block_rows: usize,
    block_cols: usize,
}

impl Blocks {
    /// One block for all elements.
    pub(crate) fn whole(elements: usize) -> Self {
        Self { rows: 1, cols: elements, block_rows: 1, block_cols: elements.max(1) }
    }

    /// Blocks of `block_rows` by `block_cols`, which count as no larger than the matrix and no smaller than an element.
    pub(crate) fn new(rows: usize, cols: usize, block_rows: usize, block_cols: usize) -> Self {
        Self { rows, cols, block_rows: block_rows.clamp(1, rows.max(1)), block_cols: block_cols.clamp(1, cols.max(1)) }
    }

    /// Rows and columns of the matrix.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Rows and columns of a block that is not at an edge.
    pub(crate) fn block(&self) -> (usize, usize) {
        (self.block_rows, self.block_cols)
    }

    /// Number of blocks above one another and side by side. Rows without elements have a block all the same.
    pub(crate) fn grid(&self) -> (usize, usize) {
        (self.rows.div_ceil(self.block_rows), self.cols.div_ceil(self.block_cols).max(1))
    }

    /// Number of blocks, which are numbered row by row.
    pub(crate) fn count(&self) -> usize {
        let (rows, cols) = self.grid();
        rows * cols
    }

    /// Contiguous runs of elements in order, each with the number of its block: together all elements, none twice.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let Self { rows, cols, block_rows, block_cols } = *self;
        let across = self.grid().1;
        (0..rows).flat_map(move |row| {
            (0..across).map(move |block| {
                let start = (block * block_cols).min(cols);
                let end = (start + block_cols).min(cols);
                (row * cols + start..row * cols + end, row / block_rows * across + block)
            })
        })
    }
}
