//! The dialect of NVIDIA ModelOpt: `weight_scale`, and an algorithm for the model or for each layer.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::facts::{Facts, Holds, Name, Names, Write};
use super::pair::{Pairing, present};
use super::tensors::DialectTensors;
use super::tensors::layer_of;
use crate::checkpoint::config::{Configs, Section, is_listed};
use crate::checkpoint::layer_spec::{Inputs, LayerSpec, TensorLayout};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, StoredActivations, format_of, has_blocks_of};
use crate::quantizer::{E8M0Rule, Granularity, Quantizer, ScaleEncoding, Scaling};
use crate::{Error, Fp8, Result};

pub(super) const FACTS: Facts = Facts {
    name: "modelopt",
    methods: &["modelopt"],
    names: Names {
        // The second is that of fused experts.
        scales: &[Name::After("_scale"), Name::Beside("weight_scale")],
        further_scales: &[Name::After("_scale_inv"), Name::Beside("weight_scale_inv")],
        inputs: &[Name::Beside("input_scale")],
        others: &[],
    },
    read,
    write: Some(Write {
        layout,
        config,
        repertoire: "; it has E4M3 weights per 128×128 block alone, per row with inputs per row, per tensor with a \
                     static scale of the input, and per 1×32 block with power-of-two scales and the same for inputs, \
                     rounded up",
    }),
    holds: Holds::LanguageModels,
};

/// What `hf_quant_config.json` says below `quantization`, and `quantization_config` in `config.json` at the top level.
#[derive(Debug, Default, Deserialize)]
struct Config {
    quantization: Option<Algorithms>,
    #[serde(flatten)]
    own: Algorithms,
}

#[derive(Debug, Default, Deserialize)]
struct Algorithms {
    quant_algo: Option<String>,
    group_size: Option<usize>,
    quantized_layers: Option<QuantizedLayers>,
    exclude_modules: Option<Vec<String>>,
    /// The same, as other configurations call it.
    ignore: Option<Vec<String>>,
}

/// The algorithm of each layer; some configurations nest the map once more under its own name.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct QuantizedLayers(BTreeMap<String, Entry>);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Entry {
    Algorithm(Algorithm),
    Layers(BTreeMap<String, Algorithm>),
}

