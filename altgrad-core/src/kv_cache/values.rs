//! Rows of values in blocks of tokens, and candle's products with them.

use std::sync::Arc;

use candle_core::Tensor;

use crate::Result;

/// The values of rows, `(batch, heads, tokens, dim)`.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueBlocks {
    blocks: Vec<ValueBlock>,
}

/// Some consecutive tokens: the first `len` of those that there is room for.
#[derive(Clone, Debug)]
struct ValueBlock {
    len: usize,
    values: Tensor,
    /// Held by each clone of the block. Tensors share their memory with their clones, so only a block without clones
    /// may write to it.
    owner: Arc<()>,
}

/// Tokens of a block that follows `len` others, when `tokens` are to be appended: blocks get longer, so that there are
/// few of them.
pub(super) fn room(len: usize, tokens: usize) -> usize {
    len.max(tokens).max(64).next_multiple_of(64)
}

impl ValueBlocks {
    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len).sum()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        let mut rest = len;
        for block in &mut self.blocks {
            block.len = block.len.min(rest);
            rest -= block.len;
        }
        self.blocks.retain(|block| block.len > 0);
    }

    /// Appends values of tokens.
    pub(super) fn append(&mut self, x: &Tensor) -> Result<()> {
        let (batch, heads, tokens, dim) = x.dims4()?;
        let x = x.contiguous()?;
        let before = self.len();
        let appended = (|| {
            let mut first = 0;
            while first < tokens {
                if self.blocks.last().is_none_or(|block| block.values.dims()[2] == block.len) {
                    let room = room(self.len(), tokens - first);
                    let values = Tensor::zeros((batch, heads, room, dim), x.dtype(), x.device())?;
                    self.blocks.push(ValueBlock { len: 0, values, owner: Arc::new(()) });
                }
                let Some(block) = self.blocks.last_mut() else { break };
                let count = (block.values.dims()[2] - block.len).min(tokens - first);
                block.own()?;
                block.values.slice_set(&x.narrow(2, first, count)?.contiguous()?, 2, block.len)?;
                block.len += count;
                first += count;
            }
            Ok(())
        })();
        appended.inspect_err(|_| self.truncate(before))
    }

    /// The products of queries and all rows.
    pub(super) fn scores(&self, queries: &Tensor, heads: usize) -> Result<Tensor> {
        let (batch, query_heads, rows, dim) = queries.dims4()?;
        let queries = queries.contiguous()?.reshape((batch, heads, query_heads / heads * rows, dim))?;
        let parts = self.blocks.iter().map(|block| Ok(queries.matmul(&block.tokens()?.t()?)?));
        let scores = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 3)?;
        Ok(scores.reshape((batch, query_heads, rows, self.len()))?)
    }

    /// The sums of all rows under weights.
    pub(super) fn mix(&self, weights: &Tensor, heads: usize) -> Result<Tensor> {
        let (batch, query_heads, rows, len) = weights.dims4()?;
        let weights = weights.contiguous()?.reshape((batch, heads, query_heads / heads * rows, len))?;
        let mut sums: Option<Tensor> = None;
        let mut first = 0;
        for block in &self.blocks {
            let part = weights.narrow(3, first, block.len)?.contiguous()?.matmul(&block.tokens()?)?;
            sums = Some(match sums {
                Some(sums) => (sums + part)?,
                None => part,
            });
            first += block.len;
        }
        let sums = sums.ok_or_else(|| candle_core::Error::Msg("a cache without blocks".to_owned()))?;
        let dim = sums.dims()[3];
        Ok(sums.reshape((batch, query_heads, rows, dim))?)
    }

    /// All rows.
    pub(super) fn tensor(&self) -> Result<Tensor> {
        let parts = self.blocks.iter().map(ValueBlock::tokens).collect::<Result<Vec<_>>>()?;
        // A copy in any case, which later tokens do not reach.
        Ok(Tensor::cat(&parts, 2)?.force_contiguous()?)
    }
}

impl ValueBlock {
    /// Copies the values if a clone of the block shares them.
    fn own(&mut self) -> Result<()> {
        if Arc::get_mut(&mut self.owner).is_none() {
            (self.values, self.owner) = (self.values.copy()?, Arc::new(()));
        }
        Ok(())
    }

    /// The tokens that there are.
    fn tokens(&self) -> Result<Tensor> {
        Ok(self.values.narrow(2, 0, self.len)?)
    }
}
