//! What a dialect is, as data: the names that it gives to the tensors around codes, and who reads and writes it.

use serde_json::Value;

use super::tensors::DialectTensors;
use crate::Result;
use crate::checkpoint::config::Configs;
use crate::checkpoint::layer_spec::{LayerSpec, TensorLayout};
use crate::checkpoint::shards::Shards;

/// A dialect.
pub(super) struct Facts {
    /// What it is called.
    pub(super) name: &'static str,
    /// The `quant_method`s of configurations in it.
    pub(super) methods: &'static [&'static str],
    /// What the tensors around codes are called.
    pub(super) names: Names,
    /// Reads the quantized tensors of a checkpoint.
    pub(super) read: fn(&Shards, &Configs) -> Result<DialectTensors>,
    /// Writes layers, if altgrad does.
    pub(super) write: Option<Write>,
    pub(super) holds: Holds,
}

/// Which models the checkpoints of a dialect are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Language models, in several files with a configuration, whose names tell embeddings and routers.
    LanguageModels,
    /// Diffusion models, in one file that says everything.
    DiffusionModels,
}

/// Who writes a dialect.
pub(super) struct Write {
    /// The layout of a layer, or what of it the dialect cannot say.
    pub(super) layout: fn(&LayerSpec) -> Result<TensorLayout, String>,
    /// `quantization_config`, or `hf_quant_config.json` where that is what describes layers, from layers and the paths
    /// of those that are left alone; or why it cannot say so.
    pub(super) config: fn(&[LayerSpec], &[String]) -> Result<Value, String>,
    /// What it has instead of what it cannot express, after a semicolon.
    pub(super) repertoire: &'static str,
}

/// The names of the tensors around codes, by role.
pub(super) struct Names {
    /// Scales of codes, by which a checkpoint without a configuration tells its dialect.
    pub(super) scales: &'static [Name],
    /// Further names of scales of codes, which other dialects have as well.
    pub(super) further_scales: &'static [Name],
    /// Scales of the inputs of layers.
    pub(super) inputs: &'static [Name],
    /// What else stands beside codes and has no part in their values.
    pub(super) others: &'static [Name],
}

/// Where a tensor stands and what it is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    /// The name of the codes and this.
    After(&'static str),
    /// Beside codes that are called `weight`; after codes of another name, such as those of fused experts, with `_`
    /// between.
    Beside(&'static str),
    /// One level up, for all codes there, each of which is the `weight` of a part.
    Above(&'static str),
}

impl Name {
    /// The tensor that has this role for `codes`, if it can have one.
    pub(super) fn of(self, codes: &str) -> Option<String> {
        let layer = layer_with_dot(codes);
        match (self, layer) {
            (Self::After(suffix), _) => Some(format!("{codes}{suffix}")),
            (Self::Beside(name), Some(layer)) => Some(format!("{layer}{name}")),
            (Self::Beside(name), None) => Some(format!("{codes}_{name}")),
            (Self::Above(name), Some(layer)) => {
                let (parent, _) = layer.strip_suffix('.')?.rsplit_once('.')?;
                Some(format!("{parent}.{name}"))
            }
            (Self::Above(_), None) => None,
        }
    }

    /// The codes that a tensor may have this role for, if it is called so; nothing of roles for several.
    pub(super) fn codes_of(self, name: &str) -> impl Iterator<Item = String> {
        let candidates = match self {
            Self::After(suffix) => [name.strip_suffix(suffix).map(str::to_owned), None],
            Self::Beside(own) => {
                let before = name.strip_suffix(own);
                let layer = before.filter(|layer| layer.is_empty() || layer.ends_with('.'));
                let other = before.and_then(|before| before.strip_suffix('_'));
                [layer.map(|layer| format!("{layer}weight")), other.map(str::to_owned)]
            }
            Self::Above(_) => [None, None],
        };
        candidates.into_iter().flatten()
    }
}

/// The layer that a weight is of, with the dot that follows.
fn layer_with_dot(codes: &str) -> Option<&str> {
    codes.strip_suffix("weight").filter(|layer| layer.is_empty() || layer.ends_with('.'))
}

impl Names {
    /// None at all.
    pub(super) const NONE: Self = Self { scales: &[], further_scales: &[], inputs: &[], others: &[] };

    /// All names of scales of codes.
    pub(super) fn all_scales(&self) -> impl Iterator<Item = Name> {
        self.scales.iter().chain(self.further_scales).copied()
    }

    /// The tensors that may be the scale of `codes` alone, by name.
    pub(super) fn scales_of(&self, codes: &str) -> Vec<String> {
        let own = self.all_scales().filter(|name| !matches!(name, Name::Above(_)));
        without_repeats(own.filter_map(|name| name.of(codes)))
    }

    /// The tensors that may be the scale of `codes` and of others around them.
    pub(super) fn shared_scales_of(&self, codes: &str) -> Vec<String> {
        let shared = self.all_scales().filter(|name| matches!(name, Name::Above(_)));
        without_repeats(shared.filter_map(|name| name.of(codes)))
    }

    /// The tensors that may be the scale of the input of the layer of `codes`.
    pub(super) fn inputs_of(&self, codes: &str) -> Vec<String> {
        without_repeats(self.inputs.iter().filter_map(|name| name.of(codes)))
    }

    /// Whether a tensor is called as the scale of codes is, of which there are some.
    pub(super) fn is_scale_of_some(&self, shards: &Shards, name: &str) -> bool {
        self.all_scales().any(|scale| scale.codes_of(name).any(|codes| codes != name && shards.contains(&codes)))
    }

    /// What stands beside `codes` and has no part in their values: scales of inputs and the like.
    pub(super) fn beside(&self, codes: &str) -> impl Iterator<Item = String> {
        self.inputs.iter().chain(self.others).filter_map(|name| name.of(codes))
    }
}

fn without_repeats(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}
