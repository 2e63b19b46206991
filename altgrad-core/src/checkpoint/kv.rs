//! Reads the scales of keys and values in a key-value cache, in all dialects.

use std::collections::BTreeMap;

use super::kv_names::{Of, layer_of};
use super::reader::Checkpoint;
use super::shards::Shards;
use super::stored::read_scales;
use crate::Result;

/// The scales by which the keys and values of an attention layer are divided before they are cached in FP8.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KvScales {
    /// The scales of the keys: one, or one per head; empty if the checkpoint has none.
    pub keys: Vec<f32>,
    /// The scales of the values, likewise.
    pub values: Vec<f32>,
}

impl KvScales {
    /// Keys and values with these scales: one each, or one per head.
    #[must_use]
    pub fn new(keys: Vec<f32>, values: Vec<f32>) -> Self {
        Self { keys, values }
    }
}

fn scales(shards: &Shards) -> Result<BTreeMap<String, KvScales>> {
    let mut found: BTreeMap<String, KvScales> = BTreeMap::new();
    for (name, _) in shards.tensors() {
        let Some((layer, of)) = layer_of(name) else { continue };
        let values = read_scales(shards, name)?;
        let scales = found.entry(layer.to_owned()).or_default();
        let places: &mut [&mut Vec<f32>] = match of {
            Of::Keys => &mut [&mut scales.keys],
            Of::Values => &mut [&mut scales.values],
            Of::Both => &mut [&mut scales.keys, &mut scales.values],
        };
        for place in places {
            if !place.is_empty() && **place != values {
                return Err(shards.invalid(name, format!("is a second scale of `{layer}` and differs from the first")));
            }
            place.clone_from(&values);
        }
    }
    Ok(found)
}

impl Checkpoint {
    /// The scales of keys and values, by the path of the attention layer (`model.layers.0.self_attn`), under any of the
    /// names that checkpoints use: `k_scale` and `v_scale` beside the layer or its projections, `output_scale` of the
    /// projections, `kv_scale`, and `kv_cache_scaling_factor`.
    ///
    /// # Errors
    ///
    /// A scale that is not a positive finite number, or two different scales of one layer.
    pub fn kv_scales(&self) -> Result<BTreeMap<String, KvScales>> {
        scales(self.shards())
    }
}
