//! The loops of a product with the vector instructions of x86-64.

use std::arch::x86_64::*;

use super::packed::PairRow;
use super::stripes::Stripe;
use super::table::Table;
use super::tile::{Finish, Panel, add};
use super::{Dot, PANEL};

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
fn store_dwords(to: &mut [u32; 16], dwords: __m512i) {
    // SAFETY: the reference is to 64 bytes, and the store has no alignment to keep.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), dwords) }
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
fn row(dwords: &[u32; PANEL]) -> [__m512i; 4] {
    let (quarters, _) = dwords.as_chunks::<16>();
    [load_dwords(&quarters[0]), load_dwords(&quarters[1]), load_dwords(&quarters[2]), load_dwords(&quarters[3])]
}

/// What a [`Table`] says of 64 codes at a time.
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

    /// The values of 64 codes as bf16, from each lane of 16 bytes the lower 8 in the first vector, the upper 8 in the other.
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
pub(super) fn decode_avx512(dot: Dot, table: &Table, pairs: &[PairRow], to: &mut Panel) {
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
pub(super) fn tile_avx512bf16<const ROWS: usize>(
    left: &[[u32; ROWS]],
    right: &Panel,
    finish: &Finish<'_>,
    first_row: usize,
    stripe: &mut Stripe<'_>,
) {
    let mut sums = [[_mm512_setzero_ps(); 4]; ROWS];
    for (left, right) in left.iter().zip(right) {
        let right = row(right);
        for (sums, left) in sums.iter_mut().zip(left) {
            let left = as_pairs(_mm512_set1_epi32(*left as i32));
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = _mm512_dpbf16_ps(*sum, left, as_pairs(right));
            }
        }
    }
    add(&stored(&sums), finish, first_row, stripe);
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn tile_avx512<const ROWS: usize>(
    left: &[[u32; ROWS]],
    right: &Panel,
    finish: &Finish<'_>,
    first_row: usize,
    stripe: &mut Stripe<'_>,
) {
    let mut sums = [[_mm512_setzero_ps(); 4]; ROWS];
    for (left, right) in left.iter().zip(right) {
        let right = row(right);
        for (sums, left) in sums.iter_mut().zip(left) {
            let left = _mm512_set1_ps(f32::from_bits(*left));
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = _mm512_fmadd_ps(left, _mm512_castsi512_ps(right), *sum);
            }
        }
    }
    add(&stored(&sums), finish, first_row, stripe);
}

/// The sums of a tile in memory.
#[inline]
#[target_feature(enable = "avx512f")]
fn stored<const ROWS: usize>(sums: &[[__m512; 4]; ROWS]) -> [[f32; PANEL]; ROWS] {
    let mut stored = [[0.0; PANEL]; ROWS];
    for (stored, sums) in stored.iter_mut().zip(sums) {
        let (quarters, _) = stored.as_chunks_mut::<16>();
        for (quarter, sums) in quarters.iter_mut().zip(sums) {
            store_floats(quarter, *sums);
        }
    }
    stored
}

/// Columns whose sums are in registers at a time: 6 × 16 take 12 of the 16 vector registers of AVX2.
const STRIP: usize = 16;

#[target_feature(enable = "avx2,fma,f16c")]
#[allow(unsafe_code, reason = "see the proofs")]
pub(super) fn tile_avx2<const ROWS: usize>(
    left: &[[u32; ROWS]],
    right: &Panel,
    finish: &Finish<'_>,
    first_row: usize,
    stripe: &mut Stripe<'_>,
) {
    let mut stored = [[0.0; PANEL]; ROWS];
    for strip in 0..PANEL / STRIP {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        for (left, right) in left.iter().zip(right) {
            let (strips, _) = right.as_chunks::<STRIP>();
            let (halves, _) = strips[strip].as_chunks::<8>();
            // SAFETY: each reference is to 32 bytes, and the load has no alignment to keep.
            let right = [0, 1].map(|half| unsafe { _mm256_loadu_ps(halves[half].as_ptr().cast()) });
            for (sums, left) in sums.iter_mut().zip(left) {
                let left = _mm256_set1_ps(f32::from_bits(*left));
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm256_fmadd_ps(left, right, *sum);
                }
            }
        }
        for (stored, sums) in stored.iter_mut().zip(sums) {
            let (strips, _) = stored.as_chunks_mut::<STRIP>();
            let (halves, _) = strips[strip].as_chunks_mut::<8>();
            for (half, sum) in halves.iter_mut().zip(sums) {
                // SAFETY: the reference is to 32 bytes, and the store has no alignment to keep.
                unsafe { _mm256_storeu_ps(half.as_mut_ptr(), sum) };
            }
        }
    }
    add(&stored, finish, first_row, stripe);
}
