//! The dialects of FP8 checkpoints, and how to detect which one a checkpoint is written in.

mod altgrad;
mod comfyui;
mod compressed_tensors;
mod facts;
mod fbgemm;
mod mistral;
mod modelopt;
mod pair;
mod plain;
mod quark;
mod tensorrt_llm;
mod tensors;
mod torchao;
mod transformers;

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use self::facts::{Facts, Holds, Write};
use self::pair::quoted;
pub(super) use self::tensors::DialectTensors;
use self::tensors::like_scales;
use super::config::Configs;
use super::layer_spec::{LayerSpec, TensorLayout};
use super::shards::Shards;
use super::stored::format_of;
use crate::error::did_you_mean;
use crate::{CheckpointError, Error, ParseError, Result};

/// One ecosystem's way to write an FP8 checkpoint. In all of them, `value = decode(code) × scale`.
///
/// | dialect | codes | scales | recognized by |
/// |---|---|---|---|
/// | compressed-tensors | `weight` | `weight_scale` | `quant_method` `compressed-tensors` in `config.json` |
/// | transformers | `weight` | `weight_scale_inv`, `scale` | `quant_method` `fp8`, or the names |
/// | torchao | `_weight_qdata` | `_weight_scale` | `quant_method` `torchao`, or the metadata of the files |
/// | modelopt | `weight` | `weight_scale`, `weight_scale_inv` | `quant_method` `modelopt`, or `hf_quant_config.json` |
/// | fbgemm | `weight` | `weight_scale` | `quant_method` `fbgemm_fp8` |
/// | quark | `weight` | `weight_scale` | `quant_method` `quark` |
/// | mistral | `weight` | `qscale_weight` | the names |
/// | tensorrt-llm | `weight` | `weights_scaling_factor` | the names |
/// | comfyui | `weight` | `weight_scale`, `scale_weight` | `comfy_quant` or `scaled_fp8` tensors, or the metadata |
/// | plain | any tensor of an FP8 dtype | none | no `quant_method`, and no tensor that could be a scale |
/// | altgrad | `weight` | `weight_scale` | `quant_method` `altgrad` |
///
/// [`save`](super::save) writes compressed-tensors, transformers, modelopt, comfyui and altgrad.
///
/// The dialects of other libraries do not specify the last bit of a dynamic scale: inputs with
/// [`F32`](crate::ScaleEncoding::F32) and [`F32Reciprocal`](crate::ScaleEncoding::F32Reciprocal) scales are written
/// alike, and `amax_epsilon` is not written at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Of llm-compressor and vLLM: `float-quantized`, `naive-quantized` and `mxfp8-quantized`.
    CompressedTensors,
    /// Of transformers' `FineGrainedFP8Config` and of DeepSeek: `fp8`, in blocks or with one scale per tensor; and of
    /// AutoFP8.
    Transformers,
    /// Of torchao: `Float8Tensor`, and `MXTensor` with FP8 elements, with or without swizzled scales.
    Torchao,
    /// Of NVIDIA ModelOpt: FP8, FP8 per channel and token, FP8 in blocks, and MXFP8.
    ModelOpt,
    /// Of FBGEMM in transformers: one scale per row, or per column for the experts of Llama 4.
    Fbgemm,
    /// Of AMD Quark: FP8 per tensor, channel or block.
    Quark,
    /// Of Mistral's own files: one scale per tensor.
    Mistral,
    /// Of checkpoints for TensorRT-LLM: one scale per tensor or row.
    TensorRtLlm,
    /// Of ComfyUI: diffusion models in one file, with one scale per tensor.
    ComfyUi,
    /// Tensors of FP8 dtypes that are the values themselves.
    Plain,
    /// Of this library, for what the others cannot express: any format and granularity, and any quantizer of inputs.
    Altgrad,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 11] = [
        Self::CompressedTensors,
        Self::Transformers,
        Self::Torchao,
        Self::ModelOpt,
        Self::Fbgemm,
        Self::Quark,
        Self::Mistral,
        Self::TensorRtLlm,
        Self::ComfyUi,
        Self::Plain,
        Self::Altgrad,
    ];

    const fn facts(self) -> &'static Facts {
        match self {
            Self::CompressedTensors => &compressed_tensors::FACTS,
            Self::Transformers => &transformers::FACTS,
            Self::Torchao => &torchao::FACTS,
            Self::ModelOpt => &modelopt::FACTS,
            Self::Fbgemm => &fbgemm::FACTS,
            Self::Quark => &quark::FACTS,
            Self::Mistral => &mistral::FACTS,
            Self::TensorRtLlm => &tensorrt_llm::FACTS,
            Self::ComfyUi => &comfyui::FACTS,
            Self::Plain => &plain::FACTS,
            Self::Altgrad => &altgrad::FACTS,
        }
    }

    /// The name that [`FromStr`] parses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// Whether altgrad writes checkpoints in it.
    #[must_use]
    pub const fn is_written(self) -> bool {
        self.facts().write.is_some()
    }

    /// Whether its checkpoints hold language models, whose embeddings and routers are recognized by name.
    pub(super) fn has_language_models(self) -> bool {
        self.facts().holds == Holds::LanguageModels
    }

    /// Whether a checkpoint in it is one file and nothing else.
    pub(super) fn is_one_file(self) -> bool {
        self.facts().holds == Holds::DiffusionModels
    }

    /// What it can express, for messages about what it cannot; empty if altgrad does not write it.
    fn repertoire(self) -> &'static str {
        self.facts().write.as_ref().map_or("", |write| write.repertoire)
    }

    /// The quantized tensors of a checkpoint in this dialect.
    pub(super) fn read(self, shards: &Shards, configs: &Configs) -> Result<DialectTensors> {
        (self.facts().read)(shards, configs)
    }

    /// How a layer is stored in this dialect.
    pub(super) fn layout(self, layer: &LayerSpec) -> Result<TensorLayout> {
        self.try_layout(layer).map_err(|what| {
            let able = Self::ALL.into_iter().filter(|dialect| dialect.try_layout(layer).is_ok()).collect();
            self.not_expressible(what, able).at(&layer.path)
        })
    }

    fn not_expressible(self, what: String, able: Vec<Self>) -> Error {
        let (dialect, repertoire) = (self.name(), self.repertoire());
        let able = able.into_iter().map(Self::name).collect();
        CheckpointError::NotExpressible { dialect, repertoire, what, able }.into()
    }

    fn write(self) -> Result<&'static Write, String> {
        self.facts().write.as_ref().ok_or_else(|| "layers, as altgrad only reads it".to_owned())
    }

    fn try_layout(self, layer: &LayerSpec) -> Result<TensorLayout, String> {
        (self.write()?.layout)(layer)
    }

    /// The files and fields that say how layers are quantized, and which layers are not.
    ///
    /// Fails if no layer is quantized.
    pub(super) fn describe(self, layers: &[LayerSpec], full_precision: &[String]) -> Result<Description> {
        if layers.is_empty() {
            return Err(Error::Checkpoint(CheckpointError::NothingToWrite));
        }
        let described = self.write().and_then(|write| (write.config)(layers, full_precision));
        let config =
            described.map_err(|what| self.not_expressible(what, vec![Self::CompressedTensors, Self::Altgrad]))?;
        Ok(match self {
            Self::ModelOpt => {
                let quantization = Some(modelopt::quantization_config(&config));
                Description { quantization, hf_quant: Some(config) }
            }
            _ => Description { quantization: Some(config).filter(|config| !config.is_null()), hf_quant: None },
        })
    }

    /// The dialect of a checkpoint.
    pub(super) fn detect(shards: &Shards, configs: &Configs) -> Result<Self> {
        if let Some(section) = &configs.quantization {
            let methods = || Self::ALL.into_iter().flat_map(|dialect| dialect.facts().methods);
            return match section.text("quant_method") {
                Some(method) => {
                    Self::ALL.into_iter().find(|dialect| dialect.facts().methods.contains(&method)).ok_or_else(|| {
                        let known = quoted(&methods().map(|method| (*method).to_owned()).collect::<Vec<_>>(), ", ");
                        section.invalid(format!(
                            "the `quant_method` is `{method}`, and altgrad reads {known}; if the tensors are named as \
                             in one of these, {NAME_THE_DIALECT}"
                        ))
                    })
                }
                // Older configurations of ModelOpt leave it out.
                None if section.text("quant_algo").is_some() => Ok(Self::ModelOpt),
                None if section.has("config_groups") => Ok(Self::CompressedTensors),
                None => Err(section.invalid("there is no `quant_method`")),
            };
        }
        if configs.hf_quant.is_some() {
            return Ok(Self::ModelOpt);
        }
        if torchao::is_described(shards) {
            return Ok(Self::Torchao);
        }
        if comfyui::is_marked(shards) {
            return Ok(Self::ComfyUi);
        }
        Self::detect_by_names(shards)
    }

    /// The dialect whose names the tensors have.
    fn detect_by_names(shards: &Shards) -> Result<Self> {
        let is_codes = |name: &String| shards.info(name).is_some_and(|info| format_of(info.dtype).is_some());
        let scale_in = |dialect: &Self| {
            let names = dialect.facts().names.scales;
            let is_scale = |name: &str| names.iter().any(|scale| scale.codes_of(name).any(|codes| is_codes(&codes)));
            shards.tensors().map(|(name, _)| name).find(|name| is_scale(name))
        };
        let told: Vec<(Self, &str)> =
            Self::ALL.into_iter().filter_map(|dialect| Some((dialect, scale_in(&dialect)?))).collect();
        match told[..] {
            [(dialect, _)] => Ok(dialect),
            [(_, first), ..] => {
                let called_so = |scale: &str| {
                    let dialects = told.iter().filter(|(_, other)| *other == scale);
                    dialects.map(|(dialect, _)| dialect.name()).collect::<Vec<_>>().join(", ")
                };
                let mut others: Vec<&str> =
                    told.iter().map(|(_, scale)| *scale).filter(|scale| *scale != first).collect();
                others.dedup();
                let but = others.iter().map(|scale| format!(", but `{scale}` like one of {}", called_so(scale)));
                let but = but.collect::<String>();
                let why = format!(
                    "is named like a scale of {}{but}, and no configuration beside the file says which; \
                     {NAME_THE_DIALECT}",
                    called_so(first)
                );
                Err(shards.invalid(first, why))
            }
            [] => match unknown_scale(shards) {
                None => Ok(Self::Plain),
                Some((scale, codes)) => Err(shards.invalid(
                    &scale,
                    format!(
                        "looks like a scale of `{codes}`, but no dialect that altgrad reads has such a name; if it is \
                         not a scale and the codes are the values, {NAME_THE_DIALECT}: `plain`"
                    ),
                )),
            },
        }
    }
}

