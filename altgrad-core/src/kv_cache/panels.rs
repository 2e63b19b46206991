//! Rows in blocks of tokens that the kernels read: codes, or floats in full precision.

use altgrad_kernels::{Role, TokenPanels};

use super::values::room;
use crate::Fp8;
use crate::quantizer::Codes;

/// The rows of tokens: for each stream, which is a head of a sequence, one per token. Every block but the last is full.
#[derive(Clone, Debug)]
pub(super) struct PanelBlocks {
    role: Role,
    /// The format of codes.
    format: Option<Fp8>,
    streams: usize,
    dim: usize,
    blocks: Vec<TokenPanels>,
}

impl PanelBlocks {
    pub(super) fn new(role: Role, format: Option<Fp8>, streams: usize, dim: usize) -> Self {
        Self { role, format, streams, dim, blocks: Vec::new() }
    }

    pub(super) fn blocks(&self) -> &[TokenPanels] {
        &self.blocks
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(TokenPanels::len).sum()
    }

    /// Bytes of the elements and scales of the tokens that there are.
    pub(super) fn bytes(&self) -> usize {
        let of_row = if self.format.is_some() { self.dim + size_of::<f32>() } else { self.dim * size_of::<f32>() };
        self.streams * self.len() * of_row
    }

    pub(super) fn truncate(&mut self, len: usize) {
        let mut rest = len;
        for block in &mut self.blocks {
            block.truncate(rest);
            rest -= block.len();
        }
        self.blocks.retain(|block| !block.is_empty());
    }

    /// Appends codes `(streams, tokens, dim)` with a scale for each row.
    pub(super) fn append_codes(&mut self, codes: &Codes, tokens: usize) {
        let (bytes, scales) = (codes.bytes(), codes.scales());
        self.append(tokens, |block, first| block.append_codes(bytes, scales, tokens, first..tokens));
    }

    /// Appends floats `(streams, tokens, dim)`.
    pub(super) fn append_floats(&mut self, values: &[f32], tokens: usize) {
        self.append(tokens, |block, first| block.append_floats(values, tokens, first..tokens));
    }

    /// Calls `append` with blocks that have room and the first of `tokens` that has none yet; it says how many it took.
    fn append(&mut self, tokens: usize, append: impl Fn(&mut TokenPanels, usize) -> usize) {
        let mut first = 0;
        while first < tokens {
            let is_full = self.blocks.last().is_none_or(|block| block.len() == block.room());
            if is_full {
                let room = room(self.len(), tokens - first);
                self.blocks.push(TokenPanels::new(self.role, self.format, self.streams, self.dim, room));
            }
            let appended = self.blocks.last_mut().map_or(0, |block| append(block, first));
            if appended == 0 {
                return;
            }
            first += appended;
        }
    }

    /// The values of all rows, `(streams, len, dim)`.
    pub(super) fn values(&self) -> Vec<f32> {
        let row = self.len() * self.dim;
        let mut values = altgrad_kernels::zeroed(self.streams * row);
        for (stream, mut rest) in values.chunks_exact_mut(row.max(1)).enumerate() {
            for block in &self.blocks {
                let (of_block, after) = rest.split_at_mut(block.len() * self.dim);
                block.copy_to(stream, of_block);
                rest = after;
            }
        }
        values
    }
}
