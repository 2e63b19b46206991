//! Attention over the keys and values of a cache: the products of queries and keys, the sum of values under weights,
//! and both with a softmax between, a few queries at a time, so that what lies between stays in the cache.

use std::ops::Range;

use super::lhs::{Lhs, PackedLhs};
use super::matrix::FloatMatrix;
use super::microkernel::{Epilogue, Panel};
use super::output_tile::OutputTile;
use super::panels::{PanelScratch, TokenPanels};
use super::{Dot, MR, NR, RunScaling, tile};
use crate::level::Level;
use crate::memory::Aligned;
use crate::threads;
use crate::transformer::softmax::{softmax, softmax_gradient_in_place};

/// Rows of queries that are computed at a time: their scores of some thousand tokens stay in the second-level cache,
/// and panels are decoded once for all of them.
const ROWS: usize = 8 * MR;

/// Tokens whose values are multiplied at a time: 32 KiB of floats stay in the first-level cache.
const DEPTH: usize = 128;

/// Which tokens a row of queries sees: from the first to before the last, of those that there are.
pub type Visible<'a> = &'a (dyn Fn(usize) -> Range<usize> + Sync);

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    panels: PanelScratch,
    queries: Vec<f32>,
    scores: Vec<f32>,
}

/// Rows of queries of one stream, and their part of the result.
struct Part<'a> {
    stream: usize,
    rows: Range<usize>,
    to: &'a mut [f32],
}

/// The parts of a result `(streams, rows, cols)`. If there are many `queries`, which are those of one head, a part has
/// none of another head: rows that are next to one another see the same tokens.
fn parts(to: &mut [f32], rows: usize, queries: usize, cols: usize) -> Vec<Part<'_>> {
    let unit = if queries >= ROWS { queries } else { rows };
    let pieces = unit.div_ceil(ROWS).max(1);
    let mut parts = Vec::new();
    for (stream, mut rest) in to.chunks_exact_mut((rows * cols).max(1)).enumerate() {
        for first in (0..rows).step_by(unit.max(1)) {
            for piece in 0..pieces {
                let rows = first + piece * unit / pieces..first + (piece + 1) * unit / pieces;
                let (to, after) = rest.split_at_mut(rows.len() * cols);
                parts.push(Part { stream, rows, to });
                rest = after;
            }
        }
    }
    parts
}

/// The products of `rows` queries of each stream, `(streams, rows, dim)`, and the keys in all blocks, each but the last
/// of which is full: `(streams, rows, tokens)`.
pub fn scores(keys: &[TokenPanels], queries: &[f32], rows: usize, to: &mut [f32]) {
    let (level, tokens, dim) = (Level::detect(), tokens(keys), dim(keys));
    let work = to.len().saturating_mul(dim) / 32;
    threads::for_each_with(parts(to, rows, rows, tokens), work, Scratch::default, |scratch, part| {
        let queries = &queries[(part.stream * rows + part.rows.start) * dim..][..part.rows.len() * dim];
        let lhs = PackedLhs::new(
            level,
            &Lhs::Floats(FloatMatrix::new(queries, part.rows.len(), dim)),
            0,
            Dot::Singles,
            false,
        );
        let keys = Stream { level, blocks: keys, number: part.stream };
        keys.scores(&lhs, 0, part.to, tokens, &mut scratch.panels);
    });
}

/// The sums of the values in all blocks, each but the last of which is full, under `rows` lists of weights for each
/// stream, `(streams, rows, tokens)`: `(streams, rows, dim)`.
pub fn mix(values: &[TokenPanels], weights: &[f32], rows: usize, to: &mut [f32]) {
    let (level, tokens, dim) = (Level::detect(), tokens(values), dim(values));
    let work = to.len().saturating_mul(tokens) / 32;
    threads::for_each_with(parts(to, rows, rows, dim), work, Scratch::default, |scratch, part| {
        let weights = &weights[(part.stream * rows + part.rows.start) * tokens..][..part.rows.len() * tokens];
        let weights = FloatMatrix::new(weights, part.rows.len(), tokens);
        let lhs = PackedLhs::new(level, &Lhs::Floats(weights), 0, Dot::Singles, false);
        let values = Stream { level, blocks: values, number: part.stream };
        values.sums(&lhs, 0..tokens, part.to, &mut scratch.panels);
    });
}

