//! The dialect of compressed-tensors: `weight_scale`, and groups of layers with their schemes in `config.json`.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{beside, layer_of, pair};
use crate::Result;
use crate::checkpoint::config::Section;
use crate::checkpoint::outline::{Inputs, Outline, Spelling};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Activations, Stored};
use crate::format::Fp8;
use crate::quantizer::{E8M0Rule, Granularity, Quantizer, ScaleEncoding, Scaling};

/// The dtype of exponents for scales.
const MX_SCALES: &str = "torch.uint8";
/// How exponents of inputs come about. Its own rule rounds up from 1.9375 on, as no other does; this is the nearest.
const MX_INPUTS: ScaleEncoding = ScaleEncoding::E8M0(E8M0Rule::Floor);

/// What `quantization_config` says (compressed-tensors, `QuantizationConfig`).
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    config_groups: BTreeMap<String, Group>,
}

/// How some layers are quantized (`QuantizationScheme`).
#[derive(Debug, Deserialize)]
struct Group {
    targets: Vec<String>,
    weights: Option<Args>,
    input_activations: Option<Args>,
}

/// How one tensor is quantized (`QuantizationArgs`).
#[derive(Debug, Deserialize)]
struct Args {
    #[serde(default = "eight")]
    num_bits: u32,
    #[serde(rename = "type", default = "int")]
    kind: String,
    strategy: Option<String>,
    #[serde(default = "yes")]
    symmetric: bool,
    #[serde(default)]
    dynamic: Dynamic,
    group_size: Option<i64>,
    block_structure: Option<[usize; 2]>,
    scale_dtype: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Dynamic {
    Always(bool),
    #[allow(dead_code, reason = "a word that is read and refused")]
    Other(String),
}

impl Default for Dynamic {
    fn default() -> Self {
        Self::Always(false)
    }
}

fn eight() -> u32 {
    8
}

fn int() -> String {
    "int".to_owned()
}

fn yes() -> bool {
    true
}

impl Args {
    /// Whether it is what altgrad reads, or why not.
    fn check(&self) -> Result<(), String> {
        if self.num_bits != 8 || !self.kind.eq_ignore_ascii_case("float") {
            return Err(format!("{} bits of type {} are no FP8", self.num_bits, self.kind));
        }
        if !self.symmetric {
            return Err("a zero point is not for FP8".to_owned());
        }
        Ok(())
    }

    /// The size of blocks, where they are neither the tensor nor its rows.
    fn block(&self) -> Option<[usize; 2]> {
        match (self.block_structure, self.group_size) {
            (Some(block), _) => Some(block),
            (None, Some(size)) if size > 0 => Some([1, size as usize]),
            _ => None,
        }
    }

    fn is_mx(&self) -> bool {
        self.scale_dtype.as_deref().is_some_and(|dtype| dtype.ends_with("uint8"))
    }
}

/// Weights with their `weight_scale`.
pub(super) fn read(shards: &Shards, section: Option<&Section>) -> Result<BTreeMap<String, Stored>> {
    let config = section.map(Section::parse::<Config>).transpose()?.unwrap_or_default();
    let groups = Groups::new(&config, section)?;
    pair(
        shards,
        |codes| vec![format!("{codes}_scale")],
        |codes, scales| {
            let group = groups.of(layer_of(codes));
            let weights = group.and_then(|group| group.weights.as_ref());
            if let Some(Err(why)) = weights.map(Args::check) {
                return Err(shards.invalid(codes, format!("is quantized in a way that altgrad does not read: {why}")));
            }
            let mut stored = Stored::new(shards, codes, Some(scales), weights.and_then(Args::block))?;
            stored.activations = match group.and_then(|group| group.input_activations.as_ref()) {
                Some(args) => Some(activations(shards, codes, args)?),
                None => None,
            };
            Ok(stored)
        },
    )
}

/// The groups with their targets, ready to match.
struct Groups<'c> {
    /// Those that name layers, by a regular expression or in full.
    by_name: Vec<(Target, &'c Group)>,
    /// Those that name a class of modules such as `Linear`, which all weights with codes are taken to be of.
    by_class: Vec<&'c Group>,
}

enum Target {
    Name(String),
    Pattern(Regex),
}

impl<'c> Groups<'c> {
    fn new(config: &'c Config, section: Option<&Section>) -> Result<Self> {
        let mut groups = Self { by_name: Vec::new(), by_class: Vec::new() };
        for (name, group) in &config.config_groups {
            for target in &group.targets {
                if let Some(pattern) = target.strip_prefix("re:") {
                    // Python's `re.match` is bound to the beginning alone.
                    let pattern = Regex::new(&format!("^(?:{pattern})")).map_err(|error| {
                        let why = format!("the target `{target}` of `{name}` is no regular expression: {error}");
                        section.map_or_else(
                            || crate::Error::InvalidPattern { pattern: target.clone(), why: why.clone() },
                            |section| section.invalid(&*why),
                        )
                    })?;
                    groups.by_name.push((Target::Pattern(pattern), group));
                } else {
                    groups.by_name.push((Target::Name(target.clone()), group));
                    if !target.contains('.') {
                        groups.by_class.push(group);
                    }
                }
            }
        }
        Ok(groups)
    }

