//! A `VarBuilder` that quantizes the linear weights that it hands out, for models whose source cannot be changed.

mod request;
mod weights;

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use self::request::Request;
use self::weights::Weights;
use super::config::QuantConfig;
use super::file::invalid;
use super::report::QuantReport;
use super::rulebook::Rulebook;
use crate::Result;
use crate::slot::Recipe;

/// Wraps a `VarBuilder` and fake-quantizes the linear weights that it hands out. A model that declares
/// `candle_nn::Linear`, such as those of candle-transformers, can then be evaluated in any format and trained through
/// the straight-through estimator without changing its source.
///
/// ```
/// use altgrad::{Fp8, QuantConfig, QuantizedVarBuilder};
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap, embedding, linear, seq};
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let quantized = QuantizedVarBuilder::new(vb, QuantConfig::new(Fp8::E4M3).skip("head"))?;
///
/// // Any code that builds a model from a `VarBuilder`.
/// let vb = quantized.builder();
/// let (wte, fc, head) = (vb.pp("wte"), vb.pp("fc"), vb.pp("head"));
/// let model = seq().add(embedding(10, 8, wte)?).add(linear(8, 8, fc)?).add(linear(8, 10, head)?);
/// println!("{}", quantized.report()?);
/// # assert_eq!(quantized.report()?.quantized(), 1);
///
/// // Gradients reach the variables, and the weights that the model holds follow when they are told to.
/// let mut optimizer = AdamW::new_lr(variables.all_vars(), 1e-3)?;
/// let loss = model.forward(&Tensor::new(&[1u32, 2, 3], &Device::Cpu)?)?.sqr()?.mean_all()?;
/// optimizer.backward_step(&loss)?;
/// quantized.requantize()?;
/// # Ok::<(), altgrad::Error>(())
/// ```
///
/// # What is a linear weight
///
/// A matrix whose name ends with `weight`, unless it is an embedding. The layer's path, which rules match and reports
/// name, is the rest of the name, counted from the root of the wrapped builder even if that has a prefix. `candle_nn`'s
/// constructors of linear layers and of embeddings ask for different initializations, which tells them apart. A matrix
/// that is requested by name alone is taken for a linear weight too, unless the last segment of its path is a usual
/// name of an embedding (`wte`, `wpe`, `shared`, or a word such as `emb`, `embed_…` or `position_…`). Such a matrix is
/// reported as [`SkipReason::Embedding`], and is quantized only if a rule with a recipe names it, and not just an
/// ancestor of it.
///
/// In candle-transformers 0.11, nearly all linear layers come from `candle_nn`'s constructors. By name alone, it asks
/// for the linear weights of `deepseek2` (the router), `stella_en_v5`, `blip_text`, `rwkv_v7`, the attention of
/// `stable_diffusion` and the tied head of `modernbert`, and for the embeddings of positions of `whisper`, `voxtral`
/// and `paddleocr_vl` and of tokens of `rwkv_v7`; all of these are recognized correctly, except the projections
/// `…_emb_x` of `rwkv_v7`, which a rule can name. Weights with other names, such as the `in_proj_weight` of `siglip`,
/// `openclip` and `mimi`, and tensors of more dimensions are left unchanged.
///
/// # Ties
///
/// A linear weight that is also handed out as an embedding, or under another name, is subject to the config's
/// [`TiePolicy`](crate::TiePolicy), in whichever order a model asks. Most models do not ask twice to tie their head,
/// but clone the embedding's tensor; such a head is not detected and stays in full precision. Repeating a request
/// returns the same tensor.
///
/// # What it cannot do
///
/// A builder sees weights, not inputs or gradients, so recipes are for weights only. A quantized weight takes its
/// memory twice if the wrapped builder keeps it, as a `VarMap` does. A model that stores a result computed from a
/// weight in the weight's place (a transposed copy in `rwkv_v7`, a concatenation in `stella_en_v5`) does not see the
/// effect of [`requantize`](Self::requantize), just as it would not see an optimizer's steps without altgrad. Gradients
/// pass only through operations that have a backward pass: candle's fused layer norms, RMS norms, softmax and rotary
/// embeddings have none.
///
/// [`SkipReason::Embedding`]: crate::report::SkipReason::Embedding
pub struct QuantizedVarBuilder<'a> {
    builder: VarBuilder<'a>,
    weights: Arc<Weights<'a>>,
}

