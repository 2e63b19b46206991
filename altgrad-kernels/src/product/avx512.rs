//! The loops of a product with AVX-512, some of them with its BF16 instructions.

#[allow(clippy::wildcard_imports, reason = "instructions by the dozen, which their names say")]
use std::arch::x86_64::*;

use super::microkernel::{Epilogue, LINE, Panel, add, scale_each};
use super::output_tile::OutputTile;
use super::pair_row::PairRow;
use super::table::Table;
use super::{Dot, NR, RunScaling};

#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "see the proof")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 bytes, and the load has no alignment to keep.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "see the proof")]
fn load_dwords(dwords: &[u32; 16]) -> __m512i {
    // SAFETY: the reference is to 64 bytes, and the load has no alignment to keep.
    unsafe { _mm512_loadu_si512(dwords.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "see the proof")]
fn store(to: &mut [u8; 64], bytes: __m512i) {
    // SAFETY: the reference is to 64 bytes, and the store has no alignment to keep.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "see the proof")]
fn store_dwords(to: &mut [u32; 16], dwords: __m512i) {
    // SAFETY: the reference is to 64 bytes, and the store has no alignment to keep.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), dwords) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "see the proof")]
fn load_floats(values: &[f32; 16]) -> __m512 {
    // SAFETY: the reference is to 64 bytes, and the load has no alignment to keep.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "see the proof")]
fn store_floats(to: &mut [f32; 16], values: __m512) {
    // SAFETY: the reference is to 64 bytes, and the store has no alignment to keep.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), values) }
}

/// The same bits as pairs of bf16.
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "see the proof")]
fn as_pairs(dwords: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits, all of whose values are valid.
    unsafe { std::mem::transmute(dwords) }
}

/// The four vectors of the dwords of a panel's columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn row(dwords: &[u32; NR]) -> [__m512i; 4] {
    let (quarters, _) = dwords.as_chunks::<16>();
    [load_dwords(&quarters[0]), load_dwords(&quarters[1]), load_dwords(&quarters[2]), load_dwords(&quarters[3])]
}

/// A [`Table`] in registers, to look up 64 codes at a time.
struct Lookup {
    upper: [__m512i; 2],
    lower: [__m512i; 2],
    /// The value of the code 0x80, where it is not negative zero.
    odd: Option<[__m512i; 2]>,
}

impl Lookup {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn new(table: &Table) -> Self {
        let halves = |bytes: &[u8; 128]| {
            let (halves, _) = bytes.as_chunks::<64>();
            [load(&halves[0]), load(&halves[1])]
        };
        let odd = (!table.is_symmetric).then(|| {
            let [lower, upper] = table.values[0x80].to_le_bytes();
            [_mm512_set1_epi8(upper as i8), _mm512_set1_epi8(lower as i8)]
        });
        Self { upper: halves(&table.upper), lower: halves(&table.lower), odd }
    }

    /// The values of 64 codes as bf16: of each lane of 16 bytes, those of the lower 8 in the first vector and of the
    /// upper 8 in the second.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn values(&self, codes: __m512i) -> [__m512i; 2] {
        let sign = _mm512_set1_epi8(-128);
        let upper = _mm512_permutex2var_epi8(self.upper[0], codes, self.upper[1]);
        let mut lower = _mm512_permutex2var_epi8(self.lower[0], codes, self.lower[1]);
        // upper | (codes & sign)
        let mut upper = _mm512_ternarylogic_epi32::<0xF8>(upper, codes, sign);
        if let Some([odd_upper, odd_lower]) = self.odd {
            let is_odd = _mm512_cmpeq_epi8_mask(codes, sign);
            upper = _mm512_mask_mov_epi8(upper, is_odd, odd_upper);
            lower = _mm512_mask_mov_epi8(lower, is_odd, odd_lower);
        }
        [_mm512_unpacklo_epi8(lower, upper), _mm512_unpackhi_epi8(lower, upper)]
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn decode(dot: Dot, table: &Table, pairs: &[PairRow], to: &mut Panel) {
    let lookup = Lookup::new(table);
    let upper_half = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
    match dot {
        Dot::Pairs => {
            for (to, pair) in to.iter_mut().zip(pairs) {
                let (halves, _) = pair.as_chunks::<64>();
                let (quarters, _) = to.as_chunks_mut::<16>();
                for (quarters, half) in quarters.chunks_exact_mut(2).zip(halves) {
                    let [first, second] = lookup.values(load(half));
                    store_dwords(&mut quarters[0], first);
                    store_dwords(&mut quarters[1], second);
                }
            }
        }
        Dot::Singles => {
            for (to, pair) in to.chunks_mut(2).zip(pairs) {
                let (halves, _) = pair.as_chunks::<64>();
                for (half, place) in halves.iter().zip([0, 2]) {
                    for (values, place) in lookup.values(load(half)).into_iter().zip(place..) {
                        let singles = [_mm512_slli_epi32::<16>(values), _mm512_and_si512(values, upper_half)];
                        for (to, singles) in to.iter_mut().zip(singles) {
                            let (quarters, _) = to.as_chunks_mut::<16>();
                            store_dwords(&mut quarters[place], singles);
                        }
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
pub(super) fn tile_of_pairs<const ROWS: usize>(
    lhs: &[[u32; ROWS]],
    rhs: &Panel,
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    prefetch_tile::<ROWS>(first_row, output_tile);
    let mut sums = [[_mm512_setzero_ps(); 4]; ROWS];
    for (lhs, rhs) in lhs.iter().zip(rhs) {
        let rhs = row(rhs);
        for (sums, lhs) in sums.iter_mut().zip(lhs) {
            let lhs = as_pairs(_mm512_set1_epi32(*lhs as i32));
            for (sum, rhs) in sums.iter_mut().zip(rhs) {
                *sum = _mm512_dpbf16_ps(*sum, lhs, as_pairs(rhs));
            }
        }
    }
    finish_tile(&{ sums }, epilogue, first_row, output_tile);
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn tile_of_singles<const ROWS: usize>(
    lhs: &[[u32; ROWS]],
    rhs: &Panel,
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    prefetch_tile::<ROWS>(first_row, output_tile);
    let mut sums = [[_mm512_setzero_ps(); 4]; ROWS];
    for (lhs, rhs) in lhs.iter().zip(rhs) {
        let rhs = row(rhs);
        for (sums, lhs) in sums.iter_mut().zip(lhs) {
            let lhs = _mm512_set1_ps(f32::from_bits(*lhs));
            for (sum, rhs) in sums.iter_mut().zip(rhs) {
                *sum = _mm512_fmadd_ps(lhs, _mm512_castsi512_ps(rhs), *sum);
            }
        }
    }
    finish_tile(&{ sums }, epilogue, first_row, output_tile);
}

/// Prefetches the codes that come some time after a pair row.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch_ahead(pairs: &PairRow) {
    /// Far enough for memory to answer in time.
    const AHEAD: usize = 32;
    let ahead = std::ptr::from_ref(pairs).wrapping_add(AHEAD).cast::<i8>();
    _mm_prefetch::<_MM_HINT_T0>(ahead);
    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(LINE));
}

/// The sums of a tile of pairs, with the panel's codes decoded on the way.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
pub(super) fn direct_tile_of_pairs<const ROWS: usize>(
    lhs: &[[u32; ROWS]],
    table: &Table,
    rhs: &[PairRow],
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    let lookup = Lookup::new(table);
    prefetch_tile::<ROWS>(first_row, output_tile);
    let mut sums = [[_mm512_setzero_ps(); 4]; ROWS];
    for (lhs, rhs) in lhs.iter().zip(rhs) {
        prefetch_ahead(rhs);
        let (halves, _) = rhs.as_chunks::<64>();
        for (half, place) in halves.iter().zip([0, 2]) {
            for (rhs, place) in lookup.values(load(half)).into_iter().zip(place..) {
                for (sums, lhs) in sums.iter_mut().zip(lhs) {
                    let lhs = as_pairs(_mm512_set1_epi32(*lhs as i32));
                    sums[place] = _mm512_dpbf16_ps(sums[place], lhs, as_pairs(rhs));
                }
            }
        }
    }
    finish_tile(&{ sums }, epilogue, first_row, output_tile);
}

/// The sums of a tile of single values, with the panel's codes decoded on the way.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn direct_tile_of_singles<const ROWS: usize>(
    lhs: &[[u32; ROWS]],
    table: &Table,
    rhs: &[PairRow],
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    let lookup = Lookup::new(table);
    let upper_half = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
    prefetch_tile::<ROWS>(first_row, output_tile);
    let mut sums = [[_mm512_setzero_ps(); 4]; ROWS];
    for (lhs, rhs) in lhs.chunks(2).zip(rhs) {
        prefetch_ahead(rhs);
        let (halves, _) = rhs.as_chunks::<64>();
        for (half, place) in halves.iter().zip([0, 2]) {
            for (rhs, place) in lookup.values(load(half)).into_iter().zip(place..) {
                let singles = [_mm512_slli_epi32::<16>(rhs), _mm512_and_si512(rhs, upper_half)];
                for (lhs, rhs) in lhs.iter().zip(singles) {
                    for (sums, lhs) in sums.iter_mut().zip(lhs) {
                        let lhs = _mm512_set1_ps(f32::from_bits(*lhs));
                        sums[place] = _mm512_fmadd_ps(lhs, _mm512_castsi512_ps(rhs), sums[place]);
                    }
                }
            }
        }
    }
    finish_tile(&{ sums }, epilogue, first_row, output_tile);
}

/// Scales the sums of a tile and adds them to the result: [`add`], with whole vectors where the result has them.
/// Callers pass a copy of their sums: if they lent the sums themselves, the compiler would zero these in memory first.
#[inline]
#[target_feature(enable = "avx512f")]
fn finish_tile<const ROWS: usize>(
    sums: &[[__m512; 4]; ROWS],
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    if output_tile.cols().len() < NR || epilogue.scaling == RunScaling::Double {
        let mut stored = [[0.0; NR]; ROWS];
        for (stored, sums) in stored.iter_mut().zip(sums) {
            let (quarters, _) = stored.as_chunks_mut::<16>();
            quarters.iter_mut().zip(sums).for_each(|(quarter, sum)| store_floats(quarter, *sum));
        }
        return add(&stored, epilogue, first_row, output_tile);
    }
    let (cols, _) = epilogue.cols.as_chunks::<16>();
    for (place, sums) in sums.iter().enumerate() {
        let row_scale = _mm512_set1_ps(epilogue.rows.get(place).copied().unwrap_or(1.0));
        let (quarters, _) = output_tile.row(first_row + place).as_chunks_mut::<16>();
        for ((quarter, sum), col_scales) in quarters.iter_mut().zip(sums).zip(cols) {
            let mut sum = *sum;
            if epilogue.scaling == RunScaling::Single {
                sum = _mm512_mul_ps(_mm512_mul_ps(sum, load_floats(col_scales)), row_scale);
            }
            if epilogue.accumulate {
                sum = _mm512_add_ps(load_floats(quarter), sum);
            }
            store_floats(quarter, sum);
        }
    }
}

/// Prefetches the part of the result that a tile will be added to.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch_tile<const ROWS: usize>(first_row: usize, output_tile: &mut OutputTile<'_>) {
    for row in first_row..first_row + ROWS {
        for value in output_tile.row(row).iter().step_by(LINE / size_of::<f32>()) {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn interleave(rows: [&[u8; NR]; 2], to: &mut PairRow) {
    // Lane by lane the columns of the four quarters, 4 of each.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let [first, second] = rows.map(|row| _mm512_permutexvar_epi32(order, load(row)));
    let (halves, _) = to.as_chunks_mut::<64>();
    store(&mut halves[0], _mm512_unpacklo_epi8(first, second));
    store(&mut halves[1], _mm512_unpackhi_epi8(first, second));
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn scale(dot: Dot, scales: &[f32; NR], to: &mut Panel) {
    scale_each(dot, scales, to);
}

/// Rounds of 24 multiplications of pairs that do not wait for one another: the fastest that a core can do them.
#[cfg(test)]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn multiply_pairs(rounds: usize) -> [f32; 16] {
    let mut sums = [_mm512_setzero_ps(); 24];
    let pairs = as_pairs(_mm512_set1_epi32(std::hint::black_box(0x3F80_3F80)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
        }
    }
    let mut total = [0.0; 16];
    store_floats(&mut total, sums.into_iter().fold(_mm512_setzero_ps(), |total, sum| _mm512_add_ps(total, sum)));
    total
}
