//! The right operand, decoded a panel of columns at a time.

use std::ops::Range;

use super::left::Stored;
use super::matrix::CodeMatrix;
use super::packed::{PackedCodes, PairRow, position};
use super::PANEL;

/// The right operand of a product; its rows are the columns of the result.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Right<'a> {
    Codes(CodeMatrix<'a>),
    Packed(&'a PackedCodes),
}

impl<'a> Right<'a> {
    /// Shape, blocks, scales and format.
    pub(super) fn outline(&self) -> CodeMatrix<'a> {
        match self {
            Self::Codes(codes) => *codes,
            Self::Packed(packed) => packed.outline(),
        }
    }

    /// The codes of the columns `cols` of a panel and the indices `run`, which start at an even one; `scratch` has room for
    /// them.
    pub(super) fn pair_rows<'s>(
        &'s self,
        cols: Range<usize>,
        run: Range<usize>,
        scratch: &'s mut [PairRow],
    ) -> &'s [PairRow] {
        let pairs = run.start / 2..run.end.div_ceil(2);
        match self {
            Self::Packed(packed) => packed.pair_rows(cols.start, pairs, scratch),
            Self::Codes(codes) => {
                let scratch = &mut scratch[..pairs.len()];
                fill(&codes.stored(), cols, run, scratch);
                scratch
            }
        }
    }
}

/// Brings codes into the order of pair rows; what is beyond the columns or the run is the code 0.
fn fill(stored: &Stored<'_, u8>, cols: Range<usize>, run: Range<usize>, to: &mut [PairRow]) {
    let Stored { elements, stride, transposed, .. } = *stored;
    if cols.len() < PANEL || run.len() % 2 == 1 {
        to.fill([0; 2 * PANEL]);
    }
    if transposed {
        for (index, place) in run.zip(0..) {
            let pair = &mut to[place / 2];
            for (col, code) in elements[index * stride..][cols.clone()].iter().enumerate() {
                pair[position(col) + place % 2] = *code;
            }
        }
    } else {
        for (col, row) in cols.enumerate() {
            let codes = &elements[row * stride..][run.clone()];
            for (pair, codes) in to.iter_mut().zip(codes.chunks(2)) {
                pair[position(col)..][..codes.len()].copy_from_slice(codes);
            }
        }
    }
}
