//! altgrad's own dialect, for what no other can express: any format, granularity and quantizer of inputs. Codes of
//! formats without a safetensors dtype, including those of 6 and 4 bits, are bytes as [`Fp8`] encodes them.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::facts::{Facts, Holds, Names, Write};
use super::tensors::DialectTensors;
use crate::checkpoint::config::Configs;
use crate::checkpoint::layer_spec::{LayerSpec, TensorLayout};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, StoredActivations, format_of};
use crate::quantizer::{Granularity, Quantizer};
use crate::{Fp8, Result};

/// What `quantization_config` says.
#[derive(Debug, Deserialize)]
struct Config {
    layers: BTreeMap<String, Layer>,
}

/// What it says about a layer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    format: Fp8,
    granularity: Granularity,
    activations: Option<Quantizer>,
}

pub(super) const FACTS: Facts = Facts {
    name: "altgrad",
    methods: &["altgrad"],
    names: Names::NONE,
    read,
    write: Some(Write {
        layout: |layer| Ok(layout(layer)),
        config: |layers, full_precision| Ok(config(layers, full_precision)),
        repertoire: "",
    }),
    holds: Holds::LanguageModels,
};

/// Weights with their `weight_scale`, as the configuration lists them.
fn read(shards: &Shards, configs: &Configs) -> Result<DialectTensors> {
    let Some(section) = &configs.quantization else { return super::plain::read(shards, configs) };
    let mut found = DialectTensors::default();
    for (path, layer) in section.parse::<Config>()?.layers {
        let name = |tensor: &str| if path.is_empty() { tensor.to_owned() } else { format!("{path}.{tensor}") };
        let (codes, scales) = (name("weight"), name("weight_scale"));
        let stored = Stored::described(shards, &codes, &scales, layer.format, layer.granularity);
        let activations = layer.activations.map(StoredActivations::Dynamic);
        let stored = stored.map(|mut stored| {
            stored.activations = activations;
            stored
        });
        found.add(&codes, stored)?;
        found.parts.insert(scales);
    }
    Ok(found)
}

/// The layout of a layer of any kind.
fn layout(layer: &LayerSpec) -> TensorLayout {
    let shape = layer.granularity.scale_dims(&layer.dims);
    let dtypes = [Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::F8_E4M3FNUZ, Dtype::F8_E5M2FNUZ];
    let codes_dtype = dtypes.into_iter().find(|dtype| format_of(*dtype) == Some(layer.format)).unwrap_or(Dtype::U8);
    let layout = TensorLayout { codes_dtype, ..layer.layout("weight_scale", shape) };
    if layer.exponents { layout.with_exponents() } else { layout }
}

/// What `quantization_config` says.
fn config(layers: &[LayerSpec], full_precision: &[String]) -> Value {
    let layers: BTreeMap<&str, Layer> = layers
        .iter()
        .map(|LayerSpec { path, format, granularity, activations, .. }| {
            let layer = Layer { format: *format, granularity: *granularity, activations: activations.clone() };
            (path.as_str(), layer)
        })
        .collect();
    json!({ "quant_method": "altgrad", "layers": layers, "full_precision": full_precision })
}
