//! The loops of a product with AVX2, FMA and F16C.

#[allow(clippy::wildcard_imports, reason = "instructions by the dozen, which their names say")]
use std::arch::x86_64::*;

use super::microkernel::{CHUNK, Epilogue, Panel, add, decode_portable, scale_each};
use super::output_tile::OutputTile;
use super::pair_row::PairRow;
use super::plan::KC;
use super::table::Table;
use super::widening::{Short, Widening};
use super::{Dot, NR};

/// Transposes as many whole chunks of codes as every column has, and returns how many codes of each column that were.
#[target_feature(enable = "avx2")]
#[allow(unsafe_code, reason = "see the proofs")]
pub(super) fn transpose_chunks(columns: &[&[u8]; NR], to: &mut [PairRow]) -> usize {
    let length = columns.iter().map(|codes| codes.len()).max().unwrap_or_default();
    let zeros = [[0; CHUNK]; 2 * KC / CHUNK];
    let columns = columns.map(|codes| if codes.is_empty() { &zeros[..] } else { codes.as_chunks::<CHUNK>().0 });
    let chunks = columns.iter().map(|chunks| chunks.len()).min().unwrap_or_default().min(length / CHUNK);
    // Eight columns share 16 bytes of a pair row: 4 each of two quarters.
    for (group, first) in (0..NR / 8).map(|group| (group, group / 4 * 32 + group % 4 * 4)) {
        let columns: [_; 8] = std::array::from_fn(|place| &columns[first + place / 4 * 16 + place % 4][..chunks]);
        for (chunk, to) in to.chunks_exact_mut(CHUNK / 2).take(chunks).enumerate() {
            let v = columns.map(|column| {
                // SAFETY: the reference is to 16 bytes, and the load has no alignment to keep.
                unsafe { _mm_loadu_si128(column[chunk].as_ptr().cast()) }
            });
            // Words, double words and quadruple words of two columns, four and eight, next to one another.
            let two = [0, 2, 4, 6].map(|i| [_mm_unpacklo_epi16(v[i], v[i + 1]), _mm_unpackhi_epi16(v[i], v[i + 1])]);
            let four = |lower: [__m128i; 2], upper: [__m128i; 2]| {
                [0, 1].map(|i| [_mm_unpacklo_epi32(lower[i], upper[i]), _mm_unpackhi_epi32(lower[i], upper[i])])
            };
            let (lower, upper) = (four(two[0], two[1]), four(two[2], two[3]));
            for (number, (lower, upper)) in lower.as_flattened().iter().zip(upper.as_flattened()).enumerate() {
                let eight = [_mm_unpacklo_epi64(*lower, *upper), _mm_unpackhi_epi64(*lower, *upper)];
                for (pair, eight) in to[2 * number..].iter_mut().zip(eight) {
                    let (groups, _) = pair.as_chunks_mut::<16>();
                    // SAFETY: the reference is to 16 bytes, and the store has no alignment to keep.
                    unsafe { _mm_storeu_si128(groups[group].as_mut_ptr().cast(), eight) };
                }
            }
        }
    }
    chunks * CHUNK
}

#[target_feature(enable = "avx2")]
#[allow(unsafe_code, reason = "see the proofs")]
pub(super) fn interleave(rows: [&[u8; NR]; 2], to: &mut PairRow) {
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let [first, second] = rows.map(|row| row.as_chunks::<32>().0);
    let (halves, _) = to.as_chunks_mut::<64>();
    for ((first, second), half) in first.iter().zip(second).zip(halves) {
        let [first, second] = [first, second].map(|bytes| {
            // SAFETY: the reference is to 32 bytes, and the load has no alignment to keep.
            let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
            _mm256_permutevar8x32_epi32(bytes, order)
        });
        let (even, odd) = (_mm256_unpacklo_epi8(first, second), _mm256_unpackhi_epi8(first, second));
        let lanes = [_mm256_permute2x128_si256::<0x20>(even, odd), _mm256_permute2x128_si256::<0x31>(even, odd)];
        let (quarters, _) = half.as_chunks_mut::<32>();
        for (quarter, lanes) in quarters.iter_mut().zip(lanes) {
            // SAFETY: the reference is to 32 bytes, and the store has no alignment to keep.
            unsafe { _mm256_storeu_si256(quarter.as_mut_ptr().cast(), lanes) };
        }
    }
}

