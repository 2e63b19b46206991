//! The precision in which a product of codes can be computed, and how its sum is cut into runs.

use std::ops::Range;

use super::Dot;
use super::matrix::CodeMatrix;
use crate::format::Fp8;

/// Dwords of a column of the right operand that are decoded at a time: 64 columns of them, 128 KiB, stay in the
/// second-level cache while all rows of the left operand pass by.
pub(super) const KC: usize = 512;

/// In shorter runs under one scale, it is cheaper to scale each element than each sum.
const SHORTEST_RUN: usize = 16;

/// The range of the products of two operands' elements and of the sums of such products, as binary exponents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExponentRange {
    /// Products of codes are multiples of `2^lowest`; for floats, the largest product is at least that.
    lowest: i32,
    /// Sums are below `2^highest`.
    highest: i32,
    /// Elements of the left operand are below `2^lhs`.
    lhs: i32,
}

impl ExponentRange {
    /// The range of `length` products of a value of each format.
    pub(super) fn of_codes(a: Fp8, b: Fp8, length: usize) -> Self {
        let lowest = [a, b].map(lowest);
        let highest = [a, b].map(|format| exponent(format.largest_finite()) + 1);
        let [lhs, rhs] = highest;
        Self { lowest: lowest.iter().sum(), highest: lhs + rhs + doublings(length), lhs }
    }

    /// The range of `length` products of floats, whose largest magnitude is `amax`, and values of a format; `None` if
    /// `amax` is not finite, since it then says nothing about the other floats.
    pub(super) fn of_floats(amax: f64, b: Fp8, length: usize) -> Option<Self> {
        if !amax.is_finite() {
            return None;
        }
        // If all are zero, so are the products.
        let amax = if amax == 0.0 { 0 } else { exponent(amax as f32) };
        let (lhs, rhs) = (amax + 1, exponent(b.largest_finite()) + 1);
        Some(Self { lowest: lowest(b) + amax - SIGNIFICANT_BITS, highest: lhs + rhs + doublings(length), lhs })
    }

    /// The power of two that the left operand's values have to be divided by for all sums to be finite, and whether
    /// products are then still normal numbers of `f32`. If they cannot all be, the values are kept as large as
    /// possible, so that products are subnormal numbers without loss: the values of a format span fewer than 127
    /// binades, and `f32` has 277.
    pub(super) fn fold(self) -> (i32, bool) {
        let least = self.highest - 127;
        let fold = if self.lowest < -126 { least.max(self.lhs - 127) } else { least.max(0) };
        (fold, self.lowest - fold >= -126)
    }

    /// Exponents of the powers of two that the left operand's values and the sums can be multiplied by, so that both
    /// together are `2^exponent` and nothing is lost if the right operand's values are divided by that; `None` if
    /// there are none.
    pub(super) fn split(self, exponent: i32) -> Option<(i32, i32)> {
        let before = exponent.min(127 - self.lhs).min(127);
        let after = exponent - before;
        (before >= 0 && after <= 127 && self.lowest - after >= -126).then_some((before, after))
    }

    /// Whether sums can be multiplied by any scale of an operand without leaving the normal numbers of `f32`.
    pub(super) fn can_be_scaled_by(self, operand: CodeMatrix<'_>) -> bool {
        let (smallest, largest) = operand.extreme_scales();
        operand.scales().is_empty()
            || self.lowest + exponent(smallest) >= -126 && self.highest + exponent(largest) < 127
    }
}

/// Whether elements of all operands can be multiplied by any of their scales so that they, the products of two
/// operands' elements, and sums of `length` such products are zero or normal numbers of `f32`; for pairs, also whether
/// bf16 has the elements, and no pair has two scales.
pub(super) fn are_scaled_elements_normal<'a>(
    operands: impl Iterator<Item = CodeMatrix<'a>>,
    length: usize,
    dot: Dot,
) -> bool {
    let (mut lowest_product, mut highest_sum) = (0, doublings(length));
    for operand in operands {
        let (smallest, largest) = operand.extreme_scales();
        let low = lowest(operand.format()) + exponent(smallest);
        let high = exponent(operand.format().largest_finite()) + exponent(largest) + 2;
        if low < -126 || high > 127 || dot == Dot::Pairs && !operand.scales_keep_pairs() {
            return false;
        }
        (lowest_product, highest_sum) = (lowest_product + low, highest_sum + high);
    }
    lowest_product >= -126 && highest_sum <= 127
}

/// Binades below the largest of the floats of an operand in which others are told apart as in full precision.
const SIGNIFICANT_BITS: i32 = 24;

/// How many times a term has to be doubled to get a sum of `length` such terms, rounded up.
fn doublings(length: usize) -> i32 {
    (usize::BITS - length.leading_zeros()) as i32
}

/// The binary exponent of the smallest positive value that a byte has in a format, whether it is a code or not.
fn lowest(format: Fp8) -> i32 {
    exponent(format.decode(1))
}

/// The binary exponent of a positive number: it is at least `2^exponent` and below `2^(exponent + 1)`.
fn exponent(value: f32) -> i32 {
    let bits = value.to_bits();
    if bits >> 23 == 0 { -118 - bits.leading_zeros() as i32 } else { (bits >> 23) as i32 - 127 }
}

/// The runs of the sum's index in which no operand's scale changes, if none of them is short and each starts at an
/// even index, so that it suffices to scale the sums of the runs.
pub(super) fn runs<'a>(
    length: usize,
    operands: impl Iterator<Item = CodeMatrix<'a>>,
    depth: usize,
) -> Option<Vec<Range<usize>>> {
    let blocks: Vec<usize> = operands.map(|operand| operand.block().1).filter(|block| *block < length).collect();
    if blocks.iter().any(|block| *block < SHORTEST_RUN || block % 2 == 1) {
        return None;
    }
    let mut runs = Vec::new();
    let mut start = 0;
    while start < length {
        let end = blocks.iter().map(|block| (start / block + 1) * block).chain([start + depth, length]).min();
        let end = end.unwrap_or(length);
        runs.push(start..end);
        start = end;
    }
    Some(runs)
}
