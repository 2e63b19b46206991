//! The dialect of AMD Quark: the tensor names of compressed-tensors, with Quark's own configuration.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::facts::{Facts, Holds, Name, Names};
use super::pair::{Pairing, input_scale};
use super::tensors::DialectTensors;
use super::tensors::layer_of;
use crate::checkpoint::config::{Configs, Section, glob_matches, is_listed};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, StoredActivations};
use crate::quantizer::{Granularity, Quantizer, Scaling};
use crate::{Fp8, Result};

pub(super) const FACTS: Facts = Facts {
    name: "quark",
    methods: &["quark"],
    names: Names {
        scales: &[Name::After("_scale"), Name::Beside("weight_scale")],
        further_scales: &[],
        inputs: &[Name::Beside("input_scale")],
        others: &[Name::Beside("output_scale"), Name::Beside("weight_zero_point"), Name::Beside("input_zero_point")],
    },
    read,
    write: None,
    holds: Holds::LanguageModels,
};

/// What `quantization_config` says (Quark, `Config`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    #[serde(rename = "global_quant_config")]
    global: Scheme,
    /// By the name of a layer, in which `*` stands for any text.
    #[serde(rename = "layer_quant_config")]
    layers: BTreeMap<String, Scheme>,
    exclude: Option<Vec<String>>,
}

/// How a layer is quantized.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Scheme {
    weight: Option<Spec>,
    input_tensors: Option<Spec>,
}

/// How one tensor is quantized (`QuantizationSpec`).
#[derive(Debug, Deserialize)]
struct Spec {
    dtype: String,
    qscheme: Option<String>,
    #[serde(default)]
    is_dynamic: bool,
    group_size: Option<usize>,
    block_size: Option<[usize; 2]>,
}

impl Spec {
    /// The size of blocks, unless scales are per tensor or per row.
    fn block(&self) -> Option<[usize; 2]> {
        self.block_size.or_else(|| Some([1, self.group_size?]))
    }

    fn check(&self) -> Result<(), String> {
        if self.dtype.starts_with("fp8_e4m3") { Ok(()) } else { Err(format!("dtype `{}`", self.dtype)) }
    }
}

fn read(shards: &Shards, configs: &Configs) -> Result<DialectTensors> {
    let config = configs.quantization.as_ref().map(Section::parse::<Config>).transpose()?.unwrap_or_default();
    let scheme_of = |layer: &str| {
        let named = config.layers.iter().find(|(pattern, _)| glob_matches(pattern, layer));
        named.map_or(&config.global, |(_, scheme)| scheme)
    };
    let describe = |codes: &str, scales: &str| {
        let scheme = scheme_of(layer_of(codes));
        if let Some(Err(what)) = scheme.weight.as_ref().map(Spec::check) {
            return Err(shards.invalid(codes, format!("is quantized to {what}, and altgrad reads `fp8_e4m3`")));
        }
        let block = scheme.weight.as_ref().and_then(Spec::block);
        let mut stored = Stored::new(shards, codes, Some(scales), block)?;
        stored.activations = match &scheme.input_tensors {
            Some(spec) if stored.shape.len() == 2 => Some(activations(shards, codes, spec)?),
            _ => None,
        };
        Ok(stored)
    };
    let is_plain = |layer: &str| is_listed(config.exclude.as_deref(), layer);
    let pairing =
        Pairing { names: &FACTS.names, is_plain: &is_plain, keeps_full_precision: false, describe: &describe };
    pairing.find(shards)
}

fn activations(shards: &Shards, codes: &str, spec: &Spec) -> Result<StoredActivations> {
    spec.check().map_err(|what| {
        shards.invalid(codes, format!("has inputs that are quantized to {what}, which altgrad does not read"))
    })?;
    if !spec.is_dynamic {
        return Ok(StoredActivations::Static(Fp8::E4M3, input_scale(shards, &FACTS.names, codes)?));
    }
    let granularity = match (spec.qscheme.as_deref(), spec.block()) {
        (Some("per_token" | "per_channel"), _) => Granularity::PerRow,
        (Some("per_group" | "per_block") | None, Some([rows, cols])) => Granularity::PerBlock { rows, cols },
        (Some("per_tensor") | None, _) => Granularity::PerTensor,
        (Some(other), _) => {
            let why = format!("has inputs quantized by the scheme `{other}`, which altgrad does not read");
            return Err(shards.invalid(codes, why));
        }
    };
    Ok(StoredActivations::Dynamic(Quantizer::new(Fp8::E4M3).granularity(granularity).scaling(Scaling::Current)))
}
