//! The dialect of checkpoints for TensorRT-LLM: `weights_scaling_factor`, and `activation_scaling_factor` for the
//! layer's input.

use super::facts::{Facts, Holds, Name, Names};
use super::pair::find_by_names;
use super::tensors::DialectTensors;
use crate::Result;
use crate::checkpoint::config::Configs;
use crate::checkpoint::shards::Shards;

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
    holds: Holds::LanguageModels,
};

/// Weights with their scaling factor: one per tensor or per row.
fn read(shards: &Shards, _: &Configs) -> Result<DialectTensors> {
    find_by_names(shards, &FACTS.names)
}