    fn of(&self, layer: &str) -> Option<&'c Group> {
        let named = self.by_name.iter().find(|(target, _)| match target {
            Target::Name(name) => name == layer,
            Target::Pattern(pattern) => pattern.is_match(layer),
        });
        named.map(|(_, group)| *group).or_else(|| self.by_class.first().copied())
    }
}

fn activations(shards: &Shards, codes: &str, args: &Args) -> Result<Activations> {
    args.check().map_err(|why| {
        shards.invalid(codes, format!("has inputs that are quantized in a way that altgrad does not read: {why}"))
    })?;
    match args.dynamic {
        Dynamic::Always(true) => {}
        Dynamic::Always(false) => {
            let scale = beside(codes, "input_scale");
            return if shards.contains(&scale) {
                Ok(Activations::Static(Fp8::E4M3, scale))
            } else {
                Err(shards.invalid(codes, format!("has inputs with a static scale, but there is no `{scale}`")))
            };
        }
        Dynamic::Other(ref word) => {
            return Err(
                shards.invalid(codes, format!("has inputs with `dynamic` `{word}`, which altgrad does not read"))
            );
        }
    }
    let granularity = match (args.strategy.as_deref(), args.block()) {
        (Some("token" | "channel"), _) => Granularity::PerRow,
        (Some("group"), Some([rows, cols])) | (None, Some([rows, cols])) => Granularity::PerBlock { rows, cols },
        (Some("tensor") | None, _) => Granularity::PerTensor,
        (Some(strategy), _) => {
            let why = format!("has inputs quantized by the strategy `{strategy}`, which altgrad does not read");
            return Err(shards.invalid(codes, why));
        }
    };
    let encoding = if args.is_mx() { MX_INPUTS } else { ScaleEncoding::F32 };
    let quantizer = Quantizer::new(Fp8::E4M3).granularity(granularity).scaling(Scaling::Current);
    Ok(Activations::Dynamic(quantizer.scale_encoding(encoding)))
}

/// The spelling of a layer, or what of it the dialect cannot say.
pub(super) fn spell(layer: &Outline) -> Result<Spelling, String> {
    layer.check_e4m3()?;
    input_args(layer)?;
    let [outputs, inputs] = layer.shape;
    let spelling = |shape: &[usize]| layer.spell("weight_scale", shape);
    let spelling = match layer.granularity {
        Granularity::PerTensor => spelling(&[1]),
        Granularity::PerRow => spelling(&[outputs, 1]),
        Granularity::PerBlock { cols, .. } if !inputs.is_multiple_of(cols) => {
            return Err(format!("blocks of {cols} columns in a weight of {inputs}, which is no multiple"));
        }
        Granularity::PerBlock { .. } if layer.is_mx() => spelling(&layer.grid()).with_exponents(),
        Granularity::PerBlock { .. } => spelling(&layer.grid()),
    };
    Ok(match layer.inputs()? {
        Inputs::Static(scale) => spelling.with_input_scale(layer.name("input_scale"), scale, [1]),
        _ => spelling,
    })
}

