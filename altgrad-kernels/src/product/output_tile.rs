//! A matrix that several threads write at the same time, each to columns and rows of its own.

use std::marker::PhantomData;
use std::ops::Range;

/// Some columns of some rows of a matrix, which nothing else reads or writes for as long as this lives.
#[derive(Debug)]
pub(super) struct OutputTile<'a> {
    /// The first element of the first row.
    start: *mut f32,
    /// Elements from one row of the matrix to the next.
    stride: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: an output tile is a mutable borrow of its elements, which it shares with nothing, and `f32` is `Send`.
#[allow(unsafe_code, reason = "see the proof")]
unsafe impl Send for OutputTile<'_> {}

impl<'a> OutputTile<'a> {
    /// Divides a matrix of rows of `cols` elements into tiles of at most `width` columns. Each has the rows from one
    /// number in `cuts` to the next; rows before the first and after the last are left out, as are cuts that are not
    /// in order.
    #[allow(unsafe_code, reason = "pointers to elements of the matrix")]
    pub(super) fn divide(matrix: &'a mut [f32], cols: usize, cuts: &[usize], width: usize) -> Vec<Self> {
        let rows = matrix.len().checked_div(cols).unwrap_or_default();
        let start = matrix.as_mut_ptr();
        let mut tiles = Vec::new();
        let mut free = 0;
        for ends in cuts.windows(2) {
            let tile_rows = ends[0].max(free)..ends[1].min(rows);
            if tile_rows.is_empty() {
                continue;
            }
            free = tile_rows.end;
            for first_col in (0..cols).step_by(width.max(1)) {
                tiles.push(Self {
                    // SAFETY: `tile_rows.start < rows` and `first_col < cols`, so this is an element of the matrix,
                    // which has at least `rows * cols`.
                    start: unsafe { start.add(tile_rows.start * cols + first_col) },
                    stride: cols,
                    rows: tile_rows.clone(),
                    cols: first_col..(first_col + width).min(cols),
                    matrix: PhantomData,
                });
            }
        }
        tiles
    }

    /// The rows of the matrix that the output tile is of.
    pub(super) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The columns of the matrix that the output tile is of.
    pub(super) fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }

    /// The part of a row of the matrix that belongs to the output tile; empty if none does.
    #[allow(unsafe_code, reason = "a slice of what the output_tile owns")]
    pub(super) fn row(&mut self, row: usize) -> &mut [f32] {
        if !self.rows.contains(&row) {
            return &mut [];
        }
        // SAFETY: `divide` made the ranges of rows and columns of tiles so that no two share an element and all lie in
        // the matrix, which is borrowed mutably for `'a`. The elements of one row of an output tile lie next to one
        // another. The result borrows the output tile mutably, so there is no other slice of it.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add((row - self.rows.start) * self.stride), self.cols.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OutputTile;

    #[test]
    fn stripes_are_all_of_the_matrix_and_none_of_it_twice() {
        for (rows, cols, cuts, width) in [
            (0, 3, &[0, 1][..], 1),
            (3, 0, &[0, 3], 1),
            (5, 7, &[0, 2, 4, 5], 3),
            (4, 6, &[0, 4], 6),
            (1, 9, &[0, 1], 64),
            (4, 2, &[0, 3, 1, 9, 2], 1),
        ] {
            let mut matrix = vec![0.0; rows * cols];
            for output_tile in &mut OutputTile::divide(&mut matrix, cols, cuts, width) {
                let first_col = output_tile.cols().start;
                for row in output_tile.rows() {
                    for (col, element) in output_tile.row(row).iter_mut().enumerate() {
                        *element += (row * cols + first_col + col + 1) as f32;
                    }
                }
                assert!(output_tile.row(rows).is_empty());
            }
            let expected: Vec<f32> = (1..=rows * cols).map(|place| place as f32).collect();
            assert_eq!(matrix, expected, "{rows} × {cols} at {cuts:?}, {width} wide");
        }
    }
}
