//! The loops of a product: decoding a panel, and the sums of a tile. Portable code, and the choice between it and that
//! for the instruction sets of a processor.

use std::ops::Range;

use super::microkernel::{Epilogue, Panel, add, decode_portable, scale_each};
use super::output_tile::OutputTile;
use super::pair_row::PairRow;
use super::table::Table;
use super::widening::Widening;
use super::{Dot, MR, NR};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::level::Level;

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

/// Multiplies values of a panel by the scales of their columns.
#[allow(unsafe_code, reason = "calling what is compiled for features that the level proves")]
pub(super) fn scale(level: Level, dot: Dot, scales: &[f32; NR], to: &mut Panel) {
    match level {
        // SAFETY: each level proves that the processor has the features that these functions are compiled for.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(_) | Level::Avx512Bf16(_) => unsafe { avx512::scale(dot, scales, to) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) => unsafe { avx2::scale(dot, scales, to) },
        Level::Scalar => scale_each(dot, scales, to),
    }
}

/// The right operand of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) enum Columns<'a> {
    Decoded(&'a Panel),
    /// Codes, to be decoded on the way: cheaper for a few rows, on levels where [`decodes_on_the_way`] says so.
    Codes(&'a [PairRow], &'a Table),
    /// The same, of which all can be widened, on levels where [`widens`] says so.
    Widened(&'a [PairRow], &'a Widening),
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

/// Whether codes are best widened on the way.
pub(super) fn widens(level: Level) -> bool {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) => true,
        // These have better ways.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(_) | Level::Avx512Bf16(_) => false,
        Level::Scalar => false,
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
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Columns::Widened(rhs, widening), Level::Avx2(_), _) => unsafe {
            avx2::widening_tile(lhs, widening, rhs, epilogue, first_row, output_tile);
        },
        (Columns::Decoded(rhs), ..) => tile_portable(dot, lhs, rhs, epilogue, first_row, output_tile),
        // No other level widens.
        (Columns::Widened(..), ..) => {}
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
