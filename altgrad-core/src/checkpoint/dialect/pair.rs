//! Matches codes with scales, for all dialects that do so by name.

use super::facts::{Name, Names};
use super::tensors::{DialectTensors, layer_of, like_scales};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, StoredActivations, format_of};
use crate::{Error, Fp8, Result};

/// How a dialect pairs codes with scales.
pub(super) struct Pairing<'p> {
    pub(super) names: &'p Names,
    /// Whether the checkpoint says that the codes of a layer without a scale are its values.
    pub(super) is_plain: &'p dyn Fn(&str) -> bool,
    /// Whether scales may lie beside weights in full precision, and are then ignored.
    pub(super) keeps_full_precision: bool,
    /// The quantized tensor of these codes and scales.
    pub(super) describe: &'p dyn Fn(&str, &str) -> Result<Stored>,
}

impl Pairing<'_> {
    /// The tensors of FP8 dtypes, each with its only scale. Codes and scales that do not fit together are a fault of
    /// that tensor.
    pub(super) fn find(&self, shards: &Shards) -> Result<DialectTensors> {
        let mut found = DialectTensors::default();
        for (codes, info) in shards.tensors() {
            if self.names.is_scale_of_some(shards, codes) || self.is_scale_of_a_weight(codes) {
                continue;
            }
            let has_codes = format_of(info.dtype).is_some();
            let scales = present(shards, self.names.scales_of(codes));
            match (has_codes, &scales[..]) {
                (false, []) => continue,
                (false, [scale, ..]) if self.keeps_full_precision => found.parts.extend([scale.clone()]),
                (false, [scale, ..]) => {
                    let why = format!("is a scale, but `{codes}` is of dtype {} and not of an FP8 dtype", info.dtype);
                    // A vector may have any name: a norm, for example, may have a `weight` and a `scale`.
                    if info.shape.len() > 1 {
                        found.parts.insert(scale.clone());
                        found.add(codes, Err(shards.invalid(scale, why)))?;
                    }
                }
                (true, [scale]) => {
                    found.add(codes, (self.describe)(codes, scale))?;
                    // Even if the two do not fit together.
                    found.parts.insert(scale.clone());
                }
                (true, []) => found.add(codes, self.without_scale(shards, codes))?,
                (true, [one, other, ..]) => {
                    found.add(codes, Err(shards.invalid(codes, format!("has two scales, `{one}` and `{other}`"))))?;
                }
            }
            found.parts.extend(self.names.beside(codes).filter(|name| shards.contains(name)));
        }
        self.find_left_over(shards, &mut found)?;
        Ok(found)
    }

    /// Codes without a scale of their own.
    fn without_scale(&self, shards: &Shards, codes: &str) -> Result<Stored> {
        if let [scale, ..] = &present(shards, self.names.shared_scales_of(codes))[..] {
            return (self.describe)(codes, scale);
        }
        let beside = like_scales(shards, codes);
        if beside.is_empty() && (self.is_plain)(layer_of(codes)) {
            return Stored::new(shards, codes, None, None);
        }
        let expected = quoted(&self.names.scales_of(codes), " or ");
        let beside = if beside.is_empty() {
            String::new()
        } else {
            format!("; beside it are {}, which this dialect does not know", quoted(&beside, ", "))
        };
        Err(shards.invalid(codes, format!("has no scale: there is no tensor {expected}{beside}")))
    }

    /// Whether the name alone says that a tensor is the scale of a weight; other parameters may be named like scales,
    /// too.
    fn is_scale_of_a_weight(&self, name: &str) -> bool {
        let is_of_weight = |scale: &Name| scale.codes_of(name).any(|codes| codes.ends_with("weight"));
        name.contains("weight") && self.names.scales.iter().any(is_of_weight)
    }

    /// Reports scales without codes as faults: the checkpoint is not what it was taken for.
    fn find_left_over(&self, shards: &Shards, found: &mut DialectTensors) -> Result<()> {
        for (name, info) in shards.tensors() {
            let is_left_over = self.is_scale_of_a_weight(name)
                && !found.parts.contains(name)
                && !found.tensors.contains_key(name)
                && !self.names.is_scale_of_some(shards, name);
            if is_left_over {
                let why = if format_of(info.dtype).is_some() {
                    format!("is a scale of dtype {}, as 4-bit weights have; altgrad reads 8-bit weights", info.dtype)
                } else {
                    "is a scale of a tensor that is missing".to_owned()
                };
                found.add(name, Err(shards.invalid(name, why)))?;
            }
        }
        Ok(())
    }
}

/// The quantized tensors in a dialect that uses names alone: codes with one scale tensor each, and a static scale of
/// the layer's input if there is one.
pub(super) fn find_by_names(shards: &Shards, names: &Names) -> Result<DialectTensors> {
    let describe = |codes: &str, scales: &str| {
        let mut stored = Stored::new(shards, codes, Some(scales), None)?;
        let input = present(shards, names.inputs_of(codes)).into_iter().next();
        stored.activations = input.map(|scale| StoredActivations::Static(Fp8::E4M3, scale));
        Ok(stored)
    };
    Pairing { names, is_plain: &|_| false, keeps_full_precision: false, describe: &describe }.find(shards)
}

/// The names among `names` that exist as tensors.
pub(super) fn present(shards: &Shards, names: Vec<String>) -> Vec<String> {
    names.into_iter().filter(|name| shards.contains(name)).collect()
}

/// Names as part of a message.
pub(super) fn quoted(names: &[String], between: &str) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(between)
}

/// The static scale of an input, under one of the names that it may have.
pub(super) fn input_scale(shards: &Shards, names: &Names, codes: &str) -> Result<String, Error> {
    let candidates = names.inputs_of(codes);
    let expected = quoted(&candidates, ", ");
    present(shards, candidates).into_iter().next().ok_or_else(|| {
        shards.invalid(codes, format!("has inputs with a static scale, but there is none of {expected}"))
    })
}
