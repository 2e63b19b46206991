//! Loops over matrices with one number per column: a bias, a sum.

use super::element::Scalar;
use super::level::{Level, for_every_level};
use super::round::Real;
use super::threads;

/// Rows that one thread takes at a time.
const ROWS: usize = 32;

for_every_level! {
    /// Adds `bias[j]` to the elements of column `j`; both are whole rows.
    fn add_to_rows = add_to_rows_loop, (values: &mut [T], bias: &[T]);

    /// Adds the elements of column `j` to `sums[j]`.
    fn add_rows = add_rows_loop, (values: &[T], sums: &mut [f64]);
}

/// Adds `bias[j]` to the elements of column `j`.
pub fn add_bias(values: &mut [f32], bias: &[f32]) {
    if bias.is_empty() {
        return;
    }
    let elements = values.len();
    let parts: Vec<_> = values.chunks_mut(ROWS * bias.len()).collect();
    threads::for_each(parts, elements, |part| add_to_rows(Level::detect(), part, bias));
}

/// Adds `from[i]` to `to[i]`; both slices have the same length.
pub fn add(to: &mut [f32], from: &[f32]) {
    const PART: usize = 1 << 14;
    let elements = to.len();
    let parts = to.chunks_mut(PART).zip(from.chunks(PART)).collect();
    threads::for_each(parts, elements, |(to, from): (&mut [f32], &[f32])| add_to_rows(Level::detect(), to, from));
}

/// Writes `a[i] + b[i]` to `to[i]`; all slices have the same length.
pub fn sum(a: &[f32], b: &[f32], to: &mut [f32]) {
    const PART: usize = 1 << 14;
    let elements = 2 * to.len();
    let parts = to.chunks_mut(PART).zip(a.chunks(PART)).zip(b.chunks(PART)).collect();
    threads::for_each(parts, elements, |((to, a), b): ((&mut [f32], &[f32]), &[f32])| {
        for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
            *to = a + b;
        }
    });
}

/// The sum of each of `cols` columns, in `f64`.
#[must_use]
pub fn sum_rows(values: &[f32], cols: usize) -> Vec<f32> {
    let mut sums = vec![0.0; cols];
    if cols > 0 {
        add_rows(Level::detect(), values, &mut sums);
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

#[inline(always)]
fn add_to_rows_loop<T: Scalar>(values: &mut [T], bias: &[T]) {
    for row in values.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = T::narrow(value.widen() + bias.widen());
        }
    }
}

#[inline(always)]
fn add_rows_loop<T: Scalar>(values: &[T], sums: &mut [f64]) {
    for row in values.chunks_exact(sums.len()) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value.widen().to_f64();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{add_rows, add_to_rows};
    use crate::level::Level;

    #[test]
    fn rows_are_added_on_every_level() {
        for level in Level::available() {
            for (rows, cols) in [(0, 3), (1, 1), (5, 7), (3, 64), (40, 33)] {
                let values: Vec<f32> = (0..rows * cols).map(|i| (i % 13) as f32 - 5.5).collect();
                let bias: Vec<f32> = (0..cols).map(|col| col as f32 * 0.25).collect();
                let mut sums = vec![0.5; cols];
                add_rows(level, &values, &mut sums);
                let mut with_bias = values.clone();
                add_to_rows(level, &mut with_bias, &bias);
                for col in 0..cols {
                    let of_column = (0..rows).map(|row| values[row * cols + col]);
                    assert_eq!(sums[col], of_column.clone().map(f64::from).sum::<f64>() + 0.5, "{level}");
                    for (row, value) in of_column.enumerate() {
                        assert_eq!(with_bias[row * cols + col], value + bias[col], "{level}");
                    }
                }
            }
        }
    }
}
