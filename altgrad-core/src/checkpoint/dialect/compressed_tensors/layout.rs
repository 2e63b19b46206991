//! Writes the dialect of compressed-tensors.

use serde_json::{Map, Value, json};

use crate::checkpoint::layer_spec::{Inputs, Kind, LayerSpec, TensorLayout};
use crate::quantizer::{E8M0Rule, Granularity, ScaleEncoding};

/// How the exponents of the scales of inputs are rounded. The library's own rule rounds up from 1.9375 on, unlike any
/// other; this is the nearest.
pub(super) const MX_INPUTS: ScaleEncoding = ScaleEncoding::E8M0(E8M0Rule::Floor);

/// The dtype of scales that are exponents.
const MX_SCALES: &str = "torch.uint8";

/// The layout of a layer, or what of it the dialect cannot express.
pub(in crate::checkpoint::dialect) fn layout(layer: &LayerSpec) -> Result<TensorLayout, String> {
    layer.check_e4m3()?;
    input_args(layer)?;
    let [outputs, inputs] = layer.matrix()?;
    let layout = |shape: &[usize]| layer.layout("weight_scale", shape);
    let layout = match layer.granularity {
        Granularity::PerTensor => layout(&[1]),
        Granularity::PerRow | Granularity::PerChannel => layout(&[outputs, 1]),
        Granularity::PerBlock { cols, .. } if !inputs.is_multiple_of(cols) => {
            return Err(format!("blocks of {cols} columns in a weight of {inputs}, which is not a multiple"));
        }
        Granularity::PerBlock { .. } if layer.is_mx() => layout(&layer.grid()).with_exponents(),
        Granularity::PerBlock { .. } => layout(&layer.grid()),
    };
    Ok(match layer.inputs()? {
        Inputs::Static(scale) => layout.with_input_scale(layer.name("input_scale"), scale, [1]),
        _ => layout,
    })
}

/// The content of `quantization_config`: a group for each way in which layers are quantized.
pub(in crate::checkpoint::dialect) fn config(layers: &[LayerSpec], full_precision: &[String]) -> Result<Value, String> {
    let mut schemes: Vec<(Value, bool, Vec<&str>)> = Vec::new();
    for layer in layers {
        let inputs = input_args(layer)?;
        let format = match (layer.is_mx(), &inputs) {
            (true, _) => "mxfp8-quantized",
            (false, Value::Null) => "naive-quantized",
            (false, _) => "float-quantized",
        };
        // An embedding is not of the class of linear layers, so it must be listed by name.
        let may_be_embedding = layer.kind != Kind::Linear;
        let scheme = json!({
            "weights": weight_args(layer),
            "input_activations": inputs,
            "output_activations": null,
            "format": format,
        });
        match schemes.iter_mut().find(|(known, named, _)| *known == scheme && *named == may_be_embedding) {
            Some((.., paths)) => paths.push(&layer.path),
            None => schemes.push((scheme, may_be_embedding, vec![&layer.path])),
        }
    }
    let format = match schemes.split_first() {
        Some(((first, ..), others)) if others.iter().all(|(scheme, ..)| scheme["format"] == first["format"]) => {
            first["format"].clone()
        }
        _ => "mixed-precision".into(),
    };
    let is_one = schemes.iter().filter(|(_, may_be_embedding, _)| !may_be_embedding).count() == 1;
    let groups: Map<String, Value> = schemes
        .into_iter()
        .enumerate()
        .map(|(number, (mut scheme, may_be_embedding, paths))| {
            // If all layers are quantized in one way, the target is their class, so that fused layers of other
            // frameworks match it.
            scheme["targets"] = if is_one && !may_be_embedding { json!(["Linear"]) } else { json!(paths) };
            (format!("group_{number}"), scheme)
        })
        .collect();
    Ok(json!({
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "kv_cache_scheme": null,
        "config_groups": groups,
        "ignore": full_precision,
    }))
}

/// `QuantizationArgs` of a weight.
fn weight_args(layer: &LayerSpec) -> Value {
    let mut args = args("tensor", false);
    match layer.granularity {
        Granularity::PerTensor => {}
        Granularity::PerRow | Granularity::PerChannel => args["strategy"] = "channel".into(),
        Granularity::PerBlock { rows: 1, cols } => {
            args["strategy"] = "group".into();
            args["group_size"] = cols.into();
        }
        Granularity::PerBlock { rows, cols } => {
            args["strategy"] = "block".into();
            args["block_structure"] = json!([rows, cols]);
        }
    }
    if layer.is_mx() {
        args["scale_dtype"] = MX_SCALES.into();
    }
    args
}

/// `QuantizationArgs` of a layer's input, null if it is in full precision, or what of it the dialect cannot express.
fn input_args(layer: &LayerSpec) -> Result<Value, String> {
    match layer.inputs()? {
        Inputs::Full => Ok(Value::Null),
        Inputs::Static(_) => Ok(args("tensor", false)),
        Inputs::Dynamic(Granularity::PerTensor) => Ok(args("tensor", true)),
        Inputs::Dynamic(Granularity::PerRow | Granularity::PerChannel) => Ok(args("token", true)),
        Inputs::Dynamic(Granularity::PerBlock { rows: 1, cols }) => {
            let mut args = args("group", true);
            args["group_size"] = cols.into();
            Ok(args)
        }
        Inputs::Dynamic(Granularity::PerBlock { .. }) => Err("inputs in blocks of several rows".to_owned()),
        Inputs::Mx(MX_INPUTS) => {
            let mut args = args("group", true);
            args["group_size"] = 32.into();
            args["scale_dtype"] = MX_SCALES.into();
            Ok(args)
        }
        Inputs::Mx(encoding) => Err(format!("inputs with exponents by {encoding:?}, but it rounds exponents down")),
    }
}

fn args(strategy: &str, dynamic: bool) -> Value {
    json!({
        "num_bits": 8,
        "type": "float",
        "symmetric": true,
        "dynamic": dynamic,
        "strategy": strategy,
        "group_size": null
    })
}
