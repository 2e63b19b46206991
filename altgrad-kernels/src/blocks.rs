//! How the elements of a tensor share scales.

use std::ops::Range;

/// How a matrix of contiguous rows is divided into blocks with one scale each. The last blocks of a row and of a
/// column may be smaller than the others. Blocks are numbered row by row.
///
/// ```
/// use altgrad::kernels::Blocks;
///
/// assert_eq!(Blocks::per_tensor(6, 70).grid(), (1, 1));
/// assert_eq!(Blocks::per_row(6, 70).grid(), (6, 1));
/// assert_eq!(Blocks::per_block((6, 70), (1, 32)).grid(), (6, 3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    rows: usize,
    cols: usize,
    block_rows: usize,
    block_cols: usize,
    grid: (usize, usize),
}

impl Blocks {
    /// One block for all elements of a matrix of `rows` by `cols`, even if it has none.
    #[must_use]
    pub const fn per_tensor(rows: usize, cols: usize) -> Self {
        let (block_rows, block_cols) = (if rows == 0 { 1 } else { rows }, if cols == 0 { 1 } else { cols });
        Self { rows, cols, block_rows, block_cols, grid: (1, 1) }
    }

    /// One block for each row of a matrix of `rows` by `cols`.
    #[must_use]
    pub fn per_row(rows: usize, cols: usize) -> Self {
        Self::new(rows, cols, 1, cols)
    }

    /// Blocks with the rows and columns of the second pair, for a matrix with those of the first: the MX formats, for
    /// example, have blocks of 1 × 32 elements. A block is at most as large as the matrix, and has at least one
    /// element.
    #[must_use]
    pub fn per_block((rows, cols): (usize, usize), (block_rows, block_cols): (usize, usize)) -> Self {
        Self::new(rows, cols, block_rows, block_cols)
    }

    /// As [`per_block`](Self::per_block).
    pub(crate) fn new(rows: usize, cols: usize, block_rows: usize, block_cols: usize) -> Self {
        let (block_rows, block_cols) = (block_rows.clamp(1, rows.max(1)), block_cols.clamp(1, cols.max(1)));
        Self { rows, cols, block_rows, block_cols, grid: (rows.div_ceil(block_rows), cols.div_ceil(block_cols).max(1)) }
    }

    /// Rows and columns of the matrix.
    #[must_use]
    pub const fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Rows and columns of a block that is not at an edge.
    #[must_use]
    pub const fn block(&self) -> (usize, usize) {
        (self.block_rows, self.block_cols)
    }

    /// Number of blocks down and across. Rows without elements have a block too.
    #[must_use]
    pub const fn grid(&self) -> (usize, usize) {
        self.grid
    }

    /// Number of blocks, and so of scales.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.grid.0.saturating_mul(self.grid.1)
    }

    /// Number of elements of the matrix.
    #[must_use]
    pub const fn elements(&self) -> usize {
        self.rows.saturating_mul(self.cols)
    }

    /// The blocks of some consecutive rows, as a separate matrix, and which of the scales belong to them; `None` if
    /// that would cut a block.
    #[must_use]
    pub fn of_rows(&self, rows: Range<usize>) -> Option<(Self, Range<usize>)> {
        let (down, across) = self.grid;
        if down == 1 {
            // A single row of blocks also covers any part of the rows.
            return Some((Self { rows: rows.len(), block_rows: rows.len().max(1), ..*self }, 0..across));
        }
        let ends_block = rows.end == self.rows || rows.end.is_multiple_of(self.block_rows);
        let first = rows.start / self.block_rows;
        let scales = first * across..rows.end.div_ceil(self.block_rows) * across;
        (rows.start.is_multiple_of(self.block_rows) && ends_block)
            .then(|| (Self::new(rows.len(), self.cols, self.block_rows, self.block_cols), scales))
    }

    /// The largest number of elements of one block that lie next to one another.
    pub(super) fn run_len(&self) -> usize {
        if self.has_whole_rows() { self.block_rows.saturating_mul(self.block_cols) } else { self.block_cols }
    }

    /// Contiguous runs of elements in order, each with the number of its block. Together they cover every element
    /// once.
    #[doc(hidden)]
    #[must_use]
    pub fn runs(&self) -> Runs {
        self.runs_in(0..self.elements())
    }

    /// As [`runs`](Self::runs), for a range of the elements.
    #[inline]
    #[doc(hidden)]
    #[must_use]
    pub fn runs_in(&self, range: Range<usize>) -> Runs {
        // Whole rows lie next to one another, so blocks of them are runs of one long row.
        let (cols, block_rows, block_cols) = if self.has_whole_rows() {
            (self.elements(), 1, self.run_len())
        } else {
            (self.cols, self.block_rows, self.block_cols)
        };
        let (row, col) = (range.start / cols.max(1), range.start % cols.max(1));
        let across = cols.div_ceil(block_cols);
        let first_block = row / block_rows * across;
        let row_end = (row + 1) * cols;
        Runs {
            at: range.start,
            end: range.end,
            edge: (row_end - cols + (col / block_cols + 1) * block_cols).min(row_end),
            row_end,
            block: first_block + col / block_cols,
            first_block,
            rows_left: block_rows - row % block_rows,
            cols,
            across,
            block_rows,
            block_cols,
        }
    }

    /// Consecutive blocks that include every block with an element in the range.
    pub(super) fn reached_by(&self, range: Range<usize>) -> Range<usize> {
        let in_row_of_blocks = self.cols.saturating_mul(self.block_rows).max(1);
        let across = self.grid.1;
        range.start / in_row_of_blocks * across..range.end.div_ceil(in_row_of_blocks) * across
    }

    /// Pieces of at most `longest` elements that together are a range of the elements: consecutive ones, or, where
    /// blocks are narrow and high, those of tiles, so that what is known of a tile's blocks serves for all its rows.
    pub(super) fn pieces_in(&self, range: Range<usize>, longest: usize) -> Pieces {
        let has_tiles = self.block_rows > 1 && self.block_cols < NARROW && !self.has_whole_rows();
        let row = range.start / self.cols.max(1);
        let mut pieces =
            Pieces { blocks: *self, at: range.start, end: range.end, longest, has_tiles, row, rows: 0..0, cols: 0..0 };
        pieces.enter_band(row / self.block_rows);
        pieces
    }

    fn has_whole_rows(&self) -> bool {
        self.block_cols >= self.cols
    }
}