/// What `quantization_config` says: a group for each way in which layers are quantized.
pub(super) fn config(layers: &[Outline], full_precision: &[String]) -> Result<Value, String> {
    let mut schemes: Vec<(Value, Vec<&str>)> = Vec::new();
    for layer in layers {
        let inputs = input_args(layer)?;
        let format = match (layer.is_mx(), &inputs) {
            (true, _) => "mxfp8-quantized",
            (false, Value::Null) => "naive-quantized",
            (false, _) => "float-quantized",
        };
        let scheme = json!({
            "weights": weight_args(layer),
            "input_activations": inputs,
            "output_activations": null,
            "format": format,
        });
        match schemes.iter_mut().find(|(known, _)| *known == scheme) {
            Some((_, paths)) => paths.push(&layer.path),
            None => schemes.push((scheme, vec![&layer.path])),
        }
    }
    let format = match schemes.split_first() {
        Some(((first, _), others)) if others.iter().all(|(scheme, _)| scheme["format"] == first["format"]) => {
            first["format"].clone()
        }
        _ => "mixed-precision".into(),
    };
    let is_one = schemes.len() == 1;
    let groups: Map<String, Value> = schemes
        .into_iter()
        .enumerate()
        .map(|(number, (mut scheme, paths))| {
            // One way for all layers is said of their class, so that fused layers of other frameworks find it.
            scheme["targets"] = if is_one { json!(["Linear"]) } else { json!(paths) };
            (format!("group_{number}"), scheme)
        })
        .collect();
    Ok(json!({
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "kv_cache_scheme": null,
        "config_groups": groups,
        "ignore": full_precision,
    }))
}

/// `QuantizationArgs` of a weight.
fn weight_args(layer: &Outline) -> Value {
    let mut args = args("tensor", false);
    match layer.granularity {
        Granularity::PerTensor => {}
        Granularity::PerRow => args["strategy"] = "channel".into(),
        Granularity::PerBlock { rows: 1, cols } => {
            args["strategy"] = "group".into();
            args["group_size"] = cols.into();
        }
        Granularity::PerBlock { rows, cols } => {
            args["strategy"] = "block".into();
            args["block_structure"] = json!([rows, cols]);
        }
    }
    if layer.is_mx() {
        args["scale_dtype"] = MX_SCALES.into();
    }
    args
}

/// `QuantizationArgs` of a layer's input, null for one in full precision, or what of it the dialect cannot say.
fn input_args(layer: &Outline) -> Result<Value, String> {
    match layer.inputs()? {
        Inputs::Full => Ok(Value::Null),
        Inputs::Static(_) => Ok(args("tensor", false)),
        Inputs::Dynamic(Granularity::PerTensor) => Ok(args("tensor", true)),
        Inputs::Dynamic(Granularity::PerRow) => Ok(args("token", true)),
        Inputs::Dynamic(Granularity::PerBlock { rows: 1, cols }) => {
            let mut args = args("group", true);
            args["group_size"] = cols.into();
            Ok(args)
        }
        Inputs::Dynamic(Granularity::PerBlock { .. }) => Err("inputs in blocks of several rows".to_owned()),
        Inputs::Mx(MX_INPUTS) => {
            let mut args = args("group", true);
            args["group_size"] = 32.into();
            args["scale_dtype"] = MX_SCALES.into();
            Ok(args)
        }
        Inputs::Mx(encoding) => Err(format!("inputs with scales by {encoding:?}; it rounds exponents down")),
    }
}

fn args(strategy: &str, dynamic: bool) -> Value {
    json!({ "num_bits": 8, "type": "float", "symmetric": true, "dynamic": dynamic, "strategy": strategy, "group_size": null })
}