/// Decodes codes of a format with up to five exponent bits to single values, through half precision: the numbers of
/// half precision are those of the format times a power of two. Returns whether it could; a code that is not a finite
/// number is left to others.
#[target_feature(enable = "avx2,fma,f16c")]
#[allow(unsafe_code, reason = "see the proofs")]
pub(super) fn decode(table: &Table, pairs: &[PairRow], to: &mut Panel) -> bool {
    let Some(half) = &table.half else { return false };
    let codes_beyond = _mm256_set1_epi8(half.largest_code as i8);
    let negative_zero = _mm256_set1_epi8(if table.is_symmetric { 0 } else { -128 });
    let magnitude = _mm256_set1_epi8(0x7F);
    let to_upper = _mm_cvtsi32_si128(8);
    let down = _mm_cvtsi32_si128(half.shift);
    let kept = _mm256_set1_epi16(half.mask as i16);
    let factor = _mm256_set1_ps(half.factor);
    for (to, pair) in to.chunks_mut(2).zip(pairs) {
        let (quarters, _) = pair.as_chunks::<32>();
        for (number, quarter) in quarters.iter().enumerate() {
            // SAFETY: the reference is to 32 bytes, and the load has no alignment to keep.
            let codes = unsafe { _mm256_loadu_si256(quarter.as_ptr().cast()) };
            let beyond = _mm256_cmpgt_epi8(_mm256_and_si256(codes, magnitude), codes_beyond);
            let odd = _mm256_and_si256(_mm256_cmpeq_epi8(codes, negative_zero), negative_zero);
            if _mm256_movemask_epi8(_mm256_or_si256(beyond, odd)) != 0 {
                return false;
            }
            // The first codes of pairs in the upper bytes of words, then the second ones.
            for (to, words) in to.iter_mut().zip([_mm256_sll_epi16(codes, to_upper), codes]) {
                let halves = _mm256_and_si256(_mm256_sra_epi16(words, down), kept);
                let lanes = [_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves)];
                for (lane, halves) in lanes.into_iter().enumerate() {
                    let values = _mm256_mul_ps(_mm256_cvtph_ps(halves), factor);
                    // Four columns each of two quarters of the panel.
                    let first = number / 2 * 32 + (number % 2 * 2 + lane) * 4;
                    let (groups, _) = to.as_chunks_mut::<4>();
                    let parts = [_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values)];
                    for (part, group) in parts.into_iter().zip([first / 4, first / 4 + 4]) {
                        // SAFETY: the reference is to 16 bytes, and the store has no alignment to keep.
                        unsafe { _mm_storeu_ps(groups[group].as_mut_ptr().cast(), part) };
                    }
                }
            }
        }
    }
    true
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn scale(dot: Dot, scales: &[f32; NR], to: &mut Panel) {
    scale_each(dot, scales, to);
}

/// Columns whose sums are in registers at a time: 6 × 16 take 12 of the 16 vector registers of AVX2.
const STRIP: usize = 16;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tile<const ROWS: usize>(
    lhs: &[[u32; ROWS]],
    rhs: &Panel,
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    let mut sums = [[0.0; NR]; ROWS];
    accumulate(lhs, rhs, &mut sums);
    add(&sums, epilogue, first_row, output_tile);
}

/// Indices whose codes are decoded at a time on the way: 16 KiB of values stay in the first-level cache.
const SHALLOW: usize = 64;

