//! What the loops of a tile work on, on every instruction set, and the portable parts that they share.

use super::output_tile::OutputTile;
use super::pair_row::{PairRow, position};
use super::table::Table;
use super::{Dot, NR, RunScaling};

/// Codes of a column that a transposition reads at a time.
pub(super) const CHUNK: usize = 16;

/// Bytes of a line of the cache.
pub(super) const LINE: usize = 64;

/// The decoded dwords of a run: for each dword of the sum's index those of the columns of a panel.
pub(super) type Panel = [[u32; NR]];

/// How the sums of a tile become part of the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epilogue<'a> {
    pub(super) scaling: RunScaling,
    /// Scales of the tile's rows, if there is something to scale.
    pub(super) rows: &'a [f32],
    /// Scales of the panel's columns.
    pub(super) cols: &'a [f32; NR],
    /// What sums are multiplied by besides the scales, in [`RunScaling::Double`].
    pub(super) factor: f64,
    /// Whether the result holds the sums of earlier runs.
    pub(super) accumulate: bool,
}

/// Decodes codes to the dwords of columns.
pub(super) fn decode_portable(dot: Dot, table: &Table, pairs: &[PairRow], to: &mut Panel) {
    let value = |code: u8| u32::from(table.values[usize::from(code)]);
    for (dwords, pair) in to.chunks_mut(2 / dot.elements()).zip(pairs) {
        for (col, place) in (0..NR).map(position).enumerate() {
            match (dot, &mut *dwords) {
                (Dot::Pairs, [both, ..]) => both[col] = value(pair[place]) | value(pair[place + 1]) << 16,
                (Dot::Singles, [first, rest @ ..]) => {
                    first[col] = value(pair[place]) << 16;
                    if let [second, ..] = rest {
                        second[col] = value(pair[place + 1]) << 16;
                    }
                }
                (_, []) => {}
            }
        }
    }
}

/// Multiplies the values of columns by the scale of each: pairs by powers of two, with normal results, which bf16 has.
#[inline(always)]
pub(super) fn scale_each(dot: Dot, scales: &[f32; NR], to: &mut Panel) {
    let product = |bits: u32, scale: f32| (f32::from_bits(bits) * scale).to_bits();
    match dot {
        Dot::Singles => to.iter_mut().for_each(|dwords| {
            dwords.iter_mut().zip(scales).for_each(|(dword, scale)| *dword = product(*dword, *scale));
        }),
        Dot::Pairs => to.iter_mut().for_each(|dwords| {
            dwords.iter_mut().zip(scales).for_each(|(dword, scale)| {
                *dword = product(*dword << 16, *scale) >> 16 | product(*dword & UPPER, *scale) & UPPER;
            });
        }),
    }
}

/// The half of a dword that holds the second value of a pair.
const UPPER: u32 = 0xFFFF_0000;

/// Scales the sums of a tile and adds them to the result.
#[inline(always)]
pub(super) fn add<const ROWS: usize>(
    sums: &[[f32; NR]; ROWS],
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    let Epilogue { scaling, rows, cols, factor, accumulate } = *epilogue;
    for (place, sums) in sums.iter().enumerate() {
        let row_scale = rows.get(place).copied().unwrap_or(1.0);
        let to = output_tile.row(first_row + place).iter_mut().zip(sums.iter().zip(cols));
        match scaling {
            RunScaling::Done => to.for_each(|(to, (sum, _))| *to = if accumulate { *to + sum } else { *sum }),
            RunScaling::Single => to.for_each(|(to, (sum, col_scale))| {
                let scaled = sum * col_scale * row_scale;
                *to = if accumulate { *to + scaled } else { scaled };
            }),
            RunScaling::Double => to.for_each(|(to, (sum, col_scale))| {
                let scaled = f64::from(*sum) * factor * f64::from(*col_scale) * f64::from(row_scale);
                *to = if accumulate { *to + scaled as f32 } else { scaled as f32 };
            }),
        }
    }
}