/// What to do if the dialect cannot be detected.
const NAME_THE_DIALECT: &str = "give the dialect with `Checkpoint::open_as` (on the command line with `--from`; for \
                                `compare` with `--first-from` or `--second-from`)";

/// A tensor that could be a scale by its name and shape, although no dialect has that name; and its codes.
fn unknown_scale(shards: &Shards) -> Option<(String, &str)> {
    let codes = shards.tensors().filter(|(_, info)| format_of(info.dtype).is_some()).map(|(name, _)| name);
    codes.into_iter().find_map(|codes| Some((like_scales(shards, codes).into_iter().next()?, codes)))
}

/// What is written beside the tensors.
#[derive(Default)]
pub(super) struct Description {
    /// `quantization_config` of `config.json`, if the dialect has one.
    pub(super) quantization: Option<Value>,
    /// `hf_quant_config.json`.
    pub(super) hf_quant: Option<Value>,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Parses the [name](Dialect::name), ignoring case.
impl FromStr for Dialect {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let known = Self::ALL.into_iter().find(|dialect| dialect.name().eq_ignore_ascii_case(text.trim()));
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            let meant = did_you_mean(text, names);
            ParseError::new(text, format!("not a dialect of checkpoints{meant}; there are {}", names.join(", ")))
        })
    }
}
