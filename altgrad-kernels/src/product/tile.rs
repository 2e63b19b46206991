//! The loops of a product: decoding a panel, and the sums of a tile. Portable code, and the choice between it and that for
//! the instruction sets of a processor.

use std::ops::Range;

use super::output_tile::OutputTile;
use super::packed::{PairRow, position};
use super::table::Table;
use super::{Dot, MR, NR, RunScaling};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::level::Level;

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
    /// What sums are multiplied by beside the scales, in [`RunScaling::Double`].
    pub(super) factor: f64,
    /// Whether the result holds the sums of earlier runs.
    pub(super) accumulate: bool,
}

/// Decodes codes to the dwords of columns.
#[allow(unsafe_code, reason = "calling what is compiled for features that the level proves")]
pub(super) fn decode(level: Level, dot: Dot, table: &Table, pairs: &[PairRow], to: &mut Panel) {
    match level {
        // SAFETY: each level proves that the processor has the features that these functions are compiled for.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(_) | Level::Avx512Bf16(_) => unsafe { avx512::decode(dot, table, pairs, to) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) if dot == Dot::Singles && unsafe { avx2::decode(table, pairs, to) } => {}
        _ => decode_portable(dot, table, pairs, to),
    }
}

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

/// Multiplies values of a panel by the scales of their columns.
#[allow(unsafe_code, reason = "calling what is compiled for features that the level proves")]
pub(super) fn scale(level: Level, scales: &[f32; NR], to: &mut Panel) {
    match level {
        // SAFETY: each level proves that the processor has the features that these functions are compiled for.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(_) | Level::Avx512Bf16(_) => unsafe { avx512::scale(scales, to) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) => unsafe { avx2::scale(scales, to) },
        Level::Scalar => scale_each(scales, to),
    }
}

#[inline(always)]
pub(super) fn scale_each(scales: &[f32; NR], to: &mut Panel) {
    for dwords in to {
        for (dword, scale) in dwords.iter_mut().zip(scales) {
            *dword = (f32::from_bits(*dword) * scale).to_bits();
        }
    }
}

/// The right operand of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) enum Columns<'a> {
    Decoded(&'a Panel),
    /// Codes, to be decoded on the way: cheaper for a few rows, on levels where [`decodes_on_the_way`] says so.
    Codes(&'a [PairRow], &'a Table),
}

/// The largest number of rows for which codes are best decoded once for each tile.
pub(super) fn decodes_on_the_way(level: Level) -> usize {
    match level {
        // Table and sums share the registers.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) | Level::Avx512(_) | Level::Avx512Bf16(_) => 4,
        Level::Scalar => 0,
    }
}

/// Computes the sums of a tile, which has `rows`, and adds them to the result.
pub(super) fn tile(
    level: Level,
    dot: Dot,
    lhs: &[u32],
    rhs: Columns<'_>,
    epilogue: &Epilogue<'_>,
    rows: Range<usize>,
    output_tile: &mut OutputTile<'_>,
) {
    let first_row = rows.start;
    match rows.len() {
        1 => tile_of::<1>(level, dot, lhs, rhs, epilogue, first_row, output_tile),
        2 => tile_of::<2>(level, dot, lhs, rhs, epilogue, first_row, output_tile),
        3 => tile_of::<3>(level, dot, lhs, rhs, epilogue, first_row, output_tile),
        4 => tile_of::<4>(level, dot, lhs, rhs, epilogue, first_row, output_tile),
        5 => tile_of::<5>(level, dot, lhs, rhs, epilogue, first_row, output_tile),
        _ => tile_of::<MR>(level, dot, lhs, rhs, epilogue, first_row, output_tile),
    }
}

#[allow(unsafe_code, reason = "calling what is compiled for features that the level proves")]
fn tile_of<const ROWS: usize>(
    level: Level,
    dot: Dot,
    lhs: &[u32],
    rhs: Columns<'_>,
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    let (lhs, _) = lhs.as_chunks::<ROWS>();
    match (rhs, level, dot) {
        // SAFETY: the level proves that the processor has the features that the function is compiled for.
        #[cfg(target_arch = "x86_64")]
        (Columns::Decoded(rhs), Level::Avx512Bf16(_), Dot::Pairs) => unsafe {
            avx512::tile_of_pairs(lhs, rhs, epilogue, first_row, output_tile);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Columns::Codes(rhs, table), Level::Avx512Bf16(_), Dot::Pairs) => unsafe {
            avx512::direct_tile_of_pairs(lhs, table, rhs, epilogue, first_row, output_tile);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Columns::Decoded(rhs), Level::Avx512(_) | Level::Avx512Bf16(_), Dot::Singles) => unsafe {
            avx512::tile_of_singles(lhs, rhs, epilogue, first_row, output_tile);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Columns::Codes(rhs, table), Level::Avx512(_) | Level::Avx512Bf16(_), Dot::Singles) => unsafe {
            avx512::direct_tile_of_singles(lhs, table, rhs, epilogue, first_row, output_tile);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Columns::Decoded(rhs), Level::Avx2(_), Dot::Singles) => unsafe {
            avx2::tile(lhs, rhs, epilogue, first_row, output_tile);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Columns::Codes(rhs, table), Level::Avx2(_), Dot::Singles) => unsafe {
            avx2::direct_tile(lhs, table, rhs, epilogue, first_row, output_tile);
        },
        (Columns::Decoded(rhs), ..) => tile_portable(dot, lhs, rhs, epilogue, first_row, output_tile),
        (Columns::Codes(pairs, table), ..) => {
            let mut decoded = vec![[0; NR]; lhs.len()];
            decode(level, dot, table, pairs, &mut decoded);
            tile_portable(dot, lhs, &decoded, epilogue, first_row, output_tile);
        }
    }
}

fn tile_portable<const ROWS: usize>(
    dot: Dot,
    lhs: &[[u32; ROWS]],
    rhs: &Panel,
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    let mut sums = [[0.0; NR]; ROWS];
    for (lhs, rhs) in lhs.iter().zip(rhs) {
        for (sums, lhs) in sums.iter_mut().zip(lhs) {
            for (sum, rhs) in sums.iter_mut().zip(rhs) {
                *sum = match dot {
                    Dot::Singles => *sum + f32::from_bits(*lhs) * f32::from_bits(*rhs),
                    Dot::Pairs => {
                        let halves = |dword: u32| [dword << 16, dword & 0xFFFF_0000].map(f32::from_bits);
                        let ([left0, left1], [right0, right1]) = (halves(*lhs), halves(*rhs));
                        *sum + left0 * right0 + left1 * right1
                    }
                };
            }
        }
    }
    add(&sums, epilogue, first_row, output_tile);
}

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
