//! How well a model predicts a text.

use altgrad::KvCache;
use altgrad::nn::loss::cross_entropy;
use candle_core::{DType, Result, Tensor};

use crate::model::{Llama, Logits};

/// The mean loss of predicting each token but the first from those before it, in nats: the logarithm of perplexity.
/// Takes the numbers of tokens, `(tokens)`, and empty caches.
///
/// # Errors
///
/// Fewer than two tokens, or what [`Llama::forward`] fails on.
pub fn mean_loss(model: &Llama, tokens: &Tensor, caches: &mut [KvCache]) -> Result<f64> {
    let count = tokens.dims1()?;
    if count < 2 {
        candle_core::bail!("nothing can be predicted in a text of {count} tokens");
    }
    let logits = model.forward(&tokens.unsqueeze(0)?, caches, Logits::All)?.squeeze(0)?;
    let logits = logits.narrow(0, 0, count - 1)?.to_dtype(DType::F32)?;
    let loss = cross_entropy(&logits, &tokens.narrow(0, 1, count - 1)?)?;
    Ok(f64::from(loss.to_scalar::<f32>()?))
}
