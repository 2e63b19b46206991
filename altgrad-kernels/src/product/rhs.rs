//! The right operand, decoded a panel of columns at a time.

use std::borrow::Cow;
use std::ops::Range;

use super::matrix::{CodeMatrix, Strided};
use super::packed::{PackedCodes, PairRow};
use super::plan::KC;
use super::table::Table;
use super::widening::Census;
use super::{NR, interleave};
use crate::level::Level;

/// The codes of a column in the current run. It is one cache line longer than the longest run, so that columns are
/// not a power of two apart.
pub(super) type NearColumn = [u8; 2 * KC + 64];

/// The right operand of a product; its rows are the columns of the result.
#[derive(Clone, Copy, Debug)]
pub enum Rhs<'a> {
    /// Codes that are arranged again for each product.
    Codes(CodeMatrix<'a>),
    /// Codes that were arranged once.
    Packed(&'a PackedCodes),
}

impl<'a> Rhs<'a> {
    /// Shape, blocks, scales and format.
    pub(super) fn outline(&self) -> CodeMatrix<'a> {
        match self {
            Self::Codes(codes) => *codes,
            Self::Packed(packed) => packed.outline(),
        }
    }

    /// The values of the codes.
    pub(super) fn table(&self) -> Cow<'a, Table> {
        match self {
            Self::Codes(codes) => Cow::Owned(Table::new(codes.format(), 0)),
            Self::Packed(packed) => Cow::Borrowed(packed.table()),
        }
    }

    /// What kinds of codes there are.
    pub(super) fn census(&self) -> Census {
        match self {
            Self::Codes(codes) => Census::of_specials(codes.format(), codes.stored().elements),
            Self::Packed(packed) => packed.census(),
        }
    }

    /// The codes of the columns `cols` of a panel and the indices `run`, which start at an even one.
    pub(super) fn pair_rows<'s>(
        &'s self,
        cols: Range<usize>,
        run: Range<usize>,
        level: Level,
        near: &mut Vec<NearColumn>,
        scratch: &'s mut Vec<PairRow>,
    ) -> &'s [PairRow] {
        let pairs = run.start / 2..run.end.div_ceil(2);
        match self {
            Self::Packed(packed) => packed.pair_rows(cols.start, pairs, scratch),
            Self::Codes(codes) => {
                scratch.resize(scratch.len().max(pairs.len()), [0; 2 * NR]);
                let scratch = &mut scratch[..pairs.len()];
                fill(level, &codes.stored(), cols, run, near, scratch);
                scratch
            }
        }
    }

    /// Prefetches the codes of some columns and indices, as far as there are any, while others are computed with.
    pub(super) fn prefetch(&self, cols: Range<usize>, run: Range<usize>) {
        match self {
            Self::Packed(packed) => {
                interleave::prefetch(packed.pairs_in(cols.start, run.start / 2..run.end.div_ceil(2)));
            }
            Self::Codes(codes) => {
                let Strided { elements, stride, transposed, .. } = codes.stored();
                let (rows, part) = if transposed { (run, cols) } else { (cols, run) };
                for start in rows.map(|row| row * stride) {
                    interleave::prefetch(elements.get(start + part.start..start + part.end).unwrap_or_default());
                }
            }
        }
    }
}

/// Brings codes into the order of pair rows; positions beyond the columns or the run get the code 0.
pub(super) fn fill(
    level: Level,
    stored: &Strided<'_, u8>,
    cols: Range<usize>,
    run: Range<usize>,
    near: &mut Vec<NearColumn>,
    to: &mut [PairRow],
) {
    let Strided { elements, stride, transposed, .. } = *stored;
    if transposed {
        let mut padded = [[0; NR]; 2];
        for (start, pair) in run.clone().step_by(2).zip(to) {
            let row = |index: usize| &elements[index * stride..][cols.clone()];
            let rows = [row(start), if start + 1 < run.end { row(start + 1) } else { &[] }];
            let whole = rows.map(|row| row.first_chunk());
            if let [Some(first), Some(second)] = whole {
                interleave::interleave(level, [first, second], pair);
            } else {
                for (padded, row) in padded.iter_mut().zip(rows) {
                    *padded = [0; NR];
                    padded[..row.len()].copy_from_slice(row);
                }
                let [first, second] = &padded;
                interleave::interleave(level, [first, second], pair);
            }
        }
    } else {
        // Rows that lie a multiple of 4 KiB apart would drive one another out of the first-level cache.
        near.resize(NR, [0; size_of::<NearColumn>()]);
        for (row, near) in cols.clone().zip(&mut *near) {
            near[..run.len()].copy_from_slice(&elements[row * stride..][run.clone()]);
        }
        let rows = std::array::from_fn(|place| if place < cols.len() { &near[place][..run.len()] } else { &[] });
        interleave::transpose(level, &rows, to);
    }
}
