//! From codes as they lie in memory to pair rows: portable code, and the choice between it and that for the instruction
//! sets of a processor.

use std::ops::Range;

use super::NR;
use super::matrix::Strided;
use super::microkernel::LINE;
use super::pair_row::{PairRow, position};
use super::plan::KC;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::level::Level;

/// Prefetches bytes into the second-level cache of the processor.
#[allow(unsafe_code, reason = "see the proof")]
pub(super) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for byte in bytes.iter().step_by(LINE).chain(bytes.last()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it reads nothing that the program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// The pair row of two rows of codes, of the same columns each.
#[allow(unsafe_code, reason = "calling what is compiled for features that the level proves")]
pub(super) fn interleave(level: Level, rows: [&[u8; NR]; 2], to: &mut PairRow) {
    match level {
        // SAFETY: each level proves that the processor has the features that these functions are compiled for.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(_) | Level::Avx512Bf16(_) => unsafe { avx512::interleave(rows, to) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) => unsafe { avx2::interleave(rows, to) },
        Level::Scalar => {
            for (place, row) in rows.into_iter().enumerate() {
                for (col, code) in row.iter().enumerate() {
                    to[position(col) + place] = *code;
                }
            }
        }
    }
}

/// The pair rows of the codes of each column. All columns have the same length, except for empty ones, which count as
/// zeros.
#[allow(unsafe_code, reason = "calling what is compiled for features that the level proves")]
pub(super) fn transpose(level: Level, columns: &[&[u8]; NR], to: &mut [PairRow]) {
    let whole = match level {
        // SAFETY: each level proves that the processor has the features that these functions are compiled for.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) | Level::Avx512(_) | Level::Avx512Bf16(_) => unsafe { avx2::transpose_chunks(columns, to) },
        Level::Scalar => 0,
    };
    for (col, codes) in columns.iter().enumerate() {
        let mut pairs = codes.get(whole..).unwrap_or_default().chunks(2);
        for to in &mut to[whole / 2..] {
            let pair = pairs.next().unwrap_or_default();
            let code = |place: usize| pair.get(place).copied().unwrap_or_default();
            to[position(col)..][..2].copy_from_slice(&[code(0), code(1)]);
        }
    }
}

/// The codes of a column in the current run. It is one cache line longer than the longest run, so that columns are
/// not a power of two apart.
pub(super) type NearColumn = [u8; 2 * KC + 64];

/// Brings codes into the order of pair rows; positions beyond the columns or the run get the code 0.
pub(super) fn fill(
    level: Level,
    stored: &Strided<'_, u8>,
    cols: Range<usize>,
    run: Range<usize>,
    near: &mut Vec<NearColumn>,
    to: &mut [PairRow],
) {
    let Strided { elements, stride, transposed, .. } = *stored;
    if transposed {
        let mut padded = [[0; NR]; 2];
        for (start, pair) in run.clone().step_by(2).zip(to) {
            let row = |index: usize| &elements[index * stride..][cols.clone()];
            let rows = [row(start), if start + 1 < run.end { row(start + 1) } else { &[] }];
            let whole = rows.map(|row| row.first_chunk());
            if let [Some(first), Some(second)] = whole {
                interleave(level, [first, second], pair);
            } else {
                for (padded, row) in padded.iter_mut().zip(rows) {
                    *padded = [0; NR];
                    padded[..row.len()].copy_from_slice(row);
                }
                let [first, second] = &padded;
                interleave(level, [first, second], pair);
            }
        }
    } else {
        // Rows that lie a multiple of 4 KiB apart would drive one another out of the first-level cache.
        near.resize(NR, [0; size_of::<NearColumn>()]);
        for (row, near) in cols.clone().zip(&mut *near) {
            near[..run.len()].copy_from_slice(&elements[row * stride..][run.clone()]);
        }
        let rows = std::array::from_fn(|place| if place < cols.len() { &near[place][..run.len()] } else { &[] });
        transpose(level, &rows, to);
    }
}
