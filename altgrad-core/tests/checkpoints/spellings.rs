//! Spellings of programs that cannot be run to make fixtures: read where the dialect is told, else refused by name.

use std::fs;
use std::path::Path;

use altgrad_core::checkpoint::{Checkpoint, Dialect};
use altgrad_core::{Fp8, Granularity, QuantizedVarBuilder, Scaling, linear_no_bias};
use candle_core::{DType, Device};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bits;

/// Name, dtype and shape; codes are all 1, scales 2, 3, … and other tensors zero.
type Tensors<'t> = &'t [(&'t str, Dtype, &'t [usize])];

const SCALAR: &[usize] = &[];

fn bytes(dtype: Dtype, shape: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    match dtype {
        Dtype::F8_E4M3 => vec![0x38; count],
        Dtype::F32 => (0..count).flat_map(|i| (2.0 + i as f32).to_le_bytes()).collect(),
        _ => vec![0; count * dtype.bitsize() / 8],
    }
}

fn write(tensors: Tensors<'_>, quantization: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data: Vec<_> = tensors.iter().map(|(_, dtype, shape)| bytes(*dtype, shape)).collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, dtype, shape), data)| (name.to_string(), TensorView::new(*dtype, shape.to_vec(), data).unwrap()));
    serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    if !quantization.is_null() {
        let config = json!({ "quantization_config": quantization });
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    }
    folder
}

fn open(folder: &TempDir) -> Checkpoint {
    Checkpoint::open(&[folder.path()]).unwrap_or_else(|error| panic!("{error}"))
}

/// What is wrong with a checkpoint, or with tensors of it that cannot be read.
fn faults(folder: &Path) -> String {
    let checkpoint = match Checkpoint::open(&[folder]) {
        Err(error) => return error.to_string(),
        Ok(checkpoint) => checkpoint,
    };
    let contents = checkpoint.inspect().unwrap();
    let unreadable = contents.tensors.iter().filter(|tensor| tensor.unreadable.is_some());
    let asked = unreadable.map(|tensor| {
        let error = checkpoint.tensor(&tensor.name, DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(tensor.unreadable.as_ref().unwrap()), "{error}");
        error
    });
    let asked: Vec<String> = asked.collect();
    assert!(!asked.is_empty(), "all can be read");
    asked.join("; ")
}

/// Fails unless the error has all of `parts`.
fn assert_refused(tensors: Tensors<'_>, quantization: &Value, parts: &[&str]) -> TempDir {
    let folder = write(tensors, quantization);
    let message = faults(folder.path());
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    folder
}

