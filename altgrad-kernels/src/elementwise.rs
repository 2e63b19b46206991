//! Passes over all elements of a tensor, in parts that threads share: results do not depend, even in one bit, on
//! where a part ends.

use super::blocks::Blocks;
use super::conversion::Conversion;
use super::element::Scalar;
use super::level::Level;
use super::{loops, specials, threads};
use crate::format::Fp8;

/// The largest magnitude of each block; NaN if the block holds NaN, 0 if it is empty.
pub(super) fn amax<T: Scalar>(level: Level, values: &[T], blocks: Blocks) -> Vec<f64> {
    let mut largest = vec![0.0; blocks.count()];
    let len = part_len(values.len());
    if len >= values.len() {
        loops::amax(level, 0, values, blocks, 0, &mut largest);
        return largest;
    }
    let parts = values.chunks(len).enumerate().map(|(number, part)| (number * len, part)).collect();
    let of_parts = threads::map(parts, values.len(), |(first, part): (usize, &[T])| {
        let reached = blocks.reached_by(first..first + part.len());
        let mut largest = vec![0.0; reached.len()];
        loops::amax(level, first, part, blocks, reached.start, &mut largest);
        (reached, largest)
    });
    for (reached, of_part) in of_parts {
        for (largest, of_part) in largest[reached].iter_mut().zip(of_part) {
            *largest = loops::larger_magnitude(*largest, of_part);
        }
    }
    largest
}

/// `to[i] = decode(encode(from[i] / scale)) × scale`, NaN staying NaN and infinities as the conversion says; both
/// slices have the same length.
pub(super) fn fake_quantize<T: Scalar>(level: Level, from: &[T], to: &mut [T], conversion: &Conversion) {
    let elements = from.len();
    threads::map(parts(from, to), elements, |Part { first, from, to }| {
        if loops::fake_quantize(level, first, from, to, conversion) {
            specials::put_into_values(from, to, conversion);
        }
    });
}

/// `to[i] = encode(from[i] / scale)`; false if a value is NaN, or an infinity that propagates, and the format has no
/// NaN, in which case the contents of `to` are meaningless.
pub(super) fn encode<T: Scalar>(level: Level, from: &[T], to: &mut [u8], conversion: &Conversion) -> bool {
    let elements = from.len();
    let has_codes = threads::map(parts(from, to), elements, |Part { first, from, to }| {
        !loops::encode(level, first, from, to, conversion) || specials::put_into_codes(first, from, to, conversion)
    });
    !has_codes.contains(&false)
}

/// `to[i] = decode(codes[i]) × scale`, with one scale for each block; both slices have the same length.
pub(super) fn decode<T: Scalar>(level: Level, codes: &[u8], to: &mut [T], format: Fp8, blocks: Blocks, scales: &[f32]) {
    let elements = codes.len();
    threads::map(parts(codes, to), elements, |Part { first, from, to }| {
        loops::decode(level, first, from, to, format, blocks, scales);
    });
}

/// Consecutive elements, and where their results go.
struct Part<'a, A, B> {
    /// The number of the first element in the tensor.
    first: usize,
    from: &'a [A],
    to: &'a mut [B],
}

fn parts<'a, A, B>(from: &'a [A], to: &'a mut [B]) -> Vec<Part<'a, A, B>> {
    let len = part_len(from.len());
    let pairs = from.chunks(len).zip(to.chunks_mut(len)).enumerate();
    pairs.map(|(number, (from, to))| Part { first: number * len, from, to }).collect()
}

/// Fewer elements are converted by the calling thread alone. Conversions of this many take one thread 50 to 75 µs (12
/// µs for the largest magnitude); from here on, two threads of Zen 4 were measured to be 1.5 to 1.8 times as fast as
/// one.
const LEAST: usize = 1 << 18;

/// Parts for each thread, so that a late thread does not keep the others waiting for long.
const PARTS_PER_THREAD: usize = 4;

/// The length of parts, the last of which may be shorter.
pub(super) fn part_len(elements: usize) -> usize {
    let parts = match threads::count(elements) {
        threads if threads > 1 && elements >= LEAST => threads * PARTS_PER_THREAD,
        _ => 1,
    };
    elements.div_ceil(parts).next_multiple_of(loops::CHUNK).max(1)
}
