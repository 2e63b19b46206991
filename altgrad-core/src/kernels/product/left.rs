//! The left operand, decoded and arranged so that a tile of the result reads it from front to back.

use std::ops::Range;

use half::bf16;

use super::matrix::{CodeMatrix, FloatMatrix};
use super::plan::{DEPTH, Reach};
use super::table::Table;
use super::{Dot, TILE_ROWS};
use crate::format::Fp8;
use crate::kernels::level::Level;
use crate::kernels::{Blocks, elementwise, threads};

/// The left operand of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left<'a> {
    Codes(CodeMatrix<'a>),
    Floats(FloatMatrix<'a>),
    /// Floats that count as rounded to bf16, ties to even.
    RoundedFloats(FloatMatrix<'a>),
}

impl Left<'_> {
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Left::Codes(codes) => codes.shape(),
            Left::Floats(floats) | Left::RoundedFloats(floats) => floats.shape(),
        }
    }

    /// Where products with values of another format lie, and sums of up to `length` of them; `None` if that cannot be said.
    pub(super) fn reach(&self, level: Level, right: Fp8, length: usize) -> Option<Reach> {
        match self {
            Left::Codes(codes) => Some(Reach::of_codes(codes.format(), right, length.min(2 * DEPTH))),
            Left::Floats(floats) | Left::RoundedFloats(floats) => {
                let values = floats.stored().elements;
                let amax = elementwise::amax(level, values, Blocks::whole(values.len()));
                Reach::of_floats(amax.first().copied().unwrap_or_default(), right, length.min(2 * DEPTH))
            }
        }
    }
}

/// The left operand in tiles of up to [`TILE_ROWS`] rows, all of about the same height. A tile has the dwords of its rows
/// next to one another, for each dword of the sum's index.
#[derive(Debug)]
pub(super) struct PackedLeft {
    dwords: Vec<u32>,
    /// First row of each tile, and the number of rows at the end.
    cuts: Vec<usize>,
    /// Dwords of a row.
    depth: usize,
}

impl PackedLeft {
    /// Decodes and arranges `left` for products by `dot`; codes have the values of `table`.
    pub(super) fn new(left: &Left<'_>, table: &Table, dot: Dot) -> Self {
        let (rows, length) = left.shape();
        let depth = length.div_ceil(dot.elements());
        let tiles = rows.div_ceil(TILE_ROWS);
        let cuts: Vec<usize> = (0..=tiles).map(|tile| tile * rows / tiles.max(1)).collect();
        let mut dwords = vec![0; rows * depth];
        let mut tiles = Vec::with_capacity(tiles);
        let mut rest = &mut dwords[..];
        for ends in cuts.windows(2) {
            let (tile, after) = rest.split_at_mut((ends[1] - ends[0]) * depth);
            tiles.push((ends[0]..ends[1], tile));
            rest = after;
        }
        threads::for_each(tiles, rows * length, |(rows, tile)| match (left, dot) {
            (Left::Codes(codes), Dot::Singles) => {
                arrange(&codes.stored(), rows, dot, tile, |code| u32::from(table.values[usize::from(code)]) << 16);
            }
            (Left::Codes(codes), Dot::Pairs) => {
                arrange(&codes.stored(), rows, dot, tile, |code| u32::from(table.values[usize::from(code)]));
            }
            (Left::Floats(floats), Dot::Singles) => arrange(&floats.stored(), rows, dot, tile, f32::to_bits),
            (Left::RoundedFloats(floats), Dot::Singles) => {
                arrange(&floats.stored(), rows, dot, tile, |value| u32::from(bf16::from_f32(value).to_bits()) << 16);
            }
            (Left::Floats(floats) | Left::RoundedFloats(floats), Dot::Pairs) => {
                arrange(&floats.stored(), rows, dot, tile, |value| u32::from(bf16::from_f32(value).to_bits()));
            }
        });
        Self { dwords, cuts, depth }
    }

    /// First row of each tile, and the number of rows at the end.
    pub(super) fn cuts(&self) -> &[usize] {
        &self.cuts
    }

    /// The dwords `run` of the rows of a tile, which are its `rows`.
    pub(super) fn tile(&self, rows: Range<usize>, run: Range<usize>) -> &[u32] {
        let start = rows.start * self.depth;
        &self.dwords[start + run.start * rows.len()..start + run.end * rows.len()]
    }
}

/// Elements as they lie in memory.
pub(super) struct Stored<'a, E> {
    pub(super) elements: &'a [E],
    /// Elements from one stored row to the next.
    pub(super) stride: usize,
    /// Whether a row of the operand is a column of what is stored.
    pub(super) transposed: bool,
    /// Number of the sum's indices.
    pub(super) length: usize,
}

/// Writes the dwords of `rows`, of one or two elements each, to a tile.
fn arrange<E: Copy>(stored: &Stored<'_, E>, rows: Range<usize>, dot: Dot, tile: &mut [u32], bits: impl Fn(E) -> u32) {
    let Stored { elements, stride, transposed, length } = *stored;
    let height = rows.len();
    if transposed {
        for (dwords, index) in tile.chunks_exact_mut(height).zip((0..length).step_by(dot.elements())) {
            for place in 0..dot.elements().min(length - index) {
                let source = &elements[(index + place) * stride..][rows.clone()];
                for (dword, element) in dwords.iter_mut().zip(source) {
                    *dword |= bits(*element) << (16 * place);
                }
            }
        }
    } else {
        for (place, row) in rows.enumerate() {
            let source = &elements[row * stride..][..length];
            let dwords = tile[place..].iter_mut().step_by(height);
            match dot {
                Dot::Singles => dwords.zip(source).for_each(|(dword, element)| *dword = bits(*element)),
                Dot::Pairs => dwords.zip(source.chunks(2)).for_each(|(dword, pair)| {
                    *dword = pair.iter().rev().fold(0, |dword, element| dword << 16 | bits(*element));
                }),
            }
        }
    }
}
