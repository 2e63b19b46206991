//! The order in which codes of a right operand are decoded, and a matrix that is kept in it.

use std::ops::Range;

use super::NR;
use super::matrix::CodeMatrix;
use super::table::Table;
use super::widening::Census;
use crate::format::Fp8;
use crate::memory::Aligned;
use crate::{Blocks, memory};

/// The codes of two successive indices of the sum for each column of a panel.
pub(super) type PairRow = [u8; 2 * NR];

/// Where in a [`PairRow`] the codes of a column are: the first of two bytes.
///
/// Interleaving the lower, then the upper halves of the four 16-byte lanes of 64 such bytes with as many others gives
/// the columns in order, 16 to a vector. That is what a decoder on AVX-512 does with the upper and lower bytes of
/// values.
pub(super) const fn position(col: usize) -> usize {
    let (half, quarter, lane, place) = (col / 32, col / 16 % 2, col / 4 % 4, col % 4);
    64 * half + 16 * lane + 8 * quarter + 2 * place
}

/// A matrix of codes in panels of 64 rows, as a right operand is read: the rows of the matrix are the columns of the
/// panel. The last panel is only as wide as there are rows left. Takes one byte per element, and one more per row of
/// odd length.
#[derive(Clone, Debug)]
pub struct PackedCodes {
    bytes: Aligned<u8>,
    format: Fp8,
    blocks: Blocks,
    scales: Vec<f32>,
    census: Census,
    table: Box<Table>,
}

impl PackedCodes {
    /// Arranges the codes of a matrix with the shape of `blocks`.
    #[must_use]
    pub fn new(codes: &[u8], format: Fp8, blocks: Blocks, scales: Vec<f32>) -> Self {
        let (rows, length) = blocks.shape();
        let bytes = Aligned::zeroed(rows * length.next_multiple_of(2));
        let table = Box::new(Table::new(format, 0));
        let mut packed = Self { bytes, format, blocks, scales, census: Census::of(format, codes), table };
        for (row, source) in codes.chunks_exact(length.max(1)).enumerate() {
            let (panel, width) = packed.panel_of(row);
            let place = place(row, width);
            for (pair, codes) in packed.bytes[panel].chunks_exact_mut(2 * width).zip(source.chunks(2)) {
                pair[place..place + codes.len()].copy_from_slice(codes);
            }
        }
        packed
    }

    /// The codes row by row.
    #[must_use]
    pub fn codes(&self) -> Vec<u8> {
        let (rows, length) = self.blocks.shape();
        let mut codes = memory::zeroed(rows * length);
        for (row, to) in codes.chunks_exact_mut(length.max(1)).enumerate() {
            self.copy_row(row, to);
        }
        codes
    }

    /// Copies the codes of a row of the matrix, as far as there is room; copies nothing if the matrix has no such
    /// row.
    pub fn copy_row(&self, row: usize, to: &mut [u8]) {
        let (rows, length) = self.blocks.shape();
        if row >= rows {
            return;
        }
        let (panel, width) = self.panel_of(row);
        let place = place(row, width);
        let room = length.min(to.len());
        let to = &mut to[..room];
        for (pair, codes) in self.bytes[panel].chunks_exact(2 * width).zip(to.chunks_mut(2)) {
            codes.copy_from_slice(&pair[place..place + codes.len()]);
        }
    }

    /// The format of the codes.
    #[must_use]
    pub fn format(&self) -> Fp8 {
        self.format
    }

    /// The blocks that share scales, and with them the shape.
    #[must_use]
    pub fn blocks(&self) -> Blocks {
        self.blocks
    }

    /// The scales in the order of the blocks.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Bytes of the codes and scales.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.scales)
    }

    /// The matrix with scales and shape, but without codes that could be read one by one.
    pub(super) fn outline(&self) -> CodeMatrix<'_> {
        CodeMatrix::outline(self.format, self.blocks, &self.scales)
    }

    /// The values of the codes.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// What kinds of codes there are.
    pub(super) fn census(&self) -> Census {
        self.census
    }

    /// The pair rows `pairs` of the panel that starts at row `first`; a narrow panel's are widened into `scratch`.
    pub(super) fn pair_rows<'s>(
        &'s self,
        first: usize,
        pairs: Range<usize>,
        scratch: &'s mut Vec<PairRow>,
    ) -> &'s [PairRow] {
        let (panel, width) = self.panel_of(first);
        let panel = &self.bytes[panel];
        if width == NR {
            let (rows, _) = panel.as_chunks();
            return &rows[pairs];
        }
        scratch.resize(scratch.len().max(pairs.len()), [0; 2 * NR]);
        let scratch = &mut scratch[..pairs.len()];
        widened(&panel[pairs.start * 2 * width..], width, scratch);
        scratch
    }

    /// The bytes of some pair rows of a panel, or none where there is no such panel.
    pub(super) fn pairs_in(&self, first: usize, pairs: Range<usize>) -> &[u8] {
        if first >= self.blocks.shape().0 {
            return &[];
        }
        let (panel, width) = self.panel_of(first);
        let bytes = panel.start + pairs.start * 2 * width..panel.start + pairs.end * 2 * width;
        self.bytes.get(bytes).unwrap_or_default()
    }

    /// Where the panel of a row is, and how many rows it has.
    fn panel_of(&self, row: usize) -> (Range<usize>, usize) {
        let (rows, length) = self.blocks.shape();
        let row_bytes = length.next_multiple_of(2);
        let first = row - row % NR;
        let width = (rows - first).min(NR);
        (first * row_bytes..(first + width) * row_bytes, width)
    }
}

/// Brings the pair rows of a narrow panel, of `width`, into the order of whole ones.
pub(super) fn widened(panel: &[u8], width: usize, to: &mut [PairRow]) {
    for (to, from) in to.iter_mut().zip(panel.chunks_exact(2 * width)) {
        *to = [0; 2 * NR];
        for (col, pair) in from.chunks_exact(2).enumerate() {
            to[position(col)..][..2].copy_from_slice(pair);
        }
    }
}

/// Where in the pair rows of a panel of `width` the codes of a row are.
pub(super) fn place(row: usize, width: usize) -> usize {
    if width == NR { position(row % NR) } else { 2 * (row % NR) }
}

#[cfg(test)]
mod tests {
    use super::{PackedCodes, position};
    use crate::Blocks;
    use crate::Fp8;

    #[test]
    fn every_column_has_two_bytes_of_its_own() {
        let mut places: Vec<usize> = (0..64).map(position).collect();
        places.sort_unstable();
        assert_eq!(places, (0..128).step_by(2).collect::<Vec<_>>());
    }

    #[test]
    fn codes_come_back_from_all_shapes() {
        for (rows, length) in [(0, 3), (3, 0), (1, 1), (63, 5), (64, 6), (65, 1), (130, 33)] {
            let codes: Vec<u8> = (0..rows * length).map(|index| (index * 37 % 251) as u8).collect();
            let packed = PackedCodes::new(&codes, Fp8::E4M3, Blocks::new(rows, length, rows, length), vec![1.0]);
            assert_eq!(packed.codes(), codes, "{rows} × {length}");
            assert_eq!(packed.bytes(), rows * length.next_multiple_of(2) + 4);
        }
    }
}
