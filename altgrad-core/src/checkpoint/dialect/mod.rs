//! The spellings of FP8 checkpoints: which there are, and how to tell which one a checkpoint is written in.

mod altgrad;
mod compressed_tensors;
mod modelopt;
mod plain;
mod torchao;
mod transformers;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::config::Configs;
use super::outline::{Outline, Spelling};
use super::shards::Shards;
use super::stored::{Stored, format_of};
use crate::{Error, Result};

/// One ecosystem's spelling of an FP8 checkpoint. All of them mean `value = decode(code) × scale`.
///
/// | dialect | codes | scales | told by |
/// |---|---|---|---|
/// | compressed-tensors | `weight` | `weight_scale` | `quant_method` `compressed-tensors` in `config.json` |
/// | transformers | `weight` | `weight_scale_inv` | `quant_method` `fp8` |
/// | torchao | `_weight_qdata` | `_weight_scale` | `quant_method` `torchao`, or the metadata of the files |
/// | modelopt | `weight` | `weight_scale` | `quant_method` `modelopt`, or `hf_quant_config.json` |
/// | plain | any tensor of an FP8 dtype | none | no `quant_method`, and nothing beside the codes that is named like a scale |
/// | altgrad | `weight` | `weight_scale` | `quant_method` `altgrad` |
///
/// [`save`](super::save) writes compressed-tensors, transformers, modelopt and altgrad.
///
/// The dialects of other libraries do not say by which rule a dynamic scale is computed to the last bit: inputs with
/// [`F32`](crate::ScaleEncoding::F32) and [`F32Reciprocal`](crate::ScaleEncoding::F32Reciprocal) scales are written alike, and an
/// `amax_epsilon` not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Of llm-compressor and vLLM: `float-quantized`, `naive-quantized` and `mxfp8-quantized`.
    CompressedTensors,
    /// Of transformers' `FineGrainedFP8Config` and of DeepSeek: `fp8`, in blocks or with one scale a tensor.
    Transformers,
    /// Of torchao: `Float8Tensor`, and `MXTensor` with FP8 elements, its scales swizzled or not.
    Torchao,
    /// Of NVIDIA ModelOpt: FP8, FP8 per channel and token, FP8 in blocks, and MXFP8.
    ModelOpt,
    /// Tensors of FP8 dtypes that are the values themselves.
    Plain,
    /// Of this library, for what the others cannot say: any format and granularity, and any quantizer of inputs.
    Altgrad,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 6] =
        [Self::CompressedTensors, Self::Transformers, Self::Torchao, Self::ModelOpt, Self::Plain, Self::Altgrad];

    /// The name that [`FromStr`] reads.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CompressedTensors => "compressed-tensors",
            Self::Transformers => "transformers",
            Self::Torchao => "torchao",
            Self::ModelOpt => "modelopt",
            Self::Plain => "plain",
            Self::Altgrad => "altgrad",
        }
    }

    /// What it has instead of what it cannot express, if it is written.
    pub(crate) const fn repertoire(self) -> &'static str {
        match self {
            Self::CompressedTensors => {
                "; it has E4M3 weights per tensor, row or whole block, with inputs in full precision, or in E4M3 with dynamic \
                 or static scales"
            }
            Self::Transformers => {
                "; it has E4M3 weights per block with inputs per row of a block, as the recipe `blockwise`, and E4M3 \
                 weights per tensor with inputs per row or under a static scale"
            }
            Self::ModelOpt => {
                "; it has E4M3 weights per 128×128 block alone, per row with inputs per row, per tensor with a static scale \
                 of the input, and per 1×32 block under powers of two with the same for inputs, rounded up"
            }
            Self::Altgrad | Self::Torchao | Self::Plain => "",
        }
    }

    /// The quantized tensors of a checkpoint in this dialect.
    pub(super) fn read(self, shards: &Shards, configs: &Configs) -> Result<BTreeMap<String, Stored>> {
        let section = configs.quantization.as_ref();
        match self {
            Self::CompressedTensors => compressed_tensors::read(shards, section),
            Self::Transformers => transformers::read(shards, section),
            Self::Torchao => torchao::read(shards),
            Self::ModelOpt => modelopt::read(shards, configs.hf_quant.as_ref().or(section)),
            Self::Plain => plain::read(shards),
            Self::Altgrad => altgrad::read(shards, section),
        }
    }

    /// How a layer is spelled in this dialect.
    pub(super) fn spell(self, layer: &Outline) -> Result<Spelling> {
        self.try_spell(layer).map_err(|what| {
            let able = Self::ALL.into_iter().filter(|dialect| dialect.try_spell(layer).is_ok()).collect();
            Error::NotExpressible { dialect: self, what, able }.at(&layer.path)
        })
    }

    fn try_spell(self, layer: &Outline) -> Result<Spelling, String> {
        match self {
            Self::CompressedTensors => compressed_tensors::spell(layer),
            Self::Transformers => transformers::spell(layer),
            Self::ModelOpt => modelopt::spell(layer),
            Self::Altgrad => Ok(altgrad::spell(layer)),
            Self::Torchao | Self::Plain => Err("layers, as altgrad only reads it".to_owned()),
        }
    }

    /// The files and fields that say how layers are quantized, and which layers are not.
    ///
    /// Fails if no layer is quantized.
    pub(super) fn describe(self, layers: &[Outline], full_precision: &[String]) -> Result<Description> {
        if layers.is_empty() {
            return Err(Error::NothingToWrite);
        }
        let described = match self {
            Self::CompressedTensors => compressed_tensors::config(layers, full_precision),
            Self::Transformers => transformers::config(layers, full_precision),
            Self::ModelOpt => modelopt::config(layers, full_precision),
            Self::Altgrad => Ok(altgrad::config(layers, full_precision)),
            Self::Torchao | Self::Plain => Err("layers, as altgrad only reads it".to_owned()),
        };
        let config = described.map_err(|what| Error::NotExpressible {
            dialect: self,
            what,
            able: vec![Self::CompressedTensors, Self::Altgrad],
        })?;
        Ok(match self {
            Self::ModelOpt => {
                Description { quantization: modelopt::quantization_config(&config), hf_quant: Some(config) }
            }
            _ => Description { quantization: config, hf_quant: None },
        })
    }

    /// The dialect of a checkpoint.
    pub(super) fn detect(shards: &Shards, configs: &Configs) -> Result<Self> {
        if let Some(section) = &configs.quantization {
            return match section.text("quant_method") {
                Some("compressed-tensors") => Ok(Self::CompressedTensors),
                Some("fp8") => Ok(Self::Transformers),
                Some("torchao") => Ok(Self::Torchao),
                Some("modelopt") => Ok(Self::ModelOpt),
                Some("altgrad") => Ok(Self::Altgrad),
                Some(other) => Err(section.invalid(format!(
                    "the `quant_method` is `{other}`; altgrad reads `compressed-tensors`, `fp8`, `torchao`, `modelopt` and \
                     `altgrad`; if the tensors are named as one of these names them, {SAY_IT}"
                ))),
                // Older configurations of ModelOpt leave it out.
                None if section.text("quant_algo").is_some() => Ok(Self::ModelOpt),
                None if section.has("config_groups") => Ok(Self::CompressedTensors),
                None => Err(section.invalid("there is no `quant_method`")),
            };
        }
        if configs.hf_quant.is_some() {
            return Ok(Self::ModelOpt);
        }
        Self::detect_by_tensors(shards)
    }

    /// The dialect that the names of tensors are of.
    fn detect_by_tensors(shards: &Shards) -> Result<Self> {
        if torchao::is_described(shards) {
            return Ok(Self::Torchao);
        }
        let scale_of = |suffix: &str| {
            let of_codes = |name: &str| shards.info(name).is_some_and(|info| format_of(info.dtype).is_some());
            shards.tensors().map(|(name, _)| name).find(|name| name.strip_suffix(suffix).is_some_and(of_codes))
        };
        match (scale_of("_scale_inv"), scale_of("_scale")) {
            (None, None) => match plain::unknown_scale(shards) {
                None => Ok(Self::Plain),
                Some((scale, codes)) => Err(shards.invalid(
                    scale,
                    format!(
                        "looks like a scale of `{codes}`, but no dialect that altgrad reads names scales so, and no \
                         configuration beside the file says which it is; {SAY_IT}, and `plain` if the codes are the values"
                    ),
                )),
            },
            (Some(_), None) => Ok(Self::Transformers),
            (None, Some(scale)) => Err(shards.invalid(
                scale,
                format!(
                    "is a scale as compressed-tensors and modelopt name it, and no configuration beside the file says \
                     which; {SAY_IT}"
                ),
            )),
            (Some(inverse), Some(scale)) => Err(shards.invalid(
                scale,
                format!(
                    "is a scale as compressed-tensors and modelopt name it, but `{inverse}` is one as transformers does, \
                     and no configuration beside the file says which it is; {SAY_IT}"
                ),
            )),
        }
    }
}

