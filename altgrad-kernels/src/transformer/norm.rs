//! Layer norm and RMS norm of the rows of a matrix.

use super::lanes::sum;
use super::rows_of_part;
use crate::element::Scalar;
use crate::level::{Level, for_every_level};
use crate::{memory, threads};

/// How rows are normalized.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// What is added to the mean square before its root is taken.
    pub eps: f32,
    /// Whether the mean of a row is subtracted first: layer norm does, RMS norm does not.
    pub centered: bool,
}

/// Where gradients go; none is computed that nobody needs.
#[derive(Debug, Default)]
pub struct NormGradients<'a> {
    /// One element for each of `x`.
    pub x: Option<&'a mut [f32]>,
    /// One element for each column.
    pub weight: Option<&'a mut [f32]>,
    /// One element for each column.
    pub bias: Option<&'a mut [f32]>,
}

for_every_level! {
    /// Normalizes rows.
    fn norm_part = norm_loop, (norm: Norm, x: &[f32], weight: &[f32], bias: Option<&[f32]>, to: &mut [f32]);

    /// Writes the gradients of rows, and adds those of weight and bias to sums.
    fn gradients_part = gradients_loop, (
        norm: Norm,
        x: &[f32],
        weight: &[f32],
        dy: &[f32],
        dx: Option<&mut [f32]>,
        sums: [&mut [f32]; 2]
    );
}

/// `to[i] = (x[i] - mean) / √(mean square + eps) · weight[j] + bias[j]`, with the means of the row and `j` the column.
/// `x` and `to` are rows of as many elements as `weight` and `bias`.
pub fn norm(norm: Norm, x: &[f32], weight: &[f32], bias: Option<&[f32]>, to: &mut [f32]) {
    let cols = weight.len();
    if cols == 0 {
        return;
    }
    let part = rows_of_part(cols) * cols;
    let parts = x.chunks(part).zip(to.chunks_mut(part)).collect();
    threads::for_each(parts, 4 * x.len(), |(x, to): (&[f32], &mut [f32])| {
        norm_part::<f32>(Level::detect(), norm, x, weight, bias, to);
    });
}

/// The gradients of [`norm`] under those of its result, `dy`.
///
/// Sums over rows are `f32` within parts of some rows and `f64` over the parts; the order depends only on the shape.
pub fn norm_gradients(norm: Norm, x: &[f32], weight: &[f32], dy: &[f32], to: NormGradients<'_>) {
    let cols = weight.len();
    if cols == 0 {
        return;
    }
    let part = rows_of_part(cols) * cols;
    let count = x.len().div_ceil(part);
    let mut dx_parts: Vec<Option<&mut [f32]>> = match to.x {
        Some(dx) => dx.chunks_mut(part).map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    };
    let mut sums = memory::zeroed(2 * cols * count);
    let parts = x.chunks(part).zip(dy.chunks(part)).zip(dx_parts.iter_mut().zip(sums.chunks_exact_mut(2 * cols)));
    threads::for_each(parts.collect(), 8 * x.len(), |((x, dy), (dx, sums)): Part<'_, '_>| {
        gradients_part::<f32>(Level::detect(), norm, x, weight, dy, dx.as_deref_mut(), sums.split_at_mut(cols).into());
    });
    for (to, first) in [(to.weight, 0), (to.bias, cols)] {
        let Some(to) = to else { continue };
        for (col, to) in to.iter_mut().enumerate() {
            *to = sums.chunks_exact(2 * cols).map(|sums| f64::from(sums[first + col])).sum::<f64>() as f32;
        }
    }
}

/// Rows of `x` and `dy`, where the gradients of the former go, and the sums of those of weight and bias.
type Part<'a, 'b> = ((&'a [f32], &'a [f32]), (&'a mut Option<&'b mut [f32]>, &'a mut [f32]));

/// The mean of a row, 0 if rows are not centered, and the factor that its elements get.
#[inline(always)]
fn moments(norm: Norm, row: &[f32]) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = if norm.centered { sum(row, row, |x, _| x) / count } else { 0.0 };
    let square = sum(row, row, |x, _| (x - mean) * (x - mean)) / count;
    (mean, 1.0 / (square + norm.eps).sqrt())
}

#[inline(always)]
fn norm_loop(norm: Norm, x: &[f32], weight: &[f32], bias: Option<&[f32]>, to: &mut [f32]) {
    let cols = weight.len();
    for (x, to) in x.chunks_exact(cols).zip(to.chunks_exact_mut(cols)) {
        let (mean, factor) = moments(norm, x);
        if let Some(bias) = bias {
            for (((to, x), weight), bias) in to.iter_mut().zip(x).zip(weight).zip(bias) {
                *to = (x - mean) * factor * weight + bias;
            }
        } else {
            for ((to, x), weight) in to.iter_mut().zip(x).zip(weight) {
                *to = (x - mean) * factor * weight;
            }
        }
    }
}

#[inline(always)]
fn gradients_loop(
    norm: Norm,
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    mut dx: Option<&mut [f32]>,
    [weight_sums, bias_sums]: [&mut [f32]; 2],
) {
    let cols = weight.len();
    for (number, (x, dy)) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)).enumerate() {
        let (mean, factor) = moments(norm, x);
        for (((weight_sum, bias_sum), x), dy) in weight_sums.iter_mut().zip(&mut *bias_sums).zip(x).zip(dy) {
            *weight_sum += dy * ((x - mean) * factor);
            *bias_sum += dy;
        }
        let Some(dx) = dx.as_deref_mut() else { continue };
        let dx = &mut dx[number * cols..][..cols];
        for ((dx, dy), weight) in dx.iter_mut().zip(dy).zip(weight) {
            *dx = dy * weight;
        }
        let count = cols as f32;
        // What changing the mean and the factor does.
        let by_mean = if norm.centered { sum(dx, x, |g, _| g) / count } else { 0.0 };
        let by_factor = sum(dx, x, |g, x| g * ((x - mean) * factor)) / count;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = factor * (*dx - by_mean - (x - mean) * factor * by_factor);
        }
    }
}
