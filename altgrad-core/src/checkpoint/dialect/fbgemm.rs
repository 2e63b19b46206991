//! The dialect of FBGEMM in transformers (`FbgemmFp8Config`): one `weight_scale` per row, and inputs with one scale per
//! row and an upper bound on amax.

use serde::Deserialize;

use super::facts::{Facts, Holds, Name, Names};
use super::pair::Pairing;
use super::tensors::DialectTensors;
use super::tensors::layer_of;
use crate::checkpoint::config::{Configs, Section, is_listed};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, StoredActivations};
use crate::quantizer::{Granularity, Quantizer, Scaling};
use crate::{Fp8, Result};

pub(super) const FACTS: Facts = Facts {
    name: "fbgemm",
    methods: &["fbgemm_fp8"],
    names: Names {
        scales: &[Name::After("_scale"), Name::Beside("weight_scale")],
        further_scales: &[],
        inputs: &[],
        others: &[Name::Beside("input_scale_ub")],
    },
    read,
    write: None,
    holds: Holds::LanguageModels,
};

/// What `quantization_config` says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    /// An upper bound on the amax from which a scale of inputs is computed.
    activation_scale_ub: Option<f64>,
    modules_to_not_convert: Option<Vec<String>>,
}

/// Weights with one scale per row; fused experts, which are transposed, have one per column.
fn read(shards: &Shards, configs: &Configs) -> Result<DialectTensors> {
    let config = configs.quantization.as_ref().map(Section::parse::<Config>).transpose()?;
    let config = config.unwrap_or_default();
    let describe = |codes: &str, scales: &str| {
        let mut stored = Stored::new(shards, codes, Some(scales), None)?;
        // Fused experts are several layers, each with its own inputs.
        if stored.shape.len() == 2 {
            let quantizer = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow).scaling(Scaling::Current);
            let quantizer = match config.activation_scale_ub {
                Some(bound) => quantizer.amax_bound(bound),
                None => quantizer,
            };
            stored.activations = Some(StoredActivations::Dynamic(quantizer));
        }
        Ok(stored)
    };
    let is_plain = |layer: &str| is_listed(config.modules_to_not_convert.as_deref(), layer_of(layer));
    let pairing =
        Pairing { names: &FACTS.names, is_plain: &is_plain, keeps_full_precision: false, describe: &describe };
    pairing.find(shards)
}
