//! The dialect of transformers' `FineGrainedFP8Config` and of DeepSeek: `weight_scale_inv`, which multiplies like any
//! scale.

use serde::Deserialize;
use serde_json::{Value, json};

use super::facts::{Facts, Holds, Name, Names, Write};
use super::pair::{Pairing, input_scale};
use super::tensors::DialectTensors;
use crate::checkpoint::config::{Configs, Section, is_listed};
use crate::checkpoint::layer_spec::{Inputs, LayerSpec, TensorLayout};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, StoredActivations};
use crate::quantizer::{Granularity, Quantizer, Scaling};
use crate::{Fp8, Result};

pub(super) const FACTS: Facts = Facts {
    name: "transformers",
    methods: &["fp8"],
    names: Names {
        // The second name is DeepSeek-V4's.
        scales: &[Name::After("_scale_inv"), Name::Beside("scale")],
        // Mistral Large 4, the embeddings of `FP8Embedding`, AutoFP8, and embeddings that are split into parts.
        further_scales: &[
            Name::Beside("qscale_weight"),
            Name::Beside("weight_scale"),
            Name::Above("weight_scale_inv"),
            Name::Above("weight_scale"),
        ],
        // In order: transformers, vLLM's `fp8`, Mistral's own files, and AutoFP8.
        inputs: &[
            Name::Beside("activation_scale"),
            Name::Beside("input_scale"),
            Name::Beside("qscale_act"),
            Name::Beside("act_scale"),
        ],
        others: &[],
    },
    read,
    write: Some(Write {
        layout,
        config,
        repertoire: "; it has E4M3 weights per block with inputs per row of a block, as in the recipe `blockwise`, and \
                     E4M3 weights per tensor with inputs per row or under a static scale",
    }),
    holds: Holds::LanguageModels,
};

/// What `quantization_config` says (transformers, `FineGrainedFP8Config`).
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Config {
    activation_scheme: Scheme,
    weight_block_size: Option<[usize; 2]>,
    modules_to_not_convert: Option<Vec<String>>,
    /// The same in vLLM's configurations.
    ignored_layers: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Dynamic,
    Static,
}

impl Default for Config {
    /// The blocks of DeepSeek-V3, whose first checkpoints had no configuration.
    fn default() -> Self {
        Self {
            activation_scheme: Scheme::Dynamic,
            weight_block_size: Some([128, 128]),
            modules_to_not_convert: None,
            ignored_layers: None,
        }
    }
}

/// Weights with their `weight_scale_inv`, or its name in later checkpoints.
fn read(shards: &Shards, configs: &Configs) -> Result<DialectTensors> {
    let section = configs.quantization.as_ref();
    let config = section.map(Section::parse::<Config>).transpose()?.unwrap_or_default();
    let describe = |codes: &str, scales: &str| {
        let block = config.weight_block_size.or_else(|| block_of_projections(shards, codes, scales));
        let mut stored = Stored::new(shards, codes, Some(scales), block)?;
        // Fused experts are several layers, each with a static scale of its own input.
        let is_fused = stored.shape.len() != 2 && config.activation_scheme == Scheme::Static;
        if section.is_some() && !is_fused {
            stored.activations = Some(activations(shards, &stored, &config)?);
        }
        Ok(stored)
    };
    let is_plain = |layer: &str| {
        is_listed(config.modules_to_not_convert.as_deref(), layer) || is_listed(config.ignored_layers.as_deref(), layer)
    };
    let pairing =
        Pairing { names: &FACTS.names, is_plain: &is_plain, keeps_full_precision: false, describe: &describe };
    pairing.find(shards)
}

/// The blocks of fused experts that hold two projections, one above the other, with one scale per projection.
fn block_of_projections(shards: &Shards, codes: &str, scales: &str) -> Option<[usize; 2]> {
    let ([_, rows, cols], [_, 2, 1]) = (&shards.info(codes)?.shape[..], &shards.info(scales)?.shape[..]) else {
        return None;
    };
    (codes.ends_with("gate_up_proj") && rows.is_multiple_of(2)).then_some([rows / 2, *cols])
}

/// The quantizer of a layer's input: the kernels of transformers quantize it in parts of rows as wide as the blocks of
/// weights, or in whole rows.
fn activations(shards: &Shards, stored: &Stored, config: &Config) -> Result<StoredActivations> {
    if config.activation_scheme == Scheme::Static {
        return Ok(StoredActivations::Static(Fp8::E4M3, input_scale(shards, &FACTS.names, &stored.codes)?));
    }
    let granularity = match (stored.granularity, config.weight_block_size) {
        (Granularity::PerBlock { .. }, Some([_, cols])) => Granularity::PerBlock { rows: 1, cols },
        _ => Granularity::PerRow,
    };
    Ok(StoredActivations::Dynamic(Quantizer::new(Fp8::E4M3).granularity(granularity).scaling(Scaling::Current)))
}

/// The layout of a layer, or what of it the dialect cannot express.
fn layout(layer: &LayerSpec) -> Result<TensorLayout, String> {
    layer.check_e4m3()?;
    layer.linear()?;
    let (shape, inputs) = match layer.granularity {
        Granularity::PerTensor => (Vec::new(), Granularity::PerRow),
        Granularity::PerBlock { cols, .. } => (layer.grid().to_vec(), Granularity::PerBlock { rows: 1, cols }),
        Granularity::PerRow | Granularity::PerChannel => return Err("one scale a row".to_owned()),
    };
    let layout = layer.layout("weight_scale_inv", shape);
    match layer.inputs()? {
        Inputs::Static(scale) => Ok(layout.with_input_scale(layer.name("activation_scale"), scale, [])),
        Inputs::Dynamic(granularity) if granularity == inputs => Ok(layout),
        Inputs::Full => Err("inputs in full precision".to_owned()),
        Inputs::Dynamic(_) | Inputs::Mx(_) => Err(format!(
            "inputs quantized otherwise than {inputs} with scales in f32, with weights {}",
            layer.granularity
        )),
    }
}

/// The content of `quantization_config`: one block size and one scheme for all layers, or why that is impossible.
fn config(layers: &[LayerSpec], full_precision: &[String]) -> Result<Value, String> {
    let settings = |layer: &LayerSpec| {
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
