//! The keys and values of the tokens that an attention layer has seen, in FP8 or in full precision.

mod mask;
mod panels;
mod rows;
mod values;

use altgrad_kernels::Role;
use candle_core::Tensor;

use crate::quantizer::Quantizer;
use crate::slot::OrFull;
use crate::{Fp8, Result};
pub use mask::Mask;
use rows::{Encoding, Rows};

/// The keys and values of the tokens that an attention layer has seen.
///
/// Attention appends those of new tokens and [attends](Self::attend) to all: it sums the values under the softmax of
/// the products of queries and keys, with nothing of that size in memory between. Attention of another kind computes
/// the two products on their own, [`scores`](Self::scores) and [`mix`](Self::mix). A head of queries belongs to the head
/// of keys and values whose number is its own divided by the number of query heads per key head, as in grouped-query
/// attention; the keys are not repeated for it. What is appended is copied; what is there stays where it is, whatever
/// the cache grows to.
///
/// On the CPU, a quantized cache of `f32`, `f16` or `bf16` tensors holds one byte per element and a scale per token and
/// head, and the products read the codes. Elsewhere, and for `f64`, it holds the values that the codes stand for.
/// Gradients do not pass: the cache is for generation.
///
/// ```
/// use altgrad::{Fp8, KvCache, Mask};
/// use candle_core::{Device, Tensor};
///
/// let mut cache = KvCache::new(Fp8::E4M3)?;
/// for tokens in [5, 1, 1] {
///     // Of one sequence: four heads of queries share two of keys and values.
///     let queries = Tensor::randn(0f32, 1.0, (1, 4, tokens, 64), &Device::Cpu)?;
///     let keys = Tensor::randn(0f32, 1.0, (1, 2, tokens, 64), &Device::Cpu)?;
///     let values = Tensor::randn(0f32, 1.0, (1, 2, tokens, 64), &Device::Cpu)?;
///     cache.append(&keys, &values)?;
///     let y = cache.attend(&queries, 1.0 / 8.0, Mask::Causal)?;
///     assert_eq!(y.dims(), [1, 4, tokens, 64]);
/// }
/// assert_eq!(cache.len(), 7);
/// assert_eq!(cache.bytes(), 2 * 7 * 2 * (64 + 4));
/// # Ok::<(), altgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KvCache {
    keys: Rows,
    values: Rows,
}

impl KvCache {
    /// An empty cache that quantizes keys and values by a format or quantizer, each token and head under its own scale,
    /// or under the one scale of [`Scaling::Static`](crate::Scaling::Static).
    ///
    /// # Errors
    ///
    /// An invalid quantizer; one that needs earlier steps or rounds stochastically, since a token is quantized once; or
    /// blocks that are not parts of a row.
    pub fn new(quantizer: impl Into<OrFull<Quantizer>>) -> Result<Self> {
        let encoding = match quantizer.into().0 {
            Some(quantizer) => Encoding::dynamic(quantizer)?,
            None => Encoding::Full,
        };
        Ok(Self::of(encoding.clone(), encoding))
    }

    /// An empty cache in full precision.
    #[must_use]
    pub fn full_precision() -> Self {
        Self::of(Encoding::Full, Encoding::Full)
    }

    /// An empty cache that quantizes keys and values under scales that were calibrated: one for all heads, or one per
    /// head, as [`Checkpoint::kv_scales`](crate::checkpoint::Checkpoint::kv_scales) gives them.
    ///
    /// # Errors
    ///
    /// No scale, or one that is not a positive finite number.
    pub fn with_scales(format: Fp8, keys: &[f32], values: &[f32]) -> Result<Self> {
        Ok(Self::of(Encoding::fixed(format, keys, "keys")?, Encoding::fixed(format, values, "values")?))
    }

    fn of(keys: Encoding, values: Encoding) -> Self {
        Self { keys: Rows::new(Role::Keys, keys), values: Rows::new(Role::Values, values) }
    }

    /// Appends the keys and values of tokens, both `(batch, heads, tokens, head size)`.
    ///
    /// # Errors
    ///
    /// Tensors that differ in batch, heads or tokens from one another, or in anything but tokens from what is there;
    /// another number of heads than there are scales; values that are not finite in a format without NaN. Then the
    /// cache is as it was.
    pub fn append(&mut self, keys: &Tensor, values: &Tensor) -> Result<()> {
        self.keys.check(keys)?;
        self.values.check(values)?;
        rows::check_alike(keys, values)?;
        let before = self.len();
        self.keys.append(keys)?;
        self.values.append(values).inspect_err(|_| self.keys.truncate(before))
    }

    /// The sums of the values under the softmax of the products of queries and keys, times `scale`. Takes queries
    /// `(batch, query heads, queries, head size)` of the last tokens, and gives as many rows of values.
    ///
    /// In `f32`, an output is within `(2⁻¹⁸ + 4·t·2⁻²⁴ + 8·d·2⁻²⁴·s)·Σ p·|v|` of that of the values that the codes
    /// stand for, with `t` tokens of weight `p`, a head size of `d`, and `s` the largest `scale·Σ|q||k|`.
    ///
    /// # Errors
    ///
    /// Another batch, head size, dtype or device than the keys have, a number of heads that is not a multiple of
    /// theirs, more queries than tokens under a mask, or an empty cache.
    pub fn attend(&self, queries: &Tensor, scale: f64, mask: Mask) -> Result<Tensor> {
        self.keys.attend(&self.values, queries, scale, mask)
    }

    /// The products of queries `(batch, query heads, queries, head size)` and all keys: `(batch, query heads, queries,
    /// tokens)`. Neither scaled nor masked.
    ///
    /// # Errors
    ///
    /// Another batch, head size, dtype or device than the keys have, a number of heads that is not a multiple of
    /// theirs, or an empty cache.
    pub fn scores(&self, queries: &Tensor) -> Result<Tensor> {
        self.keys.scores(queries)
    }

    /// The sums of all values under weights `(batch, query heads, queries, tokens)`: `(batch, query heads, queries,
    /// head size)`.
    ///
    /// # Errors
    ///
    /// Another batch, number of tokens, dtype or device than the values have, a number of heads that is not a multiple
    /// of theirs, or an empty cache.
    pub fn mix(&self, weights: &Tensor) -> Result<Tensor> {
        self.values.mix(weights)
    }

    /// The keys of all tokens, `(batch, heads, tokens, head size)`, with the values that their codes stand for.
    ///
    /// # Errors
    ///
    /// An empty cache, which has no shape.
    pub fn keys(&self) -> Result<Tensor> {
        self.keys.tensor()
    }

    /// The values of all tokens, as [`keys`](Self::keys).
    ///
    /// # Errors
    ///
    /// An empty cache, which has no shape.
    pub fn values(&self) -> Result<Tensor> {
        self.values.tensor()
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all tokens but the first `len`. With 0 the cache takes tensors of any shape again.
    pub fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
        self.values.truncate(len);
    }

    /// Bytes of the codes and scales, or of the values, of the tokens that are there.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }
}