impl<'a> QuantizedVarBuilder<'a> {
    /// Wraps a builder.
    ///
    /// # Errors
    ///
    /// A malformed pattern, an invalid recipe, or one that quantizes activations or gradients.
    #[allow(clippy::needless_pass_by_value, reason = "models take their builder by value, and so does what wraps it")]
    pub fn new(vb: VarBuilder<'a>, config: impl Into<QuantConfig>) -> Result<Self> {
        let rulebook = Rulebook::new(config.into())?;
        rulebook.config().check()?;
        check_weight_only(rulebook.config())?;
        let weights = Arc::new(Weights::new(&vb, rulebook));
        let backend = Box::new(QuantizingBackend(Arc::clone(&weights)));
        let builder = VarBuilder::from_backend(backend, vb.dtype(), vb.device().clone());
        let prefix = vb.prefix();
        let builder = if prefix.is_empty() { builder } else { builder.set_prefix(prefix) };
        Ok(Self { builder, weights })
    }

    /// The builder to build models from, with the prefix, the dtype and the device of the wrapped one. This
    /// `QuantizedVarBuilder` manages every weight that it hands out, also through builders made from it.
    ///
    /// Besides those of the wrapped builder, it returns errors that name the layer: for a weight that is not finite,
    /// for example.
    #[must_use]
    pub fn builder(&self) -> VarBuilder<'a> {
        self.builder.clone()
    }

    /// What was done to each linear weight that was handed out, in the order in which they were asked for. Call this
    /// when the model is built. The distortion is that of the current weights under the scales of the last
    /// quantization.
    ///
    /// # Errors
    ///
    /// A rule that matches nothing or never applies; or [`ModelError::NoWeights`](crate::ModelError::NoWeights) if no
    /// linear weight was asked for.
    pub fn report(&self) -> Result<QuantReport> {
        self.weights.report()
    }

    /// Quantizes the weights that models hold again, in place. Call this whenever the weights behind the wrapped
    /// builder have changed, that is, after each step of an optimizer; until then, models compute with the old values.
    ///
    /// Each call, and the first quantization of a weight when it is handed out, is one step for the history of its
    /// scaling and for stochastic rounding, like a forward pass of a [`QuantizedLinear`](crate::QuantizedLinear) in
    /// training mode. After an error, all weights and histories are as before, unless a device fails while values are
    /// written.
    ///
    /// # Errors
    ///
    /// A weight that is not finite, or [`ModelError::AlreadyRequantizing`](crate::ModelError::AlreadyRequantizing) if
    /// another thread is requantizing at the same time.
    pub fn requantize(&self) -> Result<()> {
        self.weights.requantize()
    }
}

impl fmt::Debug for QuantizedVarBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.weights.rulebook().config();
        f.debug_struct("QuantizedVarBuilder").field("config", config).finish_non_exhaustive()
    }
}

/// Fails if a recipe is for more than weights.
fn check_weight_only(config: &QuantConfig) -> Result<()> {
    let rules = config.rules.iter().enumerate();
    let rules = rules.map(|(number, rule)| (format!("rules[{number}].recipe"), rule.recipe.as_ref()));
    for (field, recipe) in [("recipe".to_owned(), Some(&config.recipe))].into_iter().chain(rules) {
        for (role, quantizer) in recipe.map(Recipe::quantizers).into_iter().flatten() {
            if role != "weights" && quantizer.is_some() {
                let why = format!(
                    "a VarBuilder hands out weights only and never sees {role}; use `Recipe::weight_only(…)`, or, if \
                     the model's source is yours, derive `Quantizable` for it and declare its layers as \
                     `altgrad::Linear`"
                );
                return Err(invalid(format!("{field}.{role}"), why));
            }
        }
    }
    Ok(())
}

/// The backend of the builder that models get.
struct QuantizingBackend<'a>(Arc<Weights<'a>>);

impl SimpleBackend for QuantizingBackend<'_> {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let (name, device) = (name.to_owned(), device.clone());
        Ok(self.0.get(&Request { name, shape: Some(shape), init, dtype, device })?)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let (name, device) = (name.to_owned(), device.clone());
        Ok(self.0.get(&Request { name, shape: None, init: Init::default(), dtype, device })?)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
