//! altgrad's own dialect, for what no other can say: any format, granularity and quantizer of inputs.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Result;
use crate::checkpoint::config::Section;
use crate::checkpoint::outline::{Outline, Spelling};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Activations, Stored, format_of};
use crate::format::Fp8;
use crate::quantizer::{Granularity, Quantizer};

/// What `quantization_config` says.
#[derive(Debug, Deserialize)]
struct Config {
    layers: BTreeMap<String, Layer>,
}

/// What it says of a layer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    format: Fp8,
    granularity: Granularity,
    activations: Option<Quantizer>,
}

/// Weights with their `weight_scale`, as the configuration lists them.
pub(super) fn read(shards: &Shards, section: Option<&Section>) -> Result<BTreeMap<String, Stored>> {
    let Some(section) = section else { return super::plain::read(shards) };
    let mut found = BTreeMap::new();
    for (path, layer) in section.parse::<Config>()?.layers {
        let name = |tensor: &str| if path.is_empty() { tensor.to_owned() } else { format!("{path}.{tensor}") };
        let (codes, scales) = (name("weight"), name("weight_scale"));
        let mut stored = Stored::described(shards, &codes, &scales, layer.format, layer.granularity)?;
        stored.activations = layer.activations.map(Activations::Dynamic);
        found.insert(codes, stored);
    }
    Ok(found)
}

/// The spelling of any layer.
pub(super) fn spell(layer: &Outline) -> Spelling {
    let shape = layer.granularity.scale_dims(&layer.shape);
    let dtypes = [Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::F8_E4M3FNUZ, Dtype::F8_E5M2FNUZ];
    let codes_dtype = dtypes.into_iter().find(|dtype| format_of(*dtype) == Some(layer.format)).unwrap_or(Dtype::U8);
    let spelling = Spelling { codes_dtype, ..layer.spell("weight_scale", shape) };
    if layer.exponents { spelling.with_exponents() } else { spelling }
}

/// What `quantization_config` says.
pub(super) fn config(layers: &[Outline], full_precision: &[String]) -> Value {
    let layers: BTreeMap<&str, Layer> = layers
        .iter()
        .map(|Outline { path, format, granularity, activations, .. }| {
            let layer = Layer { format: *format, granularity: *granularity, activations: activations.clone() };
            (path.as_str(), layer)
        })
        .collect();
    json!({ "quant_method": "altgrad", "layers": layers, "full_precision": full_precision })
}
