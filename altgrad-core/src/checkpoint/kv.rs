//! The scales of keys and values in a key-value cache, in all dialects.

use std::collections::BTreeMap;

use super::kv_names::{Of, layer_of};
use super::reader::Checkpoint;
use super::shards::Shards;
use super::stored::read_scales;
use crate::Result;

/// The scales that the keys and values of an attention layer are divided by on their way into a cache in FP8.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KvScales {
    /// Those of the keys: one, or one for each head; none if the checkpoint has none.
    pub keys: Vec<f32>,
    /// Those of the values.
    pub values: Vec<f32>,
}

impl KvScales {
    /// These scales: one each, or one for each head.
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
                return Err(shards.invalid(name, format!("is another scale of `{layer}` than the one before it")));
            }
            place.clone_from(&values);
        }
    }
    Ok(found)
}

impl Checkpoint {
    /// The scales of keys and values, by the path of the attention layer (`model.layers.0.self_attn`), in all dialects
    /// that checkpoints have for them: `k_scale` and `v_scale` beside the layer or its projections, `output_scale` of
    /// the projections, `kv_scale`, and `kv_cache_scaling_factor`.
    ///
    /// # Errors
    ///
    /// A scale that is not a positive finite number, or two of one layer that differ.
    pub fn kv_scales(&self) -> Result<BTreeMap<String, KvScales>> {
        scales(self.shards())
    }
}
