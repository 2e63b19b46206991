//! Rows of tokens with all their heads, to heads with the rows of all tokens, and back.

use std::ops::Range;

use super::rows_of_part;
use crate::threads;

/// The shape of tensors `(batch, time, heads · dim)`.
#[derive(Clone, Copy, Debug)]
pub struct TokenRows {
    /// Tokens of a sequence.
    pub time: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Elements of a head.
    pub dim: usize,
}

/// Copies some heads of `from`, which has the shape `rows`, to `to`: `(batch, heads, time, dim)`.
pub fn split_heads(from: &[f32], rows: TokenRows, heads: Range<usize>, to: &mut [f32]) {
    let TokenRows { time, heads: all, dim } = rows;
    let elements = to.len();
    let parts = to.chunks_mut((time * dim).max(1)).enumerate().collect();
    threads::for_each(parts, elements, |(number, to): (usize, &mut [f32])| {
        let (batch, head) = (number / heads.len(), heads.start + number % heads.len());
        for (token, to) in to.chunks_exact_mut(dim).enumerate() {
            to.copy_from_slice(&from[((batch * time + token) * all + head) * dim..][..dim]);
        }
    });
}

/// The other way round: tensors `(batch, heads, time, dim)`, each with its number of heads, to `to`, which has the shape
/// `rows`. The heads of one follow those of the other; where there is no tensor, elements stay as they are.
pub fn merge_heads(from: &[(usize, Option<&[f32]>)], rows: TokenRows, to: &mut [f32]) {
    let TokenRows { time, heads: all, dim } = rows;
    let cols = all * dim;
    if cols == 0 {
        return;
    }
    let (elements, rows) = (to.len(), rows_of_part(cols));
    let parts = to.chunks_mut(rows * cols).enumerate().collect();
    threads::for_each(parts, elements, |(number, to): (usize, &mut [f32])| {
        for (row, to) in (number * rows..).zip(to.chunks_exact_mut(cols)) {
            let (batch, token) = (row / time, row % time);
            let mut rest = to;
            for (heads, from) in from {
                let (to, after) = rest.split_at_mut(heads * dim);
                rest = after;
                let Some(from) = from else { continue };
                for (head, to) in to.chunks_exact_mut(dim).enumerate() {
                    to.copy_from_slice(&from[((batch * heads + head) * time + token) * dim..][..dim]);
                }
            }
        }
    });
}
