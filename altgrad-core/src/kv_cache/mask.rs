//! Which tokens a query sees.

use std::num::NonZeroUsize;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use crate::Result;

/// Which tokens of a [`KvCache`](crate::KvCache) a query sees. The queries are those of the last tokens, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mask {
    /// All, whatever tokens the queries belong to.
    All,
    /// Its own token and those before it.
    #[default]
    Causal,
    /// Its own token and those before it, up to this many in all: sliding-window attention.
    Window(NonZeroUsize),
}

impl Mask {
    /// The tokens that query number `query` of `queries` sees, of `tokens`; none if its own token comes before the
    /// first.
    pub(crate) fn visible(self, query: usize, queries: usize, tokens: usize) -> Range<usize> {
        let end = (tokens + query + 1).saturating_sub(queries);
        match self {
            Self::All => 0..tokens,
            Self::Causal => 0..end,
            Self::Window(window) => end.saturating_sub(window.get())..end,
        }
    }

    /// What is added to scores `(…, queries, tokens)`: 0 where a token is visible, -∞ elsewhere.
    pub(crate) fn tensor(self, queries: usize, tokens: usize, dtype: DType, device: &Device) -> Result<Tensor> {
        let row = |query| {
            let visible = self.visible(query, queries, tokens);
            (0..tokens).map(move |token| if visible.contains(&token) { 0f32 } else { f32::NEG_INFINITY })
        };
        let mask: Vec<f32> = (0..queries).flat_map(row).collect();
        Ok(Tensor::from_vec(mask, (queries, tokens), device)?.to_dtype(dtype)?)
    }
}