/// The sums of a tile of single values, with the panel's codes decoded on the way.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn direct_tile<const ROWS: usize>(
    lhs: &[[u32; ROWS]],
    table: &Table,
    rhs: &[PairRow],
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    let mut sums = [[0.0; NR]; ROWS];
    let mut decoded = [[0; NR]; SHALLOW];
    for (lhs, rhs) in lhs.chunks(SHALLOW).zip(rhs.chunks(SHALLOW / 2)) {
        let decoded = &mut decoded[..lhs.len()];
        if !decode(table, rhs, decoded) {
            decode_portable(Dot::Singles, table, rhs, decoded);
        }
        accumulate(lhs, decoded, &mut sums);
    }
    add(&sums, epilogue, first_row, output_tile);
}

/// Adds products to sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
#[allow(unsafe_code, reason = "see the proofs")]
fn accumulate<const ROWS: usize>(lhs: &[[u32; ROWS]], rhs: &Panel, stored: &mut [[f32; NR]; ROWS]) {
    for strip in 0..NR / STRIP {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        for (lhs, rhs) in lhs.iter().zip(rhs) {
            let (of_row, _) = rhs.as_chunks::<STRIP>();
            let (halves, _) = of_row[strip].as_chunks::<8>();
            // SAFETY: each reference is to 32 bytes, and the load has no alignment to keep.
            let rhs = [0, 1].map(|half| unsafe { _mm256_loadu_ps(halves[half].as_ptr().cast()) });
            for (sums, lhs) in sums.iter_mut().zip(lhs) {
                let lhs = _mm256_set1_ps(f32::from_bits(*lhs));
                for (sum, rhs) in sums.iter_mut().zip(rhs) {
                    *sum = _mm256_fmadd_ps(lhs, rhs, *sum);
                }
            }
        }
        for (stored, sums) in stored.iter_mut().zip(sums) {
            let (of_row, _) = stored.as_chunks_mut::<STRIP>();
            let (halves, _) = of_row[strip].as_chunks_mut::<8>();
            for (half, sum) in halves.iter_mut().zip(sums) {
                // SAFETY: the reference is to 32 bytes, and neither the load nor the store has an alignment to keep.
                unsafe { _mm256_storeu_ps(half.as_mut_ptr(), _mm256_add_ps(_mm256_loadu_ps(half.as_ptr()), sum)) };
            }
        }
    }
}

/// Pair rows whose sums are kept in registers at a time: 16 KiB of codes, which stay in the first-level cache for all
/// passes over them.
const DEPTH: usize = 128;

/// The sums of a tile of single values, with the panel's codes widened in registers, in the order in which they lie.
/// Sums are put in their places at the end.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn widening_tile<const ROWS: usize>(
    lhs: &[[u32; ROWS]],
    widening: &Widening,
    rhs: &[PairRow],
    epilogue: &Epilogue<'_>,
    first_row: usize,
    output_tile: &mut OutputTile<'_>,
) {
    let mut sums = [[0.0; NR]; ROWS];
    for (lhs, rhs) in lhs.chunks(2 * DEPTH).zip(rhs.chunks(DEPTH)) {
        // Beyond an odd end of the sum both operands are 0.
        let mut scaled = [[[0.0; ROWS]; 2]; DEPTH];
        for (scaled, values) in scaled.as_flattened_mut().iter_mut().zip(lhs) {
            *scaled = values.map(|value| f32::from_bits(value) * widening.before);
        }
        match widening.through {
            Short::Half => widen::<ROWS, false>(&scaled, widening, rhs, &mut sums),
            Short::Brain => widen::<ROWS, true>(&scaled, widening, rhs, &mut sums),
        }
    }
    add(&sums, epilogue, first_row, output_tile);
}

/// Takes as many quarters of a pair row at a time as have their sums in eight registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen<const ROWS: usize, const BRAIN: bool>(
    lhs: &[[[f32; ROWS]; 2]],
    widening: &Widening,
    rhs: &[PairRow],
    stored: &mut [[f32; NR]; ROWS],
) {
    match ROWS {
        1 | 2 => accumulate_widened::<ROWS, BRAIN, 2>(lhs, widening, rhs, stored),
        _ => accumulate_widened::<ROWS, BRAIN, 1>(lhs, widening, rhs, stored),
    }
}

