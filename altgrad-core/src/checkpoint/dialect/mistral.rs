//! The dialect of Mistral's own files: `qscale_weight`, and `qscale_act` for the layer's input.

use super::Found;
use super::facts::{Facts, Name, Names};
use super::pair::{Pairing, present};
use crate::Fp8;
use crate::Result;
use crate::checkpoint::config::Configs;
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Activations, Stored};

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
};

/// Weights with their `qscale_weight`; those without are values.
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
