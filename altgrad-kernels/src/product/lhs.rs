//! The left operand, decoded and arranged so that a tile of the result reads it from front to back.

use std::ops::Range;

use super::interleave::fill;
use super::matrix::{CodeMatrix, FloatMatrix, Strided};
use super::microkernel::Panel;
use super::plan::{ExponentRange, KC};
use super::table::Table;
use super::tile;
use super::{Dot, MR, NR, Scratch, scale};
use crate::format::Fp8;
use crate::level::Level;
use crate::{Blocks, elementwise, memory, threads};

/// The left operand of a product.
#[derive(Clone, Copy, Debug)]
pub enum Lhs<'a> {
    /// Codes under scales.
    Codes(CodeMatrix<'a>),
    /// Floats in full precision.
    Floats(FloatMatrix<'a>),
    /// Floats that count as rounded to bf16, ties to even.
    RoundedFloats(FloatMatrix<'a>),
}

impl Lhs<'_> {
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Lhs::Codes(codes) => codes.shape(),
            Lhs::Floats(floats) | Lhs::RoundedFloats(floats) => floats.shape(),
        }
    }

    /// The range of products with values of another format, and of sums of up to `length` of them; `None` if it is
    /// unknown.
    pub(super) fn exponent_range(&self, level: Level, rhs: Fp8, length: usize) -> Option<ExponentRange> {
        match self {
            Lhs::Codes(codes) => Some(ExponentRange::of_codes(codes.format(), rhs, length.min(2 * KC))),
            Lhs::Floats(floats) | Lhs::RoundedFloats(floats) => {
                let values = floats.stored().elements;
                let amax = elementwise::amax(level, values, Blocks::per_tensor(1, values.len()));
                ExponentRange::of_floats(amax.first().copied().unwrap_or_default(), rhs, length.min(2 * KC))
            }
        }
    }
}

/// The left operand in tiles of up to [`MR`] rows, all of about the same height. For each dword of the sum's index, a
/// tile has the dwords of its rows next to one another.
#[derive(Debug)]
pub(super) struct PackedLhs {
    dwords: Vec<u32>,
    /// First row of each tile, and the number of rows at the end.
    cuts: Vec<usize>,
    /// Dwords of a row.
    depth: usize,
}

impl PackedLhs {
    /// Decodes and arranges `lhs` for products by `dot`; the values of codes are divided by `2^fold`, or `scaled`.
    pub(super) fn new(level: Level, lhs: &Lhs<'_>, fold: i32, dot: Dot, scaled: bool) -> Self {
        let (rows, length) = lhs.shape();
        let depth = length.div_ceil(dot.elements());
        let tiles = rows.div_ceil(MR);
        let cuts: Vec<usize> = (0..=tiles).map(|tile| tile * rows / tiles.max(1)).collect();
        let mut dwords = memory::zeroed(rows * depth);
        let mut groups = Vec::with_capacity(tiles.div_ceil(GROUP));
        let mut rest = &mut dwords[..];
        // The last cut of a group is the first of the next.
        for cuts in (0..tiles).step_by(GROUP).map(|first| &cuts[first..=(first + GROUP).min(tiles)]) {
            let (group, after) = rest.split_at_mut((cuts[cuts.len() - 1] - cuts[0]) * depth);
            groups.push((cuts, group));
            rest = after;
        }
        let table = if let Lhs::Codes(codes) = lhs { Some((codes, Table::new(codes.format(), fold))) } else { None };
        threads::for_each_with(groups, rows * length, Scratch::default, |scratch, group| match (lhs, dot) {
            (Lhs::Codes(_), _) => {
                if let Some((codes, table)) = &table {
                    decode(level, codes, (table, scaled), dot, scratch, group);
                }
            }
            (Lhs::Floats(matrix), Dot::Singles) => arrange(&matrix.stored(), depth, dot, group, f32::to_bits),
            (Lhs::RoundedFloats(matrix), Dot::Singles) => {
                arrange(&matrix.stored(), depth, dot, group, |value| rounded(value) << 16);
            }
            (Lhs::Floats(matrix) | Lhs::RoundedFloats(matrix), Dot::Pairs) => {
                arrange(&matrix.stored(), depth, dot, group, rounded);
            }
        });
        Self { dwords, cuts, depth }
    }

    /// First row of each tile, and the number of rows at the end.
    pub(super) fn cuts(&self) -> &[usize] {
        &self.cuts
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.cuts.last().copied().unwrap_or_default()
    }

    /// The dwords `run` of a tile, which consists of these `rows`.
    pub(super) fn tile(&self, rows: Range<usize>, run: Range<usize>) -> &[u32] {
        let start = rows.start * self.depth;
        &self.dwords[start + run.start * rows.len()..start + run.end * rows.len()]
    }
}

/// Tiles that are arranged at a time: as many as a panel of the right operand has columns for.
const GROUP: usize = NR / MR;

/// The cuts of the tiles of a group, and their dwords.
type Group<'a> = (&'a [usize], &'a mut [u32]);

