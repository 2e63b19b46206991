//! The model that is trained: a GPT, or the LLaMA of `examples/llama`.

use std::num::NonZeroUsize;

use altgrad::Quantizable;
use altgrad::nn::VarBuilder;
use altgrad_llama::{Family, Llama, Rope, RopeScaling};
use anyhow::{Result, ensure};
use candle_core::Tensor;
use clap::ValueEnum;
use serde::Serialize;

use crate::gpt::Gpt;

/// Tokens are bytes.
pub(crate) const VOCABULARY: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Architecture {
    /// Layer norms, learned positions, and an MLP with GELU, as GPT-2
    Gpt,
    /// RMS norms, rotary embeddings, a gated MLP, and two heads of queries for one of keys and values
    Llama,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) architecture: Architecture,
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) context: usize,
}

impl Config {
    /// Fails if there is no such model.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { width, heads, .. } = *self;
        ensure!(
            width.is_multiple_of(heads),
            "--width {width} cannot be split among --heads {heads}; make the width a multiple of the number of heads"
        );
        let head = width / heads;
        ensure!(
            self.architecture == Architecture::Gpt || head.is_multiple_of(2),
            "--width {width} and --heads {heads} make heads of {head}, but rotary embeddings turn pairs of elements; \
             make the width an even multiple of the number of heads"
        );
        Ok(())
    }

    fn llama(&self) -> altgrad_llama::Config {
        let Self { layers, width, heads, context, .. } = *self;
        altgrad_llama::Config {
            family: Family::Llama,
            hidden_size: width,
            // As many weights as the GPT's MLP has: three matrices of 8/3 of the width for two of 4.
            intermediate_size: (8 * width).div_ceil(3).next_multiple_of(32),
            layers,
            heads,
            kv_heads: if heads.is_multiple_of(2) { heads / 2 } else { heads },
            head_dim: width / heads,
            vocab_size: VOCABULARY,
            rms_norm_eps: 1e-5,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
            max_positions: context,
            tied_head: true,
            attention_bias: (false, false),
            mlp_bias: false,
            window: None::<NonZeroUsize>,
            eos: Vec::new(),
        }
    }
}

#[derive(Quantizable)]
pub(crate) enum Model {
    Gpt(Gpt),
    Llama(Box<Llama>),
}

impl Model {
    pub(crate) fn new(config: &Config, vb: &VarBuilder<'_>) -> candle_core::Result<Self> {
        match config.architecture {
            Architecture::Gpt => Gpt::new(config, vb).map(Self::Gpt),
            Architecture::Llama => Llama::new(&config.llama(), vb).map(|model| Self::Llama(Box::new(model))),
        }
    }

    /// From bytes `(batch, time)` to the logits of the next byte at each position, `(batch, time, VOCABULARY)`.
    pub(crate) fn forward(&self, bytes: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Gpt(model) => model.forward(bytes),
            Self::Llama(model) => model.forward_without_cache(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use altgrad::{Fp8, Quantizable, Recipe};
    use candle_core::{DType, Device, IndexOp, Tensor};
    use candle_nn::{VarBuilder, VarMap};

    use super::{Architecture, Config, Model};

    const ARCHITECTURES: [Architecture; 2] = [Architecture::Gpt, Architecture::Llama];

    fn small(architecture: Architecture) -> anyhow::Result<(Model, VarMap)> {
        let config = Config { architecture, layers: 2, width: 16, heads: 2, context: 8 };
        let variables = VarMap::new();
        let model = Model::new(&config, &VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
        crate::weights::initialize(&variables, &config, 1)?;
        Ok((model, variables))
    }

    /// Each architecture in full precision, by a format and by every recipe that has a name.
    fn cases() -> Vec<(Architecture, Option<Recipe>)> {
        let named = Recipe::NAMED.iter().map(|(_, named)| Some(named()));
        let recipes: Vec<_> = [None, Some(Fp8::E4M3.into())].into_iter().chain(named).collect();
        ARCHITECTURES.iter().flat_map(|of| recipes.iter().map(|recipe| (*of, recipe.clone()))).collect()
    }

    #[test]
    fn gradients_reach_every_variable_by_every_recipe() -> anyhow::Result<()> {
        let bytes = Tensor::new(&[[1u32, 2, 3, 4, 5, 6, 7, 8]], &Device::Cpu)?;
        for (architecture, recipe) in cases() {
            let (mut model, variables) = small(architecture)?;
            if let Some(recipe) = recipe {
                model.quantize(recipe)?;
            }
            let grads = model.forward(&bytes)?.i((.., .., 0))?.sqr()?.sum_all()?.backward()?;
            for (name, var) in altgrad::optim::variables(&variables) {
                let grad = grads.get(&var).ok_or_else(|| anyhow::anyhow!("no gradient reaches {name}"))?;
                anyhow::ensure!(grad.abs()?.sum_all()?.to_scalar::<f32>()? > 0.0, "the gradient of {name} is zero");
            }
        }
        Ok(())
    }

    #[test]
    fn freezing_changes_no_bit_of_the_logits() -> anyhow::Result<()> {
        let bytes = Tensor::new(&[[1u32, 2, 3, 4, 5, 6, 7, 8]], &Device::Cpu)?;
        for (architecture, recipe) in cases() {
            let Some(recipe) = recipe else { continue };
            let (mut model, _) = small(architecture)?;
            model.quantize(recipe)?;
            for _ in 0..2 {
                // What histories remember is part of the model.
                model.forward(&bytes)?;
            }
            model.eval()?;
            let trained = model.forward(&bytes)?.to_vec3::<f32>()?;
            model.freeze()?;
            assert_eq!(model.forward(&bytes)?.to_vec3::<f32>()?, trained);
        }
        Ok(())
    }

    #[test]
    fn nobody_looks_ahead() -> anyhow::Result<()> {
        for architecture in ARCHITECTURES {
            let (model, _) = small(architecture)?;
            let logits = |last: u32| model.forward(&Tensor::new(&[[1u32, 2, 3, last]], &Device::Cpu)?)?.i(0);
            let (a, b) = (logits(4)?.to_vec2::<f32>()?, logits(5)?.to_vec2::<f32>()?);
            assert_eq!(a[..3], b[..3]);
            assert_ne!(a[3], b[3]);
        }
        Ok(())
    }
}