/// Blocks with as many columns or more are converted element after element: so many numbers are written at a time.
const NARROW: usize = 32;

/// See [`Blocks::pieces_in`].
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    blocks: Blocks,
    /// The first element of all, or the next one if there are no tiles.
    at: usize,
    end: usize,
    longest: usize,
    has_tiles: bool,
    /// The next row of the current tile, and the tile: rows of one row of blocks, and some columns.
    row: usize,
    rows: Range<usize>,
    cols: Range<usize>,
}

/// Consecutive elements.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) elements: Range<usize>,
    /// The tile whose part they are, if there are tiles.
    pub(super) tile: Option<Tile>,
}

/// A tile of columns whose rows have the same blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// The block of the first column of the matrix.
    first_block: usize,
    cols: (usize, usize),
    block_cols: usize,
    /// Columns of the matrix.
    all_cols: usize,
}

impl Tile {
    /// The block of each column.
    #[inline]
    pub(super) fn blocks(self) -> impl Iterator<Item = usize> {
        (self.cols.0..self.cols.1).map(move |col| self.first_block + col / self.block_cols)
    }

    /// The column of the tile that an element is in.
    pub(super) fn column_of(self, element: usize) -> usize {
        element % self.all_cols - self.cols.0
    }
}

impl Pieces {
    /// Goes to the first tile of a row of blocks.
    fn enter_band(&mut self, band: usize) {
        let Blocks { cols, block_rows, .. } = self.blocks;
        self.rows = (band * block_rows).max(self.at / cols.max(1))..(band + 1) * block_rows;
        (self.row, self.cols) = (self.rows.start, 0..self.longest.min(cols));
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    #[inline]
    fn next(&mut self) -> Option<Piece> {
        if !self.has_tiles {
            let elements = self.at..(self.at + self.longest).min(self.end);
            self.at = elements.end;
            return (!elements.is_empty()).then_some(Piece { elements, tile: None });
        }
        let Blocks { cols, block_rows, block_cols, grid, .. } = self.blocks;
        loop {
            let start = self.row * cols;
            if self.row == self.rows.end || start >= self.end {
                if self.cols.end < cols {
                    (self.row, self.cols) = (self.rows.start, self.cols.end..(self.cols.end + self.longest).min(cols));
                } else if start >= self.end {
                    return None;
                } else {
                    self.enter_band(self.row / block_rows);
                }
                continue;
            }
            self.row += 1;
            let elements = (start + self.cols.start).max(self.at)..(start + self.cols.end).min(self.end);
            if !elements.is_empty() {
                let first_block = self.rows.start / block_rows * grid.1;
                let tile = Tile { first_block, cols: (self.cols.start, self.cols.end), block_cols, all_cols: cols };
                return Some(Piece { elements, tile: Some(tile) });
            }
        }
    }
}

/// See [`Blocks::runs`].
#[derive(Clone, Debug)]
pub struct Runs {
    /// The next element.
    at: usize,
    end: usize,
    /// The end of its block in its row, and of its row.
    edge: usize,
    row_end: usize,
    /// Its block, and the first block of its row.
    block: usize,
    first_block: usize,
    /// Rows down to the next row of blocks, this one included.
    rows_left: usize,
    cols: usize,
    across: usize,
    block_rows: usize,
    block_cols: usize,
}

impl Iterator for Runs {
    type Item = (Range<usize>, usize);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let run = (self.at..self.edge.min(self.end), self.block);
        self.at = self.edge;
        if self.edge == self.row_end {
            self.rows_left -= 1;
            if self.rows_left == 0 {
                (self.rows_left, self.first_block) = (self.block_rows, self.first_block + self.across);
            }
            (self.block, self.row_end) = (self.first_block, self.row_end + self.cols);
        } else {
            self.block += 1;
        }
        self.edge = (self.at + self.block_cols).min(self.row_end);
        Some(run)
    }
}