impl QuantizedLayers {
    fn get(&self, path: &str) -> Option<&Algorithm> {
        match self.0.get(path) {
            Some(Entry::Algorithm(algorithm)) => Some(algorithm),
            _ => match self.0.get("quantized_layers")? {
                Entry::Layers(layers) => layers.get(path),
                Entry::Algorithm(_) => None,
            },
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Algorithm {
    quant_algo: String,
    group_size: Option<usize>,
}

/// One scale per tensor, for weights and inputs.
const FP8: &str = "FP8";
/// One scale per output channel, and one per token.
const PER_CHANNEL: &str = "FP8_PER_CHANNEL_PER_TOKEN";
/// Only weights, in blocks.
const BLOCKS: &str = "FP8_PB_WO";
/// The MX format, for weights and inputs.
const MX: &str = "MXFP8";
/// Each layer has its own algorithm.
const MIXED: &str = "MIXED_PRECISION";
/// How the exponents of the scales of inputs are rounded.
const MX_INPUTS: ScaleEncoding = ScaleEncoding::E8M0(E8M0Rule::RoundUp);

/// Other names of [`BLOCKS`]: for a model whose weights were compressed before it was exported, and in other
/// configurations.
const OTHER_BLOCKS: [&str; 3] = ["FP8_PB_REAL", "FP8_PB", "FP8_BLOCK_SCALES"];
/// The side of the blocks that other libraries can compute with.
const BLOCK: usize = 128;
/// The sides that blocks of a checkpoint may have.
const SIDES: [usize; 7] = [BLOCK, 256, 512, 64, 32, 16, 8];
/// The length of the blocks of `MXFP8`.
const MX_BLOCK: usize = 32;

impl Algorithms {
    /// Whether algorithms are given for each layer.
    fn is_by_layer(&self) -> bool {
        self.quantized_layers.as_ref().is_some_and(|layers| !layers.0.is_empty())
    }

    /// The algorithm of a layer, or of the nearest module around it.
    fn of(&self, layer: &str) -> Option<Algorithm> {
        let mut upwards = std::iter::successors(Some(layer), |path| path.rsplit_once('.').map(|(module, _)| module));
        let of_module = upwards.find_map(|path| self.quantized_layers.as_ref()?.get(path)).cloned();
        let of_all = || {
            let quant_algo = self.quant_algo.clone().filter(|algorithm| !algorithm.eq_ignore_ascii_case(MIXED))?;
            Some(Algorithm { quant_algo, group_size: self.group_size })
        };
        of_module.or_else(of_all)
    }
}

/// The more detailed of the two configurations that a checkpoint may have: one with an algorithm for each layer, or
/// else with any algorithm.
fn algorithms(configs: &Configs) -> Result<Algorithms> {
    let parse = |section: &Section| {
        let config = section.parse::<Config>()?;
        Ok::<_, Error>(config.quantization.unwrap_or(config.own))
    };
    let known =
        [&configs.hf_quant, &configs.quantization].into_iter().flatten().map(parse).collect::<Result<Vec<_>>>()?;
    let richness = |algorithms: &Algorithms| (algorithms.is_by_layer(), algorithms.quant_algo.is_some());
    // The first of equals.
    Ok(known.into_iter().rev().max_by_key(richness).unwrap_or_default())
}

/// Whether an algorithm quantizes in blocks.
fn is_blocks(algorithm: &str) -> bool {
    algorithm == BLOCKS || OTHER_BLOCKS.contains(&algorithm)
}

/// Weights with their `weight_scale`.
fn read(shards: &Shards, configs: &Configs) -> Result<DialectTensors> {
    let algorithms = algorithms(configs)?;
    let side_of_blocks = side_of_blocks(shards, &algorithms);
    let describe = |codes: &str, scales: &str| {
        let Some(Algorithm { quant_algo, group_size }) = algorithms.of(layer_of(codes)) else {
            return Err(shards.invalid(codes, "is quantized, but the configuration has no `quant_algo` for it"));
        };
        let side = group_size.filter(|size| *size > 0);
        let rows = |granularity| Quantizer::new(Fp8::E4M3).granularity(granularity).scaling(Scaling::Current);
        let input_scale = present(shards, FACTS.names.inputs_of(codes)).into_iter().next();
        let (block, activations) = match quant_algo.to_ascii_uppercase().as_str() {
            FP8 => (None, input_scale.map(|scale| StoredActivations::Static(Fp8::E4M3, scale))),
            PER_CHANNEL => (None, Some(StoredActivations::Dynamic(rows(Granularity::PerRow)))),
            MX => {
                let cols = side.unwrap_or(MX_BLOCK);
                let inputs = rows(Granularity::PerBlock { rows: 1, cols }).scale_encoding(MX_INPUTS);
                (Some([1, cols]), Some(StoredActivations::Dynamic(inputs)))
            }
            blocks if is_blocks(blocks) => (Some([side.unwrap_or(side_of_blocks); 2]), None),
            other => {
                let blocks = OTHER_BLOCKS.join(", ");
                let why = format!(
                    "is quantized by the algorithm `{other}`, but altgrad reads {FP8}, {PER_CHANNEL}, {BLOCKS}, \
                     {blocks} and {MX}"
                );
                return Err(shards.invalid(codes, why));
            }
        };
        let mut stored = Stored::new(shards, codes, Some(scales), block)?;
        // Fused experts are several layers, each with its own inputs.
        stored.activations = activations.filter(|_| stored.shape.len() == 2);
        Ok(stored)
    };
    let is_plain = |layer: &str| {
        [&algorithms.exclude_modules, &algorithms.ignore].into_iter().any(|list| is_listed(list.as_deref(), layer))
            || algorithms.of(layer).is_none() && algorithms.is_by_layer()
    };
    let pairing =
        Pairing { names: &FACTS.names, is_plain: &is_plain, keeps_full_precision: false, describe: &describe };
    pairing.find(shards)
}

/// The side of blocks that fits all layers with blocks, since the configuration need not give it.
fn side_of_blocks(shards: &Shards, algorithms: &Algorithms) -> usize {
    let has_blocks = |codes: &str| {
        let algorithm = algorithms.of(layer_of(codes)).map(|algorithm| algorithm.quant_algo.to_ascii_uppercase());
        algorithm.is_some_and(|algorithm| is_blocks(&algorithm))
    };
    let shapes: Vec<_> = shards
        .tensors()
        .filter(|(codes, info)| format_of(info.dtype).is_some() && has_blocks(codes))
        .filter_map(|(codes, info)| {
            let scales = FACTS.names.scales_of(codes).iter().find_map(|scales| shards.info(scales))?;
            Some((&info.shape, &scales.shape))
        })
        .collect();
    let is_cut_by = |side: usize| shapes.iter().all(|(codes, scales)| has_blocks_of(codes, scales, [side; 2]));
    SIDES.into_iter().find(|side| is_cut_by(*side)).unwrap_or(BLOCK)
}

/// The layout of a layer, or what of it the dialect cannot express.
fn layout(layer: &LayerSpec) -> Result<TensorLayout, String> {
    let [outputs, _] = layer.linear()?;
    let layout = |shape: &[usize]| layer.layout("weight_scale", shape);
    match (algorithm(layer)?, layer.inputs()?) {
        (FP8, Inputs::Static(scale)) => Ok(layout(&[]).with_input_scale(layer.name("input_scale"), scale, [])),
        (PER_CHANNEL, _) => Ok(layout(&[outputs])),
        (MX, _) => Ok(layout(&layer.grid()).with_exponents()),
        _ => {
            let [rows, cols] = layer.grid();
            Ok(layout(&[rows, 1, cols, 1]))
        }
    }
}

/// The content of `hf_quant_config.json`, from which `quantization_config` in `config.json` is derived.
fn config(layers: &[LayerSpec], full_precision: &[String]) -> Result<Value, String> {
    let algorithms = layers.iter().map(algorithm).collect::<Result<Vec<_>, _>>()?;
    let describe = |algorithm: &str| match algorithm {
        MX => json!({ "quant_algo": algorithm, "group_size": MX_BLOCK }),
        BLOCKS => json!({ "quant_algo": algorithm, "group_size": BLOCK }),
        _ => json!({ "quant_algo": algorithm }),
    };
    let mut quantization = match algorithms.first() {
        Some(first) if algorithms.iter().all(|algorithm| algorithm == first) => describe(first),
        _ => {
            let layers =
                layers.iter().zip(&algorithms).map(|(layer, algorithm)| (layer.path.clone(), describe(algorithm)));
            json!({ "quant_algo": MIXED, "quantized_layers": layers.collect::<Map<_, _>>() })
        }
    };
    quantization["kv_cache_quant_algo"] = Value::Null;
    quantization["exclude_modules"] = json!(full_precision);
    let producer = json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") });
    Ok(json!({ "producer": producer, "quantization": quantization }))
}

/// The same in the form of `config.json`.
pub(super) fn quantization_config(hf_quant_config: &Value) -> Value {
    let mut config = hf_quant_config["quantization"].clone();
    config["quant_method"] = "modelopt".into();
    config["ignore"] = config["exclude_modules"].take();
    config["producer"] = hf_quant_config["producer"].clone();
    if config["quant_algo"] == FP8 {
        let args = json!({ "dynamic": false, "num_bits": 8, "type": "float" });
        let group = json!({ "input_activations": args, "weights": args, "targets": ["Linear"] });
        config["config_groups"] = json!({ "group_0": group });
    }
    if let Some(config) = config.as_object_mut() {
        config.retain(|_, value| !value.is_null());
    }
    config
}

/// The algorithm by which a layer is quantized, or what of it the dialect cannot express.
fn algorithm(layer: &LayerSpec) -> Result<&'static str, String> {
    layer.check_e4m3()?;
    layer.linear()?;
    match (layer.granularity, layer.inputs()?) {
        (Granularity::PerTensor, Inputs::Static(_)) => Ok(FP8),
        (Granularity::PerTensor, _) => {
            Err("one scale a tensor without a static scale of the input; calibrate the model first".to_owned())
        }
        (Granularity::PerRow, Inputs::Dynamic(Granularity::PerRow)) => Ok(PER_CHANNEL),
        (Granularity::PerRow, _) => Err("one scale a row without inputs quantized in rows".to_owned()),
        (Granularity::PerBlock { rows: BLOCK, cols: BLOCK }, Inputs::Full) => Ok(BLOCKS),
        _ if layer.is_mx() && layer.inputs()? == Inputs::Mx(MX_INPUTS) => Ok(MX),
        (granularity, _) => Err(format!("weights {granularity} with such inputs")),
    }
}