/// Adds products of values and codes to sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
#[allow(unsafe_code, reason = "see the proofs")]
fn accumulate_widened<const ROWS: usize, const BRAIN: bool, const QUARTERS: usize>(
    lhs: &[[[f32; ROWS]; 2]],
    widening: &Widening,
    rhs: &[PairRow],
    stored: &mut [[f32; NR]; ROWS],
) {
    let down = _mm_cvtsi32_si128(widening.shift);
    let kept = _mm256_set1_epi16(widening.mask as i16);
    let kept_above = _mm256_slli_epi32::<16>(kept);
    let after = _mm_set1_ps(widening.after);
    for strip in 0..4 / QUARTERS {
        // A single row has sums of its own for the second codes, or additions would wait for one another.
        let mut sums = [[[[_mm256_setzero_ps(); 2]; QUARTERS]; ROWS]; 2];
        for (lhs, rhs) in lhs.iter().zip(rhs) {
            let (quarters, _) = rhs.as_chunks::<32>();
            let (strips, _) = quarters.as_chunks::<QUARTERS>();
            // The same part of the pair rows that follow these, of which the processor knows nothing yet.
            let ahead = strips[strip].as_ptr().cast::<i8>().wrapping_add(DEPTH * size_of::<PairRow>());
            _mm_prefetch::<_MM_HINT_T0>(ahead);
            for (number, quarter) in strips[strip].iter().enumerate() {
                // SAFETY: the reference is to 32 bytes, and the load has no alignment to keep.
                let codes = unsafe { _mm256_loadu_si256(quarter.as_ptr().cast()) };
                // The first codes of pairs in the upper bytes of words, then the second ones.
                for (index, words) in [_mm256_slli_epi16::<8>(codes), codes].into_iter().enumerate() {
                    let words = _mm256_sra_epi16(words, down);
                    let values = if BRAIN {
                        // Every other column of 16, then those between.
                        let lower = _mm256_slli_epi32::<16>(_mm256_and_si256(words, kept));
                        [lower, _mm256_and_si256(words, kept_above)].map(|bits| _mm256_castsi256_ps(bits))
                    } else {
                        let halves = _mm256_and_si256(words, kept);
                        let lanes = [_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves)];
                        lanes.map(|lane| _mm256_cvtph_ps(lane))
                    };
                    let sums = &mut sums[if ROWS == 1 { index } else { 0 }];
                    for (sums, lhs) in sums.iter_mut().zip(&lhs[index]) {
                        let lhs = _mm256_set1_ps(*lhs);
                        for (sum, values) in sums[number].iter_mut().zip(values) {
                            *sum = _mm256_fmadd_ps(lhs, values, *sum);
                        }
                    }
                }
            }
        }
        let [sums, more] = sums;
        for (stored, (sums, more)) in stored.iter_mut().zip(sums.into_iter().zip(more)) {
            let (groups, _) = stored.as_chunks_mut::<4>();
            for (number, (sums, more)) in sums.into_iter().zip(more).enumerate() {
                let [first, second] = [0, 1].map(|half| _mm256_add_ps(sums[half], more[half]));
                let lower = |sums| _mm256_castps256_ps128(sums);
                let upper = |sums| _mm256_extractf128_ps::<1>(sums);
                // The sums of 16 columns, four to a part.
                let parts = if BRAIN {
                    let [even, odd] = [_mm256_unpacklo_ps(first, second), _mm256_unpackhi_ps(first, second)];
                    [lower(even), lower(odd), upper(even), upper(odd)]
                } else {
                    [lower(first), upper(first), lower(second), upper(second)]
                };
                let quarter = strip * QUARTERS + number;
                let group = quarter / 2 * 8 + quarter % 2 * 2;
                for (part, group) in parts.into_iter().zip([group, group + 4, group + 1, group + 5]) {
                    let place = groups[group].as_mut_ptr();
                    // SAFETY: the reference is to 16 bytes, and neither load nor store has an alignment to keep.
                    unsafe { _mm_storeu_ps(place, _mm_fmadd_ps(part, after, _mm_loadu_ps(place))) };
                }
            }
        }
    }
}
