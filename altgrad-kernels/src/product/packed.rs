//! A matrix of codes that is kept in the order in which they are decoded as a right operand.

use std::ops::Range;

use super::NR;
use super::interleave::fill;
use super::matrix::{CodeMatrix, Strided};
use super::pair_row::{PairRow, place, widened};
use super::plan::KC;
use super::table::Table;
use super::widening::Census;
use crate::format::Fp8;
use crate::level::Level;
use crate::memory::Aligned;
use crate::{Blocks, memory, threads};

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
        let row_bytes = length.next_multiple_of(2);
        let mut bytes = Aligned::zeroed(rows * row_bytes);
        let level = Level::detect();
        let stored = Strided { elements: codes, stride: length, transposed: false, length };
        let panels = bytes.chunks_mut((NR * row_bytes).max(1)).enumerate().collect();
        threads::for_each_with(panels, rows * length / 2, Vec::new, |near, (number, panel)| {
            let first = number * NR;
            if panel.len() == NR * row_bytes {
                let (pairs, _) = panel.as_chunks_mut();
                for start in (0..length).step_by(2 * KC) {
                    let run = start..(start + 2 * KC).min(length);
                    let pairs = &mut pairs[start / 2..run.end.div_ceil(2)];
                    fill(level, &stored, first..first + NR, run, near, pairs);
                }
                return;
            }
            let width = rows - first;
            for (row, source) in codes[first * length..].chunks_exact(length).enumerate() {
                for (pair, codes) in panel.chunks_exact_mut(2 * width).zip(source.chunks(2)) {
                    pair[2 * row..][..codes.len()].copy_from_slice(codes);
                }
            }
        });
        let table = Box::new(Table::new(format, 0));
        Self { bytes, format, blocks, scales, census: Census::of(format, codes), table }
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

#[cfg(test)]
mod tests {
    use super::PackedCodes;
    use crate::Blocks;
    use crate::Fp8;

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
