//! The configuration of compressed-tensors: groups of layers, and how each of their tensors is quantized.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

/// What `quantization_config` says (compressed-tensors, `QuantizationConfig`).
#[derive(Debug, Default, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) config_groups: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) ignore: Option<Vec<String>>,
}

/// How some layers are quantized (`QuantizationScheme`).
#[derive(Debug, Deserialize)]
pub(super) struct Group {
    pub(super) targets: Vec<String>,
    pub(super) weights: Option<Args>,
    pub(super) input_activations: Option<Args>,
}

/// How one tensor is quantized (`QuantizationArgs`).
#[derive(Debug, Deserialize)]
pub(super) struct Args {
    #[serde(default = "eight")]
    pub(super) num_bits: u32,
    #[serde(rename = "type", default = "int")]
    pub(super) kind: String,
    pub(super) strategy: Option<String>,
    #[serde(default = "yes")]
    pub(super) symmetric: bool,
    #[serde(default)]
    pub(super) dynamic: Dynamic,
    pub(super) group_size: Option<i64>,
    #[serde(default, deserialize_with = "block_structure")]
    pub(super) block_structure: Option<[usize; 2]>,
    pub(super) scale_dtype: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Dynamic {
    Always(bool),
    #[allow(dead_code, reason = "a word that is read and refused")]
    Other(String),
}

impl Default for Dynamic {
    fn default() -> Self {
        Self::Always(false)
    }
}

/// Rows and columns of a block: a list, or in old files text such as `128x128`.
fn block_structure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[usize; 2]>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "rows and columns, such as [128, 128]")]
    enum Spelled {
        Sides([usize; 2]),
        Text(String),
    }
    match Option::<Spelled>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Spelled::Sides(sides)) => Ok(Some(sides)),
        Some(Spelled::Text(text)) => {
            let sides = text.split_once('x').and_then(|(rows, cols)| Some([rows.parse().ok()?, cols.parse().ok()?]));
            sides.map(Some).ok_or_else(|| D::Error::custom(format!("`{text}` is not a block; write it like 128x128")))
        }
    }
}

fn eight() -> u32 {
    8
}

fn int() -> String {
    "int".to_owned()
}

fn yes() -> bool {
    true
}

impl Args {
    /// Fails with the reason if altgrad does not read it.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.num_bits != 8 || !self.kind.eq_ignore_ascii_case("float") {
            return Err(format!("{} bits of type {} are not FP8", self.num_bits, self.kind));
        }
        if !self.symmetric {
            return Err("FP8 has no zero point".to_owned());
        }
        Ok(())
    }

    /// The size of blocks, unless scales are per tensor or per row.
    pub(super) fn block(&self) -> Option<[usize; 2]> {
        match (self.block_structure, self.group_size) {
            (Some(block), _) => Some(block),
            (None, Some(size)) if size > 0 => Some([1, size as usize]),
            _ => None,
        }
    }

    pub(super) fn is_mx(&self) -> bool {
        self.scale_dtype.as_deref().is_some_and(|dtype| dtype.ends_with("uint8"))
    }
}

/// The group that a list of targets under the name of a preset scheme stands for (`PRESET_SCHEMES`), if its weights are
/// FP8.
pub(super) fn preset(name: &str, targets: &Value) -> Option<Value> {
    let args = |strategy: &str, more: Value| {
        let mut args = json!({ "num_bits": 8, "type": "float", "strategy": strategy });
        if let (Some(args), Value::Object(more)) = (args.as_object_mut(), more) {
            args.extend(more);
        }
        args
    };
    let mx =
        |dynamic: bool| args("group", json!({ "group_size": 32, "scale_dtype": "torch.uint8", "dynamic": dynamic }));
    let (weights, inputs) = match name.to_ascii_uppercase().as_str() {
        "FP8" => (args("tensor", json!({})), args("tensor", json!({}))),
        "FP8_DYNAMIC" => (args("channel", json!({})), args("token", json!({ "dynamic": true }))),
        "FP8_BLOCK" => (
            args("block", json!({ "block_structure": [128, 128] })),
            args("group", json!({ "group_size": 128, "dynamic": true })),
        ),
        "MXFP8" => (mx(false), mx(true)),
        "MXFP8A16" => (mx(false), Value::Null),
        _ => return None,
    };
    Some(json!({ "targets": targets, "weights": weights, "input_activations": inputs }))
}
