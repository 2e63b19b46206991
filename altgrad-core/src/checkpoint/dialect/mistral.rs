//! The dialect of Mistral's own files: `qscale_weight`, and `qscale_act` for the layer's input.

use super::facts::{Facts, Holds, Name, Names};
use super::pair::find_by_names;
use super::tensors::DialectTensors;
use crate::Result;
use crate::checkpoint::config::Configs;
use crate::checkpoint::shards::Shards;

pub(super) const FACTS: Facts = Facts {
    name: "mistral",
    methods: &[],
    names: Names {
        scales: &[Name::Beside("qscale_weight")],
        further_scales: &[],
        inputs: &[Name::Beside("qscale_act")],
        others: &[],
    },
    read,
    write: None,
    holds: Holds::LanguageModels,
};

/// Weights with their `qscale_weight`.
fn read(shards: &Shards, _: &Configs) -> Result<DialectTensors> {
    find_by_names(shards, &FACTS.names)
}