fn read(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    checkpoint.tensor(name, DType::F32, &Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn scales_of_unknown_names_are_not_passed_over() {
    for scale in ["a.scaling", "a.qscale", "a.my_scale"] {
        let tensors: Tensors<'_> = &[("a.weight", Dtype::F8_E4M3, &[2, 4]), (scale, Dtype::F32, SCALAR)];
        let folder = assert_refused(tensors, &Value::Null, &[scale, "`a.weight`", "open_as", "--from"]);
        let plain = Checkpoint::open_as(&[folder.path()], Dialect::Plain).unwrap();
        assert_eq!(read(&plain, "a.weight"), [1.0; 8]);
    }
    // Nor by a parameter that is called like a scale, and cannot be one by its shape or its dtype.
    for (dtype, shape) in [(Dtype::F32, &[3][..]), (Dtype::F8_E4M3, &[2])] {
        let tensors: Tensors<'_> = &[("a.weight", Dtype::F8_E4M3, &[2, 4]), ("a.scale", dtype, shape)];
        let checkpoint = Checkpoint::open_as(&[write(tensors, &Value::Null).path()], Dialect::Plain).unwrap();
        assert_eq!(read(&checkpoint, "a.weight"), [1.0; 8]);
    }
    // A scale elsewhere is none of these codes.
    let tensors: Tensors<'_> = &[("a.weight", Dtype::F8_E4M3, &[2, 4]), ("norm.scale", Dtype::F32, &[4])];
    assert_eq!(open(&write(tensors, &Value::Null)).dialect(), Dialect::Plain);
}

#[test]
fn static_inputs_are_found_by_each_of_their_names() {
    for (scale, input) in
        [("weight_scale_inv", "activation_scale"), ("weight_scale", "input_scale"), ("qscale_weight", "qscale_act")]
    {
        let (scale, input) = (format!("a.{scale}"), format!("a.{input}"));
        let tensors: Tensors<'_> =
            &[("a.weight", Dtype::F8_E4M3, &[2, 4]), (&scale, Dtype::F32, SCALAR), (&input, Dtype::F32, &[1])];
        let checkpoint = open(&write(tensors, &json!({ "quant_method": "fp8", "activation_scheme": "static" })));
        let [weight] = &checkpoint.quantized().unwrap()[..] else { panic!() };
        assert_eq!(weight.activations.as_ref().unwrap().scaling, Scaling::Static(2.0));
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a.weight"]);
        assert_eq!(read(&checkpoint, "a.weight"), [2.0; 8]);
    }
    let tensors: Tensors<'_> = &[("a.weight", Dtype::F8_E4M3, &[2, 4]), ("a.weight_scale", Dtype::F32, SCALAR)];
    let config = json!({ "quant_method": "fp8", "activation_scheme": "static" });
    assert_refused(tensors, &config, &["`a.weight`", "`a.activation_scale`", "`a.input_scale`"]);
}

#[test]
fn inputs_are_quantized_as_weights_are_cut() {
    let config = json!({ "quant_method": "fp8", "activation_scheme": "dynamic" });
    let one: Tensors<'_> = &[("a.weight", Dtype::F8_E4M3, &[130, 4]), ("a.weight_scale", Dtype::F32, SCALAR)];
    let blocks: Tensors<'_> = &[("a.weight", Dtype::F8_E4M3, &[130, 4]), ("a.weight_scale_inv", Dtype::F32, &[2, 1])];
    for (tensors, granularity) in [(one, Granularity::PerRow), (blocks, Granularity::PerBlock { rows: 1, cols: 128 })] {
        let checkpoint = open(&write(tensors, &config));
        assert_eq!(checkpoint.quantized().unwrap()[0].activations.as_ref().unwrap().granularity, granularity);
    }
}

#[test]
fn fused_experts_have_scales_under_their_own_names() {
    let transformers: Tensors<'_> = &[
        ("experts.down_proj", Dtype::F8_E4M3, &[2, 4, 4]),
        ("experts.down_proj_scale_inv", Dtype::F32, &[2, 1, 1]),
        ("experts.down_proj_activation_scale", Dtype::F32, &[2]),
    ];
    let fp8 = json!({ "quant_method": "fp8", "activation_scheme": "static", "weight_block_size": [4, 4] });
    let modelopt: Tensors<'_> = &[
        ("experts.down_proj", Dtype::F8_E4M3, &[2, 4, 4]),
        ("experts.down_proj_weight_scale", Dtype::F32, &[2, 1, 1]),
        ("experts.down_proj_input_scale", Dtype::F32, SCALAR),
    ];
    for (tensors, config) in
        [(transformers, fp8), (modelopt, json!({ "quant_method": "modelopt", "quant_algo": "FP8" }))]
    {
        let checkpoint = open(&write(tensors, &config));
        assert_eq!(read(&checkpoint, "experts.down_proj"), [[2.0; 16], [3.0; 16]].concat());
        assert_eq!(checkpoint.quantized().unwrap()[0].activations, None);
    }
}

#[test]
fn an_algorithm_is_that_of_the_module_around_a_layer() {
    let tensors: Tensors<'_> = &[
        ("mlp.experts.0.up_proj.weight", Dtype::F8_E4M3, &[2, 4]),
        ("mlp.experts.0.up_proj.weight_scale", Dtype::F32, &[2]),
    ];
    let config = |module: &str| {
        json!({
            "quant_method": "modelopt",
            "quant_algo": "MIXED_PRECISION",
            "quantized_layers": { module: { "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN" } },
        })
    };
    let checkpoint = open(&write(tensors, &config("mlp.experts")));
    assert_eq!(checkpoint.quantized().unwrap()[0].granularity, Granularity::PerRow);
    assert_refused(tensors, &config("mlp.gate"), &["`mlp.experts.0.up_proj.weight`", "no `quant_algo`"]);
}