/// The sums of values under the softmax of the products of queries, times `scale`, and keys; `visible` says which
/// tokens a row sees, of which there must be one. Queries and result are `(streams, rows, dim)`, where rows are those
/// of one head after another.
///
/// The values of codes are rounded to `f32` before they are multiplied, so the result is that of the values.
pub fn attend(
    keys: &[TokenPanels],
    values: &[TokenPanels],
    queries: &[f32],
    (rows, queries_of_head): (usize, usize),
    scale: f32,
    visible: Visible<'_>,
    to: &mut [f32],
) {
    let level = Level::detect();
    let (key_dim, value_dim) = (dim(keys), dim(values));
    let work = to.len().saturating_mul(2 * tokens(keys)) / 32;
    threads::for_each_with(parts(to, rows, queries_of_head, value_dim), work, Scratch::default, |scratch, part| {
        let Scratch { panels, queries: scaled, scores } = scratch;
        let queries = &queries[(part.stream * rows + part.rows.start) * key_dim..][..part.rows.len() * key_dim];
        scaled.clear();
        scaled.extend(queries.iter().map(|query| query * scale));
        let count = part.rows.len();
        let lhs = PackedLhs::new(level, &Lhs::Floats(FloatMatrix::new(scaled, count, key_dim)), 0, Dot::Singles, false);
        let seen = part.rows.clone().map(visible);
        let all = seen.clone().reduce(|all, next| all.start.min(next.start)..all.end.max(next.end));
        let Some(all) = all else { return };
        let first = all.start / NR * NR;
        let width = (all.end - first).next_multiple_of(NR);
        scores.resize(scores.len().max(count * width), 0.0);
        let scores = &mut scores[..count * width];
        let stream = |blocks| Stream { level, blocks, number: part.stream };
        stream(keys).scores(&lhs, first, scores, width, panels);
        for (row, seen) in scores.chunks_exact_mut(width).zip(seen) {
            let (before, rest) = row.split_at_mut(seen.start - first);
            let (row, after) = rest.split_at_mut(seen.len());
            before.fill(0.0);
            after.fill(0.0);
            softmax::<f32>(level, row);
        }
        let lhs = PackedLhs::new(level, &Lhs::Floats(FloatMatrix::new(scores, count, width)), 0, Dot::Singles, false);
        stream(values).sums(&lhs, first..all.end, part.to, panels);
    });
}

/// What [`attend_gradients`] multiplies by: keys and values, each in both roles.
#[derive(Clone, Copy, Debug)]
pub struct AttentionOperands<'a> {
    /// Keys.
    pub keys: &'a TokenPanels,
    /// Keys in the role of values.
    pub keys_to_sum: &'a TokenPanels,
    /// Values in the role of keys.
    pub values: &'a TokenPanels,
    /// Queries `(streams, rows, dim)`.
    pub queries: &'a [f32],
    /// The gradient of the result `(streams, rows, dim)`.
    pub dy: &'a [f32],
}

/// The gradients of queries `(streams, rows, dim)`, keys and values `(streams, tokens, dim)` of [`attend`].
///
/// The weights are computed again, some rows at a time. The sums over rows that keys and values get are those of one
/// thread, in the order of the rows.
pub fn attend_gradients(
    operands: AttentionOperands<'_>,
    (rows, queries_of_head): (usize, usize),
    scale: f32,
    visible: Visible<'_>,
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    let level = Level::detect();
    let AttentionOperands { keys, values, .. } = operands;
    let (tokens, key_dim, value_dim) = (keys.len(), keys.dim(), values.dim());
    let work = dq.len().saturating_mul(8 * tokens) / 32;
    let of_streams = |to: usize| (tokens * to).max(1);
    let gradients = dk.chunks_mut(of_streams(key_dim)).zip(dv.chunks_mut(of_streams(value_dim)));
    let streams = dq.chunks_mut((rows * key_dim).max(1)).zip(gradients).enumerate().collect();
    threads::for_each_with(streams, work, GradientScratch::default, |scratch, (stream, (dq, (dk, dv)))| {
        dk.fill(0.0);
        dv.fill(0.0);
        for part in parts(dq, rows, queries_of_head, key_dim) {
            let part = Part { stream, ..part };
            part_gradients(level, operands, rows, scale, visible, part, [&mut *dk, &mut *dv], scratch);
        }
    });
}

/// Buffers of a thread.
#[derive(Default)]
struct GradientScratch {
    panels: PanelScratch,
    scaled: Vec<f32>,
    weights: Vec<f32>,
    gradients: Vec<f32>,
    panel: Aligned<[u32; NR]>,
}

