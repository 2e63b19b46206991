//! Rotary position embedding: pairs of elements of a row, rotated by angles that depend on the row's position.

use super::rows_of_part;
use crate::element::Scalar;
use crate::level::{Level, for_every_level};
use crate::threads;

/// Which elements of a row are a pair, and which way they turn.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Whether pairs are neighbors; otherwise they are half a row apart.
    pub interleaved: bool,
    /// Whether pairs turn back, as gradients do.
    pub inverse: bool,
}

/// The positions of rows that lie one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Positions {
    /// Rows at the same position that follow one another.
    pub repeats: usize,
    /// Positions that follow one another, before they start again.
    pub count: usize,
    /// How often they start again before the next table of angles is for them; 0 if all have one table.
    pub rounds: usize,
}

impl Positions {
    /// The number of the row's angles: tables of `len` rows lie one after the other.
    fn angles(self, row: usize, len: usize) -> usize {
        let round = row / (self.repeats * self.count);
        round.checked_div(self.rounds).unwrap_or(0) * len + row / self.repeats % self.count
    }
}

for_every_level! {
    /// Rotates one row.
    fn rotate_row = rotate_loop, (rotation: Rotation, x: &[f32], cos: &[f32], sin: &[f32], to: &mut [f32]);
}

/// Rotates rows of `dim` elements by the angles of their positions, whose cosines and sines are tables of `len` rows of
/// half as many.
pub fn rotate(
    rotation: Rotation,
    x: &[f32],
    dim: usize,
    (cos, sin, len): (&[f32], &[f32], usize),
    positions: Positions,
    to: &mut [f32],
) {
    let half = dim / 2;
    if half == 0 {
        to.copy_from_slice(x);
        return;
    }
    let rows = rows_of_part(dim);
    let parts = x.chunks(rows * dim).zip(to.chunks_mut(rows * dim)).enumerate().collect();
    threads::for_each(parts, 2 * x.len(), |(number, (x, to)): (usize, (&[f32], &mut [f32]))| {
        let level = Level::detect();
        for (row, (x, to)) in x.chunks_exact(dim).zip(to.chunks_exact_mut(dim)).enumerate() {
            let angles = positions.angles(number * rows + row, len) * half;
            let (cos, sin) = (&cos[angles..][..half], &sin[angles..][..half]);
            rotate_row::<f32>(level, rotation, x, cos, sin, to);
        }
    });
}

#[inline(always)]
fn rotate_loop(rotation: Rotation, x: &[f32], cos: &[f32], sin: &[f32], to: &mut [f32]) {
    let direction = if rotation.inverse { -1.0 } else { 1.0 };
    if rotation.interleaved {
        let (to, _) = to.as_chunks_mut::<2>();
        let (x, _) = x.as_chunks::<2>();
        for (((to, [a, b]), cos), sin) in to.iter_mut().zip(x).zip(cos).zip(sin) {
            let sin = direction * sin;
            *to = [a * cos - b * sin, a * sin + b * cos];
        }
    } else {
        let (a, b) = x.split_at(cos.len());
        let (to_a, to_b) = to.split_at_mut(cos.len());
        for (((((to_a, to_b), a), b), cos), sin) in to_a.iter_mut().zip(to_b).zip(a).zip(b).zip(cos).zip(sin) {
            let sin = direction * sin;
            *to_a = a * cos - b * sin;
            *to_b = a * sin + b * cos;
        }
    }
}