#[test]
fn weights_of_four_bits_are_called_so() {
    let tensors: Tensors<'_> = &[
        ("a.weight_packed", Dtype::U8, &[2, 4]),
        ("a.weight_scale", Dtype::F8_E4M3, &[2, 1]),
        ("a.weight_global_scale", Dtype::F32, &[1]),
    ];
    let group = json!({ "targets": ["Linear"], "weights": { "num_bits": 4, "type": "float", "group_size": 16 } });
    let config = json!({ "quant_method": "compressed-tensors", "config_groups": { "group_0": group } });
    assert_refused(tensors, &config, &["config.json", "`group_0`", "4 bits"]);
    let config = json!({ "quant_method": "compressed-tensors" });
    assert_refused(tensors, &config, &["`a.weight_scale`", "F8_E4M3", "4-bit"]);
}

#[test]
fn a_method_that_is_unknown_leaves_a_way() {
    let tensors: Tensors<'_> = &[("a.weight", Dtype::F8_E4M3, &[2, 4]), ("a.weight_scale", Dtype::F32, &[2, 1])];
    let folder = assert_refused(tensors, &json!({ "quant_method": "mine" }), &["`mine`", "open_as"]);
    let checkpoint = Checkpoint::open_as(&[folder.path()], Dialect::CompressedTensors).unwrap();
    assert_eq!(read(&checkpoint, "a.weight"), [[2.0; 4], [3.0; 4]].concat());
}

#[test]
fn what_is_not_there_is_missed_by_name() {
    let folder = write(&[("model.a.weight", Dtype::F32, &[2, 4])], &Value::Null);
    let checkpoint = open(&folder);
    let vb = checkpoint.var_builder(DType::F32, &Device::Cpu);
    for message in [
        vb.get((2, 4), "a.weight").unwrap_err().to_string(),
        checkpoint.tensor("a.weight", DType::F32, &Device::Cpu).unwrap_err().to_string(),
    ] {
        for part in ["`a.weight` is not there", "`model.a.weight`", folder.path().to_str().unwrap()] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn swizzled_scales_fill_their_tiles() {
    let described = json!({
        "_type": "MXTensor",
        "_data": { "block_size": 32, "is_swizzled_scales": true },
    });
    let metadata = [("tensor_names", json!(["a.weight"])), ("a.weight", described)];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_string()));
    for (rows, cols, scales, what) in [
        (129, 32, [64, 16], None),
        (129, 32, [32, 16], Some("fill 2 tiles")),
        (129, 160, [64, 32], None),
        (129, 160, [64, 16], Some("fill 4 tiles")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (codes, ones) = (vec![0x38; rows * cols], vec![127; scales[0] * scales[1]]);
        let views = [
            ("a._weight_qdata", TensorView::new(Dtype::F8_E4M3, vec![rows, cols], &codes).unwrap()),
            ("a._weight_scale", TensorView::new(Dtype::F8_E8M0, scales.to_vec(), &ones).unwrap()),
        ];
        let file = folder.path().join("model.safetensors");
        serialize_to_file(views, Some(metadata.clone().into()), &file).unwrap();
        match what {
            None => assert_eq!(read(&open(&folder), "a.weight"), vec![1.0; rows * cols]),
            Some(what) => {
                let message = faults(&file);
                assert!(message.contains("`a._weight_scale`") && message.contains(what), "{message}");
            }
        }
    }
}

/// A slot that finds codes is frozen; over a `QuantizedVarBuilder` it gets what that makes of the weight.
#[test]
fn a_quantized_var_builder_comes_before_the_codes_of_a_checkpoint() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints/fixtures/compressed-tensors-channel-dynamic-f32");
    let vb = Checkpoint::open(&[path]).unwrap().var_builder(DType::F32, &Device::Cpu);
    let quantized = QuantizedVarBuilder::new(vb.clone(), Fp8::E2M5).unwrap();
    let name = "model.layers.0.mlp.up_proj";
    let slot = linear_no_bias(32, 7, quantized.builder().pp(name)).unwrap();
    let report = quantized.report().unwrap();
    assert_eq!(report.layer(name).unwrap().format, Some(Fp8::E2M5));
    let codes = linear_no_bias(32, 7, vb.pp(name)).unwrap();
    assert_ne!(bits(&slot.weight().unwrap()), bits(&codes.weight().unwrap()));
}
