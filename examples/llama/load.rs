//! From a hub folder to a model that is ready to run.

use altgrad::checkpoint::Checkpoint;
use altgrad::{Compute, Fp8, Granularity, KvCache, QuantConfig, Quantizable, TiePolicy};
use altgrad_llama::{Config, Llama, Logits};
use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};

use crate::args::Args;
use crate::memory;

/// A model, and how it keeps keys and values.
pub(crate) struct Loaded {
    pub(crate) model: Llama,
    /// For each block, if they are calibrated, the scales of keys and values.
    empty_caches: Vec<KvCache>,
}

impl Loaded {
    pub(crate) fn new(args: &Args) -> Result<Self> {
        let config = Config::of_folder(&args.model)?;
        let checkpoint = Checkpoint::open(&[&args.model])?;
        let mut model = Llama::new(&config, &checkpoint.var_builder(DType::F32, &Device::Cpu))?;
        if let Some(quantization) = quantization(args)? {
            model.quantize(quantization)?;
            model.freeze()?;
        }
        model.eval()?;
        if args.bf16_activations {
            model.set_compute(Compute::Bf16Activations)?;
        }
        let empty_caches = caches(args.kv_cache, &checkpoint, config.layers)?;
        Ok(Self { model, empty_caches })
    }

    /// Empty caches of all blocks.
    pub(crate) fn caches(&self) -> Vec<KvCache> {
        self.empty_caches.clone()
    }

    /// The logits of tokens that follow those in the caches.
    pub(crate) fn logits(&self, tokens: &[u32], caches: &mut [KvCache], logits: Logits) -> Result<Tensor> {
        self.check(tokens)?;
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        Ok(self.model.forward(&tokens, caches, logits)?)
    }

    /// Fails for tokens that the model does not have, as another model's tokenizer gives them.
    pub(crate) fn check(&self, tokens: &[u32]) -> Result<()> {
        let count = self.model.config().vocab_size;
        match tokens.iter().position(|token| *token as usize >= count) {
            Some(place) => bail!("token {place} is number {}, but the model has {count} tokens", tokens[place]),
            None => Ok(()),
        }
    }

    /// How many layers are in FP8, and what all weights take.
    pub(crate) fn description(&self) -> Result<String> {
        let report = self.model.report()?;
        let is_counted = |path: &str| !(self.model.config().tied_head && path == "lm_head");
        let bytes = report.layers.iter().filter(|layer| is_counted(&layer.path)).map(|layer| layer.bytes_after).sum();
        Ok(format!("{} of {} layers in FP8, {}", report.quantized(), report.layers.len(), memory::megabytes(bytes)))
    }
}

/// What to quantize, and how.
fn quantization(args: &Args) -> Result<Option<QuantConfig>> {
    if let Some(file) = &args.config {
        return Ok(Some(QuantConfig::from_file(file)?));
    }
    let Some(mut recipe) = args.recipe.clone() else { return Ok(None) };
    if recipe == altgrad::Recipe::from(recipe.weights.format) {
        recipe.weights = recipe.weights.granularity(Granularity::PerRow);
    }
    Ok(Some(QuantConfig::new(recipe).ties(TiePolicy::Quantize)))
}

/// An empty cache for each block.
fn caches(format: Option<Fp8>, checkpoint: &Checkpoint, layers: usize) -> Result<Vec<KvCache>> {
    let scales = checkpoint.kv_scales()?;
    let cache = |layer: usize| {
        let Some(format) = format else { return Ok(KvCache::full_precision()) };
        match scales.get(&format!("model.layers.{layer}")) {
            Some(scales) if !scales.keys.is_empty() && !scales.values.is_empty() => {
                Ok(KvCache::with_scales(format, &scales.keys, &scales.values)?)
            }
            _ => Ok(KvCache::new(format)?),
        }
    };
    (0..layers).map(cache).collect()
}
