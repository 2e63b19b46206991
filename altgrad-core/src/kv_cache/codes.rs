//! Rows of codes in blocks of tokens, and products with them.

use altgrad_kernels::{self as kernels, Blocks, CodeMatrix, FloatMatrix, Lhs, Rhs};

use super::values::room;
use crate::{Fp8, Result};

/// The codes of rows: for each stream, which is a head of a sequence, one row per token.
#[derive(Clone, Debug)]
pub(super) struct CodeBlocks {
    format: Fp8,
    streams: usize,
    dim: usize,
    blocks: Vec<CodeBlock>,
}

/// Some consecutive tokens. Memory that no token uses yet was never written to.
#[derive(Clone, Debug)]
struct CodeBlock {
    /// Tokens that there are, and that there is room for.
    len: usize,
    room: usize,
    /// `(streams, room, dim)`.
    codes: Vec<u8>,
    /// `(streams, room)`.
    scales: Vec<f32>,
}

impl CodeBlocks {
    pub(super) fn new(format: Fp8, streams: usize, dim: usize) -> Self {
        Self { format, streams, dim, blocks: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.streams * self.len() * (self.dim + size_of::<f32>())
    }

    pub(super) fn truncate(&mut self, len: usize) {
        let mut rest = len;
        for block in &mut self.blocks {
            block.len = block.len.min(rest);
            rest -= block.len;
        }
        self.blocks.retain(|block| block.len > 0);
    }

    /// Appends codes `(streams, tokens, dim)` under scales `(streams, tokens)`.
    pub(super) fn append(&mut self, codes: &[u8], scales: &[f32], tokens: usize) {
        let Self { streams, dim, .. } = *self;
        let mut first = 0;
        while first < tokens {
            if self.blocks.last().is_none_or(|block| block.len == block.room) {
                let room = room(self.len(), tokens - first);
                let (codes, scales) = (kernels::zeroed(streams * room * dim), kernels::zeroed(streams * room));
                self.blocks.push(CodeBlock { len: 0, room, codes, scales });
            }
            let Some(block) = self.blocks.last_mut() else { return };
            let count = (block.room - block.len).min(tokens - first);
            for stream in 0..streams {
                let (from, to) = (stream * tokens + first, stream * block.room + block.len);
                block.codes[to * dim..(to + count) * dim].copy_from_slice(&codes[from * dim..(from + count) * dim]);
                block.scales[to..to + count].copy_from_slice(&scales[from..from + count]);
            }
            block.len += count;
            first += count;
        }
    }

    /// The products of `rows` queries for each stream, `(streams, rows, dim)`, and all rows: `(streams, rows, len)`.
    pub(super) fn scores(&self, queries: &[f32], rows: usize, to: &mut [f32]) {
        let (len, dim) = (self.len(), self.dim);
        let mut part = Vec::new();
        let mut first = 0;
        for block in &self.blocks {
            for (stream, to) in to.chunks_exact_mut((rows * len).max(1)).enumerate() {
                let lhs = Lhs::Floats(FloatMatrix::new(&queries[stream * rows * dim..][..rows * dim], rows, dim));
                let (codes, scales) = block.of(stream, dim);
                let blocks = Blocks::per_row(block.len, dim);
                let rhs = Rhs::Codes(CodeMatrix::new(codes, self.format, blocks, scales));
                if block.len == len {
                    kernels::multiply(&lhs, &rhs, to);
                    continue;
                }
                part.resize(rows * block.len, 0.0);
                kernels::multiply(&lhs, &rhs, &mut part);
                for (to, part) in to.chunks_exact_mut(len).zip(part.chunks_exact(block.len)) {
                    to[first..first + block.len].copy_from_slice(part);
                }
            }
            first += block.len;
        }
    }

    /// The sums of all rows under `rows` lists of weights for each stream, `(streams, rows, len)`: `(streams, rows,
    /// dim)`.
    pub(super) fn mix(&self, weights: &[f32], rows: usize, to: &mut [f32]) {
        let (len, dim) = (self.len(), self.dim);
        let (mut of_codes, mut part) = (Vec::new(), vec![0.0; rows * dim]);
        let mut first = 0;
        for block in &self.blocks {
            for (stream, to) in to.chunks_exact_mut((rows * dim).max(1)).enumerate() {
                let (codes, scales) = block.of(stream, dim);
                // A scale belongs to an index of the sum, so the weights take it.
                of_codes.clear();
                for weights in weights[stream * rows * len..][..rows * len].chunks_exact(len) {
                    let weights = &weights[first..first + block.len];
                    of_codes.extend(weights.iter().zip(scales).map(|(weight, scale)| weight * scale));
                }
                let lhs = Lhs::Floats(FloatMatrix::new(&of_codes, rows, block.len));
                let blocks = Blocks::per_tensor(block.len, dim);
                let rhs = Rhs::Codes(CodeMatrix::new(codes, self.format, blocks, &[1.0]).transposed());
                if first == 0 {
                    kernels::multiply(&lhs, &rhs, to);
                } else {
                    kernels::multiply(&lhs, &rhs, &mut part);
                    to.iter_mut().zip(&part).for_each(|(to, part)| *to += part);
                }
            }
            first += block.len;
        }
    }

    /// The values of all rows, `(streams, len, dim)`.
    pub(super) fn values(&self) -> Result<Vec<f32>> {
        let (len, dim) = (self.len(), self.dim);
        let mut values = kernels::zeroed(self.streams * len * dim);
        for (stream, values) in values.chunks_exact_mut((len * dim).max(1)).enumerate() {
            let mut rest = values;
            for block in &self.blocks {
                let (of_block, after) = rest.split_at_mut(block.len * dim);
                let (codes, scales) = block.of(stream, dim);
                kernels::decode_with(codes, of_block, self.format, Blocks::per_row(block.len, dim), scales)?;
                rest = after;
            }
        }
        Ok(values)
    }
}

impl CodeBlock {
    /// The codes and scales of a stream.
    fn of(&self, stream: usize, dim: usize) -> (&[u8], &[f32]) {
        let first = stream * self.room;
        (&self.codes[first * dim..(first + self.len) * dim], &self.scales[first..first + self.len])
    }
}
