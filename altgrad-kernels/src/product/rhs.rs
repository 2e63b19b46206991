//! The right operand, decoded a panel of columns at a time.

use std::borrow::Cow;
use std::ops::Range;

use super::matrix::{CodeMatrix, Strided};
use super::packed::PackedCodes;
use super::pair_row::PairRow;
use super::table::Table;
use super::widening::Census;
use super::{NR, interleave};
use crate::level::Level;

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
        near: &mut Vec<interleave::NearColumn>,
        scratch: &'s mut Vec<PairRow>,
    ) -> &'s [PairRow] {
        let pairs = run.start / 2..run.end.div_ceil(2);
        match self {
            Self::Packed(packed) => packed.pair_rows(cols.start, pairs, scratch),
            Self::Codes(codes) => {
                scratch.resize(scratch.len().max(pairs.len()), [0; 2 * NR]);
                let scratch = &mut scratch[..pairs.len()];
                interleave::fill(level, &codes.stored(), cols, run, near, scratch);
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