/// Decodes the codes of a group as if its rows were the columns of a panel, and cuts that into tiles.
fn decode(
    level: Level,
    codes: &CodeMatrix<'_>,
    (table, scaled): (&Table, bool),
    dot: Dot,
    scratch: &mut Scratch,
    (cuts, group): Group<'_>,
) {
    let (first, last) = (cuts[0], cuts[cuts.len() - 1]);
    let length = codes.shape().1;
    let depth = length.div_ceil(dot.elements());
    for start in (0..length).step_by(KC * dot.elements()) {
        let run = start..(start + KC * dot.elements()).min(length);
        let (pair_count, run_depth) = (run.len().div_ceil(2), run.len().div_ceil(dot.elements()));
        scratch.pairs.resize(scratch.pairs.len().max(pair_count), [0; 2 * NR]);
        let (pairs, decoded) = (&mut scratch.pairs[..pair_count], scratch.decoded.at_least(run_depth));
        fill(level, &codes.stored(), first..last, run.clone(), &mut scratch.near, pairs);
        tile::decode(level, dot, table, pairs, decoded);
        if scaled {
            scale(level, dot, codes, first..last, run.clone(), decoded);
        }
        for ends in cuts.windows(2) {
            let height = ends[1] - ends[0];
            let tile = &mut group[(ends[0] - first) * depth + start / dot.elements() * height..];
            let place = ends[0] - first;
            match height {
                1 => cut::<1>(decoded, place, tile),
                2 => cut::<2>(decoded, place, tile),
                3 => cut::<3>(decoded, place, tile),
                4 => cut::<4>(decoded, place, tile),
                5 => cut::<5>(decoded, place, tile),
                _ => cut::<MR>(decoded, place, tile),
            }
        }
    }
}

/// Copies the columns of a tile, which start at `place`.
fn cut<const ROWS: usize>(decoded: &Panel, place: usize, tile: &mut [u32]) {
    let (tile, _) = tile.as_chunks_mut::<ROWS>();
    for (to, from) in tile.iter_mut().zip(decoded) {
        if let Some(dwords) = from.get(place..).and_then(|dwords| dwords.first_chunk()) {
            *to = *dwords;
        }
    }
}

/// The bits of a value rounded to bf16, ties to even, without branches.
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    // A NaN whose payload would be cut off or carried away stays a quiet NaN.
    if value.is_nan() { bits >> 16 | 0x40 } else { (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 }
}

/// Writes the dwords of floats, `depth` for each row, to the tiles of a group.
fn arrange(
    stored: &Strided<'_, f32>,
    depth: usize,
    dot: Dot,
    (cuts, mut group): Group<'_>,
    bits: impl Fn(f32) -> u32 + Copy,
) {
    for ends in cuts.windows(2) {
        let height = ends[1] - ends[0];
        let (tile, after) = group.split_at_mut(height * depth);
        match height {
            1 => arrange_tile::<1>(stored, ends[0], dot, tile, bits),
            2 => arrange_tile::<2>(stored, ends[0], dot, tile, bits),
            3 => arrange_tile::<3>(stored, ends[0], dot, tile, bits),
            4 => arrange_tile::<4>(stored, ends[0], dot, tile, bits),
            5 => arrange_tile::<5>(stored, ends[0], dot, tile, bits),
            _ => arrange_tile::<MR>(stored, ends[0], dot, tile, bits),
        }
        group = after;
    }
}

/// Writes the dwords of rows, of one or two floats each, to a tile; the first row is number `first`.
fn arrange_tile<const ROWS: usize>(
    stored: &Strided<'_, f32>,
    first: usize,
    dot: Dot,
    tile: &mut [u32],
    bits: impl Fn(f32) -> u32,
) {
    let Strided { elements, stride, transposed, length } = *stored;
    let (tile, _) = tile.as_chunks_mut::<ROWS>();
    if transposed {
        for (dwords, index) in tile.iter_mut().zip((0..length).step_by(dot.elements())) {
            for place in 0..dot.elements().min(length - index) {
                let source = &elements[(index + place) * stride + first..][..ROWS];
                for (dword, element) in dwords.iter_mut().zip(source) {
                    *dword |= bits(*element) << (16 * place);
                }
            }
        }
        return;
    }
    let rows: [&[f32]; ROWS] = std::array::from_fn(|place| &elements[(first + place) * stride..][..length]);
    match dot {
        Dot::Singles => {
            for (index, dwords) in tile.iter_mut().enumerate().take(length) {
                for (dword, row) in dwords.iter_mut().zip(rows) {
                    *dword = bits(row[index]);
                }
            }
        }
        Dot::Pairs => {
            let pairs = rows.map(|row| row.as_chunks::<2>());
            for (index, dwords) in tile.iter_mut().enumerate() {
                for (dword, (pairs, rest)) in dwords.iter_mut().zip(pairs) {
                    *dword = match (pairs.get(index), rest) {
                        (Some([first, second]), _) => bits(*second) << 16 | bits(*first),
                        (None, [last]) => bits(*last),
                        (None, _) => 0,
                    };
                }
            }
        }
    }
}