/// Computes the gradients of some rows, and adds those of keys and values to sums.
#[allow(clippy::too_many_arguments, reason = "they are those of a loop's body")]
fn part_gradients(
    level: Level,
    operands: AttentionOperands<'_>,
    rows: usize,
    scale: f32,
    visible: Visible<'_>,
    part: Part<'_>,
    [dk, dv]: [&mut [f32]; 2],
    scratch: &mut GradientScratch,
) {
    let AttentionOperands { keys, keys_to_sum, values, .. } = operands;
    let GradientScratch { panels, scaled, weights, gradients, panel } = scratch;
    let Part { stream, rows: own, to: dq } = part;
    let count = own.len();
    let seen = own.clone().map(visible);
    let all = seen.clone().reduce(|all, next| all.start.min(next.start)..all.end.max(next.end));
    let Some(all) = all else { return };
    let range = |dim: usize| (stream * rows + own.start) * dim..(stream * rows + own.end) * dim;
    let (queries, dy) = (&operands.queries[range(keys.dim())], &operands.dy[range(values.dim())]);
    scaled.clear();
    scaled.extend(queries.iter().map(|query| query * scale));

    let first = all.start / NR * NR;
    let width = (all.end - first).next_multiple_of(NR);
    for buffer in [&mut *weights, gradients] {
        buffer.resize(buffer.len().max(count * width), 0.0);
    }
    let (weights, gradients) = (&mut weights[..count * width], &mut gradients[..count * width]);
    let packed = |matrix: FloatMatrix<'_>| PackedLhs::new(level, &Lhs::Floats(matrix), 0, Dot::Singles, false);
    let stream = |panels| Stream { level, blocks: std::slice::from_ref(panels), number: stream };
    stream(keys).scores(&packed(FloatMatrix::new(scaled, count, keys.dim())), first, weights, width, panels);
    stream(values).scores(&packed(FloatMatrix::new(dy, count, values.dim())), first, gradients, width, panels);
    let lines = weights.chunks_exact_mut(width).zip(gradients.chunks_exact_mut(width));
    for ((weights, gradients), seen) in lines.zip(seen) {
        let seen = seen.start - first..seen.end - first;
        for row in [&mut *weights, gradients] {
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
        }
        if !seen.is_empty() {
            softmax::<f32>(level, &mut weights[seen.clone()]);
            softmax_gradient_in_place::<f32>(level, &weights[seen.clone()], &mut gradients[seen]);
        }
    }

    stream(keys_to_sum).sums(&packed(FloatMatrix::new(gradients, count, width)), first..all.end, dq, panels);
    for dq in dq {
        *dq *= scale;
    }
    for (weights, rows, dim, sums) in [(gradients, &scaled[..], keys.dim(), dk), (weights, dy, values.dim(), dv)] {
        let lhs = packed(FloatMatrix::new(weights, count, width).transposed());
        let sums = &mut sums[first * dim..(first + width).min(keys.len()) * dim];
        let tokens = sums.len() / dim.max(1);
        for mut output_tile in OutputTile::divide(sums, dim, &[0, tokens], NR) {
            let cols = output_tile.cols();
            let panel = panel.at_least(count);
            for (to, row) in panel.iter_mut().zip(rows.chunks_exact(dim)) {
                *to = [0; NR];
                for (to, value) in to.iter_mut().zip(&row[cols.clone()]) {
                    *to = value.to_bits();
                }
            }
            multiply(level, &lhs, 0, panel, true, &mut output_tile);
        }
    }
}

fn tokens(blocks: &[TokenPanels]) -> usize {
    blocks.iter().map(TokenPanels::len).sum()
}

/// Elements of a row.
fn dim(blocks: &[TokenPanels]) -> usize {
    blocks.first().map_or(0, TokenPanels::dim)
}

/// The keys or values of one stream.
struct Stream<'a> {
    level: Level,
    blocks: &'a [TokenPanels],
    number: usize,
}

impl<'a> Stream<'a> {
    /// The block of a token and its number there.
    fn block_of(&self, token: usize) -> Option<(&'a TokenPanels, usize)> {
        let mut rest = token;
        for block in self.blocks {
            if rest < block.room() {
                return Some((block, rest));
            }
            rest -= block.room();
        }
        None
    }

    /// Computes the products of queries and keys from number `first` on, a multiple of [`NR`]: rows of `width`.
    fn scores(&self, queries: &PackedLhs, first: usize, to: &mut [f32], width: usize, scratch: &mut PanelScratch) {
        for mut output_tile in OutputTile::divide(to, width, &[0, queries.rows()], NR) {
            let Some((block, token)) = self.block_of(first + output_tile.cols().start) else { return };
            let panel = block.keys(self.level, self.number, token, scratch);
            multiply(self.level, queries, 0, panel, false, &mut output_tile);
        }
    }

    /// Computes the sums of the values of `tokens`, which start at a multiple of [`NR`], under weights.
    fn sums(&self, weights: &PackedLhs, tokens: Range<usize>, to: &mut [f32], scratch: &mut PanelScratch) {
        for mut output_tile in OutputTile::divide(to, dim(self.blocks), &[0, weights.rows()], NR) {
            let element = output_tile.cols().start;
            let mut token = tokens.start;
            while token < tokens.end {
                let Some((block, start)) = self.block_of(token) else { return };
                let end = (start + DEPTH).min(block.room()).min(start + tokens.end - token);
                let panel = block.values(self.level, self.number, element, start..end, scratch);
                let first = token - tokens.start;
                multiply(self.level, weights, first, panel, first > 0, &mut output_tile);
                token += end - start;
            }
        }
    }
}

/// Multiplies the indices of `lhs` from number `first` on by those of a panel.
fn multiply(
    level: Level,
    lhs: &PackedLhs,
    first: usize,
    panel: &Panel,
    accumulate: bool,
    output_tile: &mut OutputTile<'_>,
) {
    let cols = &[1.0; NR];
    let epilogue = Epilogue { scaling: RunScaling::Done, rows: &[], cols, factor: 1.0, accumulate };
    for ends in lhs.cuts().windows(2) {
        let rows = ends[0]..ends[1];
        let dwords = lhs.tile(rows.clone(), first..first + panel.len());
        tile::tile(level, Dot::Singles, dwords, tile::Columns::Decoded(panel), &epilogue, rows, output_tile);
    }
}
