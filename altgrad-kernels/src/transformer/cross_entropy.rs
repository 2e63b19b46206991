//! Cross-entropy of rows of logits, without the probabilities in memory.

use super::exponential::exp;
use super::lanes::sum;
use super::rows_of_part;
use super::softmax::largest;
use crate::element::Scalar;
use crate::level::{Level, for_every_level};
use crate::threads;

for_every_level! {
    /// `ln Σ exp(row[i])`; NaN if an element is NaN or infinite, or all are -∞.
    fn log_sum_exp = log_sum_exp_loop, (row: &[f32]) -> f32;

    /// `to[i] = exp(row[i] - log_sum) · factor`.
    fn probabilities = probabilities_loop, (row: &[f32], log_sum: f32, factor: f32, to: &mut [f32]);
}

/// The mean loss of the rows, `ln Σ exp(row[i]) - row[target]`, and `ln Σ exp(row[i])` of each row, which has one element
/// per class. The mean of no rows is NaN. Targets are less than `classes`.
#[must_use]
pub fn cross_entropy(logits: &[f32], classes: usize, targets: &[u32]) -> (f32, Vec<f32>) {
    let classes = classes.max(1);
    let rows = rows_of_part(classes);
    let parts = logits.chunks(rows * classes).collect();
    let log_sums = threads::map(parts, 4 * logits.len(), |rows: &[f32]| {
        rows.chunks_exact(classes).map(|row| log_sum_exp::<f32>(Level::detect(), row)).collect::<Vec<_>>()
    });
    let log_sums = log_sums.concat();
    let rows = logits.chunks_exact(classes).zip(targets).zip(&log_sums);
    let losses = rows.map(|((row, target), log_sum)| f64::from(*log_sum) - f64::from(row[*target as usize]));
    let mean = losses.sum::<f64>() / targets.len() as f64;
    (mean as f32, log_sums)
}

/// The gradient of the logits under that of the mean, `dy`, from the logarithms of the rows' sums.
pub fn cross_entropy_gradient(
    logits: &[f32],
    classes: usize,
    targets: &[u32],
    log_sums: &[f32],
    dy: f32,
    to: &mut [f32],
) {
    let classes = classes.max(1);
    let rows = rows_of_part(classes);
    let factor = dy / targets.len() as f32;
    let labels = targets.chunks(rows).zip(log_sums.chunks(rows));
    let parts = logits.chunks(rows * classes).zip(labels).zip(to.chunks_mut(rows * classes)).collect();
    threads::for_each(parts, 4 * logits.len(), |((logits, (targets, log_sums)), to): Part<'_>| {
        let rows = logits.chunks_exact(classes).zip(targets).zip(log_sums).zip(to.chunks_exact_mut(classes));
        for (((row, target), log_sum), to) in rows {
            probabilities::<f32>(Level::detect(), row, *log_sum, factor, to);
            to[*target as usize] -= factor;
        }
    });
}

/// Rows of logits, their targets and the logarithms of their sums, and where their gradients go.
type Part<'a> = ((&'a [f32], (&'a [u32], &'a [f32])), &'a mut [f32]);

#[inline(always)]
fn log_sum_exp_loop(row: &[f32]) -> f32 {
    let largest = largest(row);
    largest + sum(row, row, |x, _| exp(x - largest)).ln()
}

#[inline(always)]
fn probabilities_loop(row: &[f32], log_sum: f32, factor: f32, to: &mut [f32]) {
    for (to, x) in to.iter_mut().zip(row) {
        // The sum is rounded, so a single large element may be above it.
        *to = exp((x - log_sum).min(0.0)) * factor;
    }
}
