//! A dialect as data: the names that it gives to the tensors around codes, and the functions that read and write it.

use serde_json::Value;

use super::tensors::DialectTensors;
use crate::Result;
use crate::checkpoint::config::Configs;
use crate::checkpoint::layer_spec::{LayerSpec, TensorLayout};
use crate::checkpoint::shards::Shards;

/// A dialect.
pub(super) struct Facts {
    /// Its name.
    pub(super) name: &'static str,
    /// The `quant_method`s that its configurations have.
    pub(super) methods: &'static [&'static str],
    /// The names of the tensors around codes.
    pub(super) names: Names,
    /// Reads the quantized tensors of a checkpoint.
    pub(super) read: fn(&Shards, &Configs) -> Result<DialectTensors>,
    /// Writes layers, if altgrad does.
    pub(super) write: Option<Write>,
    pub(super) holds: Holds,
}

/// Which models the checkpoints of a dialect hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Language models, in several files with a configuration; embeddings and routers are recognized by name.
    LanguageModels,
    /// Diffusion models, in one file that says everything.
    DiffusionModels,
}

/// How to write a dialect.
pub(super) struct Write {
    /// The layout of a layer, or what of it the dialect cannot express.
    pub(super) layout: fn(&LayerSpec) -> Result<TensorLayout, String>,
    /// `quantization_config`, or `hf_quant_config.json` if that describes layers, from the quantized layers and the
    /// paths of those in full precision; or what the dialect cannot express.
    pub(super) config: fn(&[LayerSpec], &[String]) -> Result<Value, String>,
    /// What it can express instead, for messages; begins with a semicolon.
    pub(super) repertoire: &'static str,
}

/// The names of the tensors around codes, by role.
pub(super) struct Names {
    /// Scales of codes, by which the dialect of a checkpoint without a configuration is recognized.
    pub(super) scales: &'static [Name],
    /// Further names of scales of codes, which other dialects use as well.
    pub(super) further_scales: &'static [Name],
    /// Scales of the inputs of layers.
    pub(super) inputs: &'static [Name],
    /// Other tensors beside codes, which do not affect their values.
    pub(super) others: &'static [Name],
}

/// How the name of a tensor follows from the name of its codes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    /// The name of the codes, followed by this.
    After(&'static str),
    /// In place of `weight`, if the codes are called so; after the name of other codes, such as those of fused experts,
    /// with `_` between.
    Beside(&'static str),
    /// One level up, for all codes below that level, each of which is the `weight` of a part.
    Above(&'static str),
}

impl Name {
    /// The name of the tensor with this role for `codes`; `None` if there can be none.
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

    /// The codes for which a tensor of this name may have the role; none for roles that are shared by several codes.
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

/// The layer of a weight, with the dot that follows it.
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

    /// The names that the scale of `codes` alone may have.
    pub(super) fn scales_of(&self, codes: &str) -> Vec<String> {
        let own = self.all_scales().filter(|name| !matches!(name, Name::Above(_)));
        without_repeats(own.filter_map(|name| name.of(codes)))
    }

    /// The names that a scale shared by `codes` and others around them may have.
    pub(super) fn shared_scales_of(&self, codes: &str) -> Vec<String> {
        let shared = self.all_scales().filter(|name| matches!(name, Name::Above(_)));
        without_repeats(shared.filter_map(|name| name.of(codes)))
    }

    /// The names that the scale of the input of the layer of `codes` may have.
    pub(super) fn inputs_of(&self, codes: &str) -> Vec<String> {
        without_repeats(self.inputs.iter().filter_map(|name| name.of(codes)))
    }

    /// Whether a tensor is named like the scale of codes that exist.
    pub(super) fn is_scale_of_some(&self, shards: &Shards, name: &str) -> bool {
        self.all_scales().any(|scale| scale.codes_of(name).any(|codes| codes != name && shards.contains(&codes)))
    }

    /// The names of tensors beside `codes` that do not affect their values, such as scales of inputs.
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
