//! The dialect of ComfyUI: diffusion models in one file. A `comfy_quant` tensor marks each quantized layer; older files
//! have one `scaled_fp8` tensor for all.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::facts::{Facts, Holds, Name, Names, Write};
use super::pair::{Pairing, present};
use super::tensors::DialectTensors;
use super::tensors::layer_of;
use crate::checkpoint::config::Configs;
use crate::checkpoint::json;
use crate::checkpoint::layer_spec::{Inputs, LayerSpec, TensorLayout};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, StoredActivations};
use crate::quantizer::Granularity;
use crate::{Fp8, Result};

pub(super) const FACTS: Facts = Facts {
    name: "comfyui",
    methods: &[],
    names: Names {
        scales: &[Name::Beside("scale_weight")],
        further_scales: &[Name::Beside("weight_scale")],
        inputs: &[Name::Beside("scale_input"), Name::Beside("input_scale")],
        others: &[Name::Beside(MARK)],
    },
    read,
    write: Some(Write {
        layout,
        config: |_, _| Ok(Value::Null),
        repertoire: "; it has E4M3 and E5M2 weights per tensor, with inputs in full precision or in E4M3 under a \
                     static scale",
    }),
    holds: Holds::DiffusionModels,
};

/// The name of the tensor beside a weight that says how the weight is quantized.
const MARK: &str = "comfy_quant";
/// The name of the tensor that marks a whole file as quantized.
const OLD_MARK: &str = "scaled_fp8";
/// The key in the header of a file under which all layers are described as by their marks.
const METADATA: &str = "_quantization_metadata";

/// The description of a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Layer {
    format: String,
    /// Whether the input stays in full precision.
    #[serde(default, skip_serializing_if = "is_false")]
    full_precision_matrix_mult: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The descriptions in the header.
#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    layers: HashMap<String, Layer>,
}

/// Whether a checkpoint has the marks of ComfyUI.
pub(super) fn is_marked(shards: &Shards) -> bool {
    let is_mark = |name: &str| matches!(name.rsplit('.').next(), Some(MARK | OLD_MARK));
    shards.files().iter().any(|file| file.metadata().contains_key(METADATA))
        || shards.tensors().any(|(name, _)| is_mark(name))
}

/// Weights with their scale; codes without a scale are the values.
fn read(shards: &Shards, _: &Configs) -> Result<DialectTensors> {
    let mut layers = HashMap::new();
    for file in shards.files() {
        if let Some(text) = file.metadata().get(METADATA) {
            let metadata: Metadata = json::parse_as(text.as_bytes()).map_err(|error| {
                let why = format!("`{METADATA}` in its header cannot be read: {error}");
                crate::checkpoint::file::invalid(file.path(), None, why)
            })?;
            layers.extend(metadata.layers);
        }
    }
    let old_marks: Vec<(String, usize)> = shards
        .tensors()
        .filter(|(name, _)| name.rsplit('.').next() == Some(OLD_MARK))
        .map(|(name, info)| (name.to_owned(), info.shape.iter().product()))
        .collect();
    // A mark of two elements means that products must not be computed in FP8.
    let leaves_inputs = old_marks.iter().any(|(_, elements)| *elements == 2);
    let layer_of_codes = |codes: &str| -> Result<Option<Layer>> {
        if let Some(mark) = Name::Beside(MARK).of(codes).filter(|mark| shards.contains(mark)) {
            let layer = json::parse_as(&shards.read(&mark)?);
            return layer.map(Some).map_err(|error| shards.invalid(&mark, format!("cannot be read: {error}")));
        }
        Ok(layers.get(layer_of(codes)).cloned())
    };
    let describe = |codes: &str, scales: &str| {
        let layer = layer_of_codes(codes)?;
        let mut stored = match layer.as_ref().map(|layer| layer.format.as_str()) {
            Some("mxfp8") => Stored::swizzled(shards, codes, scales, [1, 32])?,
            None | Some("float8_e4m3fn" | "float8_e5m2") => Stored::new(shards, codes, Some(scales), None)?,
            Some(other) => {
                let why =
                    format!("is of the format `{other}`; altgrad reads `float8_e4m3fn`, `float8_e5m2` and `mxfp8`");
                return Err(shards.invalid(codes, why));
            }
        };
        let is_left = layer.map_or(leaves_inputs, |layer| layer.full_precision_matrix_mult);
        let input = present(shards, FACTS.names.inputs_of(codes)).into_iter().next().filter(|_| !is_left);
        stored.activations = input.map(|scale| StoredActivations::Static(Fp8::E4M3, scale));
        Ok(stored)
    };
    // The codes of a layer without a mark are its values, cast to FP8.
    let is_plain = |layer: &str| !layers.contains_key(layer) && !shards.contains(&format!("{layer}.{MARK}"));
    let pairing =
        Pairing { names: &FACTS.names, is_plain: &is_plain, keeps_full_precision: false, describe: &describe };
    let mut found = pairing.find(shards)?;
    for (mark, _) in old_marks {
        found.tensors.remove(&mark);
        found.parts.insert(mark);
    }
    Ok(found)
}

/// The layout of a layer, or what of it the dialect cannot express.
fn layout(layer: &LayerSpec) -> Result<TensorLayout, String> {
    let (format, dtype) = match layer.format {
        Fp8::E4M3 => ("float8_e4m3fn", safetensors::Dtype::F8_E4M3),
        Fp8::E5M2 => ("float8_e5m2", safetensors::Dtype::F8_E5M2),
        other => return Err(format!("weights in {other}")),
    };
    layer.linear()?;
    if layer.granularity != Granularity::PerTensor {
        return Err(format!("weights {}", layer.granularity));
    }
    let layout = TensorLayout { codes_dtype: dtype, ..layer.layout("weight_scale", []) };
    let (layout, leaves_inputs) = match layer.inputs()? {
        Inputs::Full => (layout, true),
        Inputs::Static(scale) => (layout.with_input_scale(layer.name("input_scale"), scale, []), false),
        Inputs::Dynamic(_) | Inputs::Mx(_) => return Err("inputs with dynamic scales".to_owned()),
    };
    let mark = Layer { format: format.to_owned(), full_precision_matrix_mult: leaves_inputs };
    let mark = serde_json::to_vec(&mark).map_err(|error| error.to_string())?;
    Ok(layout.with_mark(layer.name(MARK), mark))
}
