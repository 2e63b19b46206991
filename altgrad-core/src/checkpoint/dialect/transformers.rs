//! The dialect of transformers' `FineGrainedFP8Config` and of DeepSeek: `weight_scale_inv`, which multiplies like any scale.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{beside, pair};
use crate::Result;
use crate::checkpoint::config::Section;
use crate::checkpoint::outline::{Inputs, Outline, Spelling};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Activations, Stored, granularity_of};
use crate::format::Fp8;
use crate::quantizer::{Granularity, Quantizer, Scaling};

/// What `quantization_config` says (transformers, `FineGrainedFP8Config`).
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Config {
    activation_scheme: Scheme,
    weight_block_size: Option<[usize; 2]>,
}

/// What static scales of inputs are called: by transformers, by vLLM's `fp8`, and in Mistral's own files.
const INPUT_SCALES: [&str; 3] = ["activation_scale", "input_scale", "qscale_act"];

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Dynamic,
    Static,
}

impl Default for Config {
    /// The blocks of DeepSeek-V3, whose first checkpoints came without a configuration.
    fn default() -> Self {
        Self { activation_scheme: Scheme::Dynamic, weight_block_size: Some([128, 128]) }
    }
}

/// Weights with their `weight_scale_inv`, or what later checkpoints call it.
pub(super) fn read(shards: &Shards, section: Option<&Section>) -> Result<BTreeMap<String, Stored>> {
    let config = section.map(Section::parse::<Config>).transpose()?.unwrap_or_default();
    let scales_of = |codes: &str| {
        let mut names = vec![format!("{codes}_scale_inv")];
        if codes.ends_with("weight") {
            // DeepSeek-V4, Mistral Large 4, and the embeddings of `FP8Embedding`.
            names.extend(["scale", "qscale_weight", "weight_scale"].map(|name| beside(codes, name)));
        }
        names
    };
    pair(shards, scales_of, |codes, scales| {
        let shape = |name| shards.info(name).map_or(&[][..], |info| &info.shape);
        let (grid, shape) = (shape(scales), shape(codes));
        // Experts may be cut otherwise than the configuration says of linear layers.
        let is_configured =
            config.weight_block_size.is_some_and(|block| granularity_of(shape, grid, Some(block)).is_some());
        let block = if is_configured { config.weight_block_size } else { block_of_grid(shape, grid) };
        let mut stored = Stored::new(shards, codes, Some(scales), block)?;
        // Fused experts have as many static scales as inputs, which are those of no single layer.
        let is_fused = shape.len() != 2 && config.activation_scheme == Scheme::Static;
        if section.is_some() && !is_fused {
            stored.activations = Some(activations(shards, &stored, &config)?);
        }
        Ok(stored)
    })
}

/// The size of the blocks that cut each of several matrices evenly into as many as it has scales.
fn block_of_grid(shape: &[usize], grid: &[usize]) -> Option<[usize; 2]> {
    let (&[matrices, rows, cols], &[grids, grid_rows, grid_cols]) = (shape, grid) else { return None };
    let side = |size: usize, parts: usize| (parts > 0 && size.is_multiple_of(parts)).then(|| size / parts);
    if matrices == grids { Some([side(rows, grid_rows)?, side(cols, grid_cols)?]) } else { None }
}

/// The quantizer of a layer's input: the kernels of transformers quantize it in rows as wide as the blocks of weights, or in
/// whole rows.
fn activations(shards: &Shards, stored: &Stored, config: &Config) -> Result<Activations> {
    if config.activation_scheme == Scheme::Static {
        let names = INPUT_SCALES.map(|name| beside(&stored.codes, name));
        let scale = names.iter().find(|name| shards.contains(name)).ok_or_else(|| {
            let names = names.each_ref().map(|name| format!("`{name}`")).join(", ");
            shards.invalid(&stored.codes, format!("has a static activation scheme, but there is none of {names}"))
        })?;
        return Ok(Activations::Static(Fp8::E4M3, scale.clone()));
    }
    let granularity = match (stored.granularity, config.weight_block_size) {
        (Granularity::PerBlock { .. }, Some([_, cols])) => Granularity::PerBlock { rows: 1, cols },
        _ => Granularity::PerRow,
    };
    Ok(Activations::Dynamic(Quantizer::new(Fp8::E4M3).granularity(granularity).scaling(Scaling::Current)))
}

/// The spelling of a layer, or what of it the dialect cannot say.
pub(super) fn spell(layer: &Outline) -> Result<Spelling, String> {
    layer.check_e4m3()?;
    layer.check_linear()?;
    let (shape, inputs) = match layer.granularity {
        Granularity::PerTensor => (Vec::new(), Granularity::PerRow),
        Granularity::PerBlock { cols, .. } => (layer.grid().to_vec(), Granularity::PerBlock { rows: 1, cols }),
        Granularity::PerRow => return Err("one scale a row".to_owned()),
    };
    let spelling = layer.spell("weight_scale_inv", shape);
    match layer.inputs()? {
        Inputs::Static(scale) => Ok(spelling.with_input_scale(layer.name("activation_scale"), scale, [])),
        Inputs::Dynamic(granularity) if granularity == inputs => Ok(spelling),
        Inputs::Full => Err("inputs in full precision".to_owned()),
        Inputs::Dynamic(_) | Inputs::Mx(_) => Err(format!(
            "inputs quantized otherwise than {inputs} with scales in f32, with weights {}",
            layer.granularity
        )),
    }
}

/// What `quantization_config` says: one block size and one scheme for all layers, or why there is none.
pub(super) fn config(layers: &[Outline], full_precision: &[String]) -> Result<Value, String> {
    let settings = |layer: &Outline| {
        let block = match layer.granularity {
            Granularity::PerBlock { rows, cols } => Some([rows, cols]),
            _ => None,
        };
        (block, matches!(layer.inputs(), Ok(Inputs::Static(_))))
    };
    let first = layers.first().map(settings);
    if let Some(other) = layers.iter().find(|layer| Some(settings(layer)) != first) {
        let (one, other) = (&layers[0].path, &other.path);
        return Err(format!("two ways to quantize: layers `{one}` and `{other}` differ, but it has one for all"));
    }
    let (block, is_static) = first.unwrap_or_default();
    Ok(json!({
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": if is_static { "static" } else { "dynamic" },
        "weight_block_size": block,
        "modules_to_not_convert": full_precision,
    }))
}
