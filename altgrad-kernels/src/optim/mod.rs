//! A step of an optimizer for one variable, in one pass over memory. Values and gradients are `f32`, and results are
//! the same bits on every level and any number of threads.

mod adamw;
mod moment;
mod sgd;
#[cfg(test)]
mod tests;

pub use adamw::{AdamW, adamw};
pub use moment::{BLOCK, Moment};
pub use sgd::{Sgd, sgd};

use crate::element::Scalar;
use crate::level::{Level, for_every_level};
use crate::threads;

/// Elements that a thread takes at a time: whole blocks of moments, and few enough for the second-level cache.
const PART: usize = 1 << 14;

for_every_level! {
    /// Adds the squares of values to sums in lanes.
    fn squares_part = squares_loop, (values: &[f32], sums: &mut [f64; 16]);
}

/// `Σ values[i]²`. It is not finite exactly if a value is not: `f64` holds the squares of all of `f32`.
#[must_use]
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let parts = values.chunks(PART).collect();
    let sums = threads::map(parts, values.len(), |part: &[f32]| {
        let mut sums = [0.0; 16];
        squares_part::<f32>(Level::detect(), part, &mut sums);
        sums.iter().sum::<f64>()
    });
    sums.into_iter().sum()
}

#[inline(always)]
fn squares_loop(values: &[f32], sums: &mut [f64; 16]) {
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*value) * f64::from(*value);
    }
}
