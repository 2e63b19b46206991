//! The softmax of rows.

use std::ops::Range;

use super::exponential::exp;
use super::lanes::{LANES, sum};
use super::rows_of_part;
use crate::element::Scalar;
use crate::level::{Level, for_every_level};
use crate::threads;

for_every_level! {
    /// `exp(row[i]) / Σ exp(row[j])`, in place. NaN if an element is NaN or the largest is infinite.
    fn softmax = softmax_loop, (row: &mut [f32]);

    /// `to[i] = y[i]·(dy[i] - Σ dy[j]·y[j])`.
    fn gradient_row = gradient_loop, (y: &[f32], dy: &[f32], to: &mut [f32]);

    /// The same in place of `dy`.
    fn softmax_gradient_in_place = gradient_in_place_loop, (y: &[f32], dy: &mut [f32]);
}

/// The softmax of the elements of each row that `visible` says, of rows of `cols` elements; the others become 0. A row
/// that sees nothing is 0.
pub fn softmax_rows(x: &[f32], cols: usize, visible: &(dyn Fn(usize) -> Range<usize> + Sync), to: &mut [f32]) {
    if cols == 0 {
        return;
    }
    let rows = rows_of_part(cols);
    let parts = x.chunks(rows * cols).zip(to.chunks_mut(rows * cols)).enumerate().collect();
    threads::for_each(parts, 8 * x.len(), |(number, (x, to)): (usize, (&[f32], &mut [f32]))| {
        for (row, (x, to)) in x.chunks_exact(cols).zip(to.chunks_exact_mut(cols)).enumerate() {
            let seen = visible(number * rows + row);
            to[..seen.start].fill(0.0);
            to[seen.end..].fill(0.0);
            let to = &mut to[seen.clone()];
            to.copy_from_slice(&x[seen]);
            if !to.is_empty() {
                softmax::<f32>(Level::detect(), to);
            }
        }
    });
}

/// The gradient of rows of `cols` elements under that of their softmax `y`; where that is 0, so is the gradient.
pub fn softmax_gradient(y: &[f32], dy: &[f32], cols: usize, to: &mut [f32]) {
    if cols == 0 {
        return;
    }
    let part = rows_of_part(cols) * cols;
    let parts = y.chunks(part).zip(dy.chunks(part)).zip(to.chunks_mut(part)).collect();
    threads::for_each(parts, 4 * y.len(), |((y, dy), to): ((&[f32], &[f32]), &mut [f32])| {
        for ((y, dy), to) in y.chunks_exact(cols).zip(dy.chunks_exact(cols)).zip(to.chunks_exact_mut(cols)) {
            gradient_row::<f32>(Level::detect(), y, dy, to);
        }
    });
}

/// The largest element, ignoring NaN; -∞ for a row of NaN alone or an empty row.
#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *value);
        }
    }
    rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, larger)
}

#[inline(always)]
fn softmax_loop(row: &mut [f32]) {
    let largest = largest(row);
    let mut sums = [0.0; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (value, sum) in chunk.iter_mut().zip(&mut sums) {
            *value = exp(*value - largest);
            *sum += *value;
        }
    }
    for (value, sum) in rest.iter_mut().zip(&mut sums) {
        *value = exp(*value - largest);
        *sum += *value;
    }
    let factor = 1.0 / sums.iter().sum::<f32>();
    for value in row {
        *value *= factor;
    }
}

#[inline(always)]
fn gradient_in_place_loop(y: &[f32], dy: &mut [f32]) {
    let mean = sum(y, dy, |y, dy| y * dy);
    for (dy, y) in dy.iter_mut().zip(y) {
        *dy = y * (*dy - mean);
    }
}

#[inline(always)]
fn gradient_loop(y: &[f32], dy: &[f32], to: &mut [f32]) {
    let mean = sum(y, dy, |y, dy| y * dy);
    for ((to, y), dy) in to.iter_mut().zip(y).zip(dy) {
        *to = y * (dy - mean);
    }
}

#[cfg(test)]
mod tests {
    use super::softmax;
    use crate::level::Level;

    #[test]
    fn a_softmax_sums_to_one_and_passes_nan_on() {
        for level in Level::available() {
            for len in [1, 2, 31, 32, 33, 300] {
                let row: Vec<f32> = (0..len).map(|place| (place * 37 % 101) as f32 / 7.0 - 5.0).collect();
                let sum: f64 = row.iter().map(|value| f64::from(*value).exp()).sum();
                let mut found = row.clone();
                softmax::<f32>(level, &mut found);
                for (found, value) in found.iter().zip(&row) {
                    let expected = f64::from(*value).exp() / sum;
                    // An exponential and a sum of `len` terms.
                    let bound = expected * (8 + len) as f64 * f64::from(f32::EPSILON);
                    assert!((f64::from(*found) - expected).abs() <= bound, "{level}, {len}: {found} for {expected}");
                }
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut row = row.clone();
                    row[len / 2] = bad;
                    softmax::<f32>(level, &mut row);
                    assert!(row.iter().any(|value| value.is_nan()), "{level}, {len}, {bad}");
                }
            }
        }
    }
}