/// What to do where nothing tells the dialect.
const SAY_IT: &str = "say the dialect with `Checkpoint::open_as` (on the command line with `--from`, of `compare` `--first-from` or \
                      `--second-from`)";

/// What is written beside the tensors.
pub(super) struct Description {
    /// `quantization_config` of `config.json`.
    pub(super) quantization: Value,
    /// `hf_quant_config.json`.
    pub(super) hf_quant: Option<Value>,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads the [name](Dialect::name), in any case.
impl FromStr for Dialect {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|dialect| dialect.name().eq_ignore_ascii_case(text.trim()));
        known.ok_or_else(|| Error::UnknownDialect { name: text.to_owned() })
    }
}

/// The tensors of FP8 dtypes, each with the one scale that there is of those that `scales_of` names; what the two make
/// is up to `describe`.
///
/// A scale that is left over is an error: the checkpoint is not what it was taken for.
fn pair(
    shards: &Shards,
    scales_of: impl Fn(&str) -> Vec<String>,
    mut describe: impl FnMut(&str, &str) -> Result<Stored>,
) -> Result<BTreeMap<String, Stored>> {
    let mut found = BTreeMap::new();
    for (codes, info) in shards.tensors() {
        let candidates = scales_of(codes);
        let scales: Vec<&String> = candidates.iter().filter(|scale| shards.contains(scale)).collect();
        if format_of(info.dtype).is_none() {
            if let (Some(scale), true) = (scales.first(), codes.ends_with("weight")) {
                let why = format!("is a scale, but `{codes}` is of dtype {} and not of an FP8 dtype", info.dtype);
                return Err(shards.invalid(scale, why));
            }
            continue;
        }
        if codes.ends_with("_scale") {
            let why =
                format!("is a scale of dtype {}, as weights of 4 bits have; altgrad reads those of 8", info.dtype);
            return Err(shards.invalid(codes, why));
        }
        match scales[..] {
            [scale] => found.insert(codes.to_owned(), describe(codes, scale)?),
            [] => {
                let expected = candidates.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
                return Err(shards.invalid(codes, format!("has no scale: there is no tensor {expected}")));
            }
            [one, other, ..] => {
                return Err(shards.invalid(codes, format!("has two scales, `{one}` and `{other}`")));
            }
        };
    }
    let used: HashSet<&str> = found.values().filter_map(|stored| stored.scales.as_deref()).collect();
    for (name, _) in shards.tensors() {
        let is_scale = ["weight_scale", "weight_scale_inv"].iter().any(|suffix| name.ends_with(suffix));
        if is_scale && !used.contains(name) {
            return Err(shards.invalid(name, "is a scale of a tensor that is not there"));
        }
    }
    Ok(found)
}

/// The layer that a weight of this name is of.
fn layer_of(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// What belongs to the same layer as some codes: it stands beside a `weight`, and appends its name to those of other
/// parameters, such as the `gate_up_proj` of fused experts.
fn beside(codes: &str, name: &str) -> String {
    match codes.strip_suffix("weight") {
        Some(layer) if layer.is_empty() || layer.ends_with('.') => format!("{layer}{name}"),
        _ => format!("{codes}_{name}"),
    }
}
