//! The dialect of checkpoints for TensorRT-LLM: `weights_scaling_factor`, and `activation_scaling_factor` for the layer's input.

use super::Found;
use super::facts::{Facts, Name, Names};
use super::pair::{Pairing, present};
use crate::Fp8;
use crate::Result;
use crate::checkpoint::config::Configs;
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Activations, Stored};

pub(super) const FACTS: Facts = Facts {
    name: "tensorrt-llm",
    methods: &[],
    names: Names {
        scales: &[Name::Beside("weights_scaling_factor")],
        further_scales: &[Name::Beside("per_channel_scale")],
        inputs: &[Name::Beside("activation_scaling_factor")],
        others: &[],
    },
    read,
    write: None,
};

/// Weights with their scaling factor: one for all, or one a row.
fn read(shards: &Shards, _: &Configs) -> Result<Found> {
    let describe = |codes: &str, scales: &str| {
        let mut stored = Stored::new(shards, codes, Some(scales), None)?;
        let input = present(shards, FACTS.names.inputs_of(codes)).into_iter().next();
        stored.activations = input.map(|scale| Activations::Static(Fp8::E4M3, scale));
        Ok(stored)
    };
    let pairing =
        Pairing { names: &FACTS.names, is_plain: &|_| false, keeps_full_precision: false, describe: &describe };
    pairing.find(shards)
}
