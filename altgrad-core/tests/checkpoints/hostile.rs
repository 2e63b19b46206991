//! Files that were made to break a reader, and what a reader is easily led to pass over.

use std::fs;

use altgrad_core::checkpoint::{Checkpoint, Dialect, Writer};
use altgrad_core::{Fp8, Granularity, QuantConfig, Quantizer, checkpoint};
use candle_core::{DType, Device};
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wild::{Stored, bf16s, f32s, ones, text, write};

/// Everything that reads a checkpoint: none of it may panic, whatever becomes of it.
fn read_all(checkpoint: &Checkpoint) {
    let _ = (checkpoint.inspect(), checkpoint.quantized(), checkpoint.kv_scales());
    for name in checkpoint.names() {
        let _ = checkpoint.tensor(name, DType::F32, &Device::Cpu);
    }
    let folder = tempfile::tempdir().unwrap();
    let _ = checkpoint.dequantize(DType::BF16, folder.path().join("full"), |_| ());
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    let writer = Writer::new(Dialect::CompressedTensors).requantize();
    let _ = writer.quantize(checkpoint, QuantConfig::new(rows), folder.path().join("rows"), |_| ());
}

/// A checkpoint, and the folder that it is read from.
fn opened(tensors: &[Stored], quantization: &Value) -> (TempDir, Checkpoint) {
    let folder = write(tensors, &json!({ "quantization_config": quantization }).to_string());
    let checkpoint = Checkpoint::open(&[folder.path()]).unwrap();
    (folder, checkpoint)
}

fn of_altgrad(shape: &[usize], scales: &[usize], granularity: &Value) -> (TempDir, Option<Checkpoint>) {
    let layer = json!({ "format": "E4M3", "granularity": granularity });
    let config = json!({ "quantization_config": { "quant_method": "altgrad", "layers": { "l": layer } } });
    let count: usize = scales.iter().product();
    // A zero makes a reader look at the codes under it.
    let values: Vec<f32> = (0..count).map(|i| if i == 0 { 0.0 } else { 1.0 }).collect();
    let folder = write(&[ones("l.weight", shape), f32s("l.weight_scale", scales, &values)], &config.to_string());
    let checkpoint = Checkpoint::open(&[folder.path()]).ok();
    (folder, checkpoint)
}

#[test]
fn blocks_without_elements_and_across_matrices() {
    let (_folder, checkpoint) = of_altgrad(&[2, 4], &[1, 2], &json!({ "per_block": { "rows": 2, "cols": 2 } }));
    let error = checkpoint.unwrap().tensor("l.weight", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("has scale 0 at index 0"), "{error}");
    for granularity in [(0, 0), (0, 2), (2, 0), (2, 4), (3, 4), (5, 4), (usize::MAX, usize::MAX)] {
        let granularity = json!({ "per_block": { "rows": granularity.0, "cols": granularity.1 } });
        for shape in [&[2, 4][..], &[2, 3, 4], &[2, 4, 4], &[2, 0, 4], &[2, 3, 0], &[0, 4], &[4]] {
            for scales in [&[][..], &[1], &[2], &[2, 4], &[3, 1], &[2, 1], &[1, 1], &[2, 3, 4], &[0, 1]] {
                let (_folder, checkpoint) = of_altgrad(shape, scales, &granularity);
                checkpoint.iter().for_each(read_all);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Codes and scales of any small shapes, empty ones among them, declared as any blocks or as none.
    #[test]
    fn shapes_that_do_not_fit_are_errors(
        shape in prop::collection::vec(0usize..5, 0..4),
        scales in prop::collection::vec(0usize..5, 0..5),
        block in prop::option::of((0usize..4, 0usize..4)),
        name in select(&["weight_scale", "weight_scale_inv", "scale_weight", "weights_scaling_factor"][..]),
    ) {
        let count = scales.iter().product();
        let tensors = [ones("l.weight", &shape), f32s(&format!("l.{name}"), &scales, &vec![1.0; count])];
        let config = match block {
            None => String::new(),
            Some((rows, cols)) => {
                let fields = json!({ "quant_method": "fp8", "weight_block_size": [rows, cols] });
                json!({ "quantization_config": fields }).to_string()
            }
        };
        let folder = write(&tensors, &config);
        if let Ok(checkpoint) = Checkpoint::open(&[folder.path()]) {
            read_all(&checkpoint);
        }
    }
}

#[test]
fn nesting_without_end() {
    let deep = "[".repeat(200_000) + "NaN";
    let folder = write(&[ones("l.weight", &[2, 2])], &deep);
    let error = Checkpoint::open(&[folder.path()]).unwrap_err().to_string();
    assert!(error.contains("it is not valid JSON"), "{error}");
    let tensors = [ones("l.weight", &[2, 2]), f32s("l.scale_weight", &[], &[1.0]), text("l.comfy_quant", &deep)];
    let folder = write(&tensors, "");
    Checkpoint::open(&[folder.path()]).iter().for_each(read_all);
}

#[test]
fn empty_tensors_of_any_size() {
    let huge = 1 << 58;
    let tensors = [
        Stored { name: "e.weight".to_owned(), dtype: Dtype::F32, shape: vec![huge, 0], bytes: Vec::new() },
        Stored { name: "f".to_owned(), dtype: Dtype::F32, shape: vec![0, huge], bytes: Vec::new() },
        f32s("l.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        ones("m.weight", &[2, 2]),
        f32s("m.weight_scale_inv", &[1, 1], &[0.5]),
    ];
    let config = json!({ "quant_method": "fp8", "weight_block_size": [2, 2] });
    let (_folder, checkpoint) = opened(&tensors, &config);
    let out = tempfile::tempdir().unwrap();
    assert_eq!(checkpoint.dequantize(DType::F32, out.path().join("full"), |_| ()).unwrap(), 1);
    let writer = Writer::new(Dialect::CompressedTensors).requantize();
    let report = writer.quantize(&checkpoint, Fp8::E4M3, out.path().join("tensors"), |_| ()).unwrap();
    assert!(report.to_string().contains("weight without elements"), "{report}");
}

#[test]
fn elements_of_less_than_a_byte_are_copied() {
    let bytes = vec![0x12, 0x34, 0x56];
    let tensors = [
        Stored { name: "packed".to_owned(), dtype: Dtype::F4, shape: vec![2, 3], bytes: bytes.clone() },
        f32s("l.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
    ];
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("out");
    let writer = Writer::new(Dialect::CompressedTensors);
    let (_folder, checkpoint) = opened(&tensors, &Value::Null);
    writer.quantize(&checkpoint, Fp8::E4M3, &folder, |_| ()).unwrap();
    let file = fs::read(folder.join("model.safetensors")).unwrap();
    let written = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(written.tensor("packed").unwrap().data(), bytes);
}

#[test]
fn what_is_called_like_a_scale_is_kept() {
    let weight = [ones("l.weight", &[2, 2]), f32s("l.weight_scale", &[1], &[0.5])];
    let others = [
        f32s("norm.weight", &[2], &[1.0, 2.0]),
        f32s("norm.scale", &[2], &[3.0, 4.0]),
        bf16s("m.alpha", &[2], &[1.0, 2.0]),
        bf16s("m.alpha_scale", &[2], &[3.0, 4.0]),
        bf16s("m.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        f32s("attn.q_scale", &[2], &[-1.0, 2.0]),
        f32s("attn.k_scale", &[2], &[-1.0, 2.0]),
    ];
    let names: Vec<String> = others.iter().map(|tensor| tensor.name.clone()).collect();
    let tensors: Vec<Stored> = weight.into_iter().chain(others).collect();
    for config in [
        json!({ "quant_method": "modelopt", "quant_algo": "FP8" }),
        json!({ "quant_method": "fp8" }),
        json!({ "quant_method": "quark", "global_quant_config": { "weight": { "dtype": "fp8_e4m3" } } }),
    ] {
        let (_folder, checkpoint) = opened(&tensors, &config);
        let out = tempfile::tempdir().unwrap();
        let folder = out.path().join("full");
        checkpoint.dequantize(DType::F32, &folder, |_| ()).unwrap();
        let full = checkpoint::var_builder(&[&folder], DType::F32, &Device::Cpu).unwrap();
        let mut original: Vec<&str> = checkpoint.names().collect();
        original.retain(|name| *name != "l.weight");
        assert_eq!(original.len(), names.len(), "{config}");
        assert!(names.iter().all(|name| full.contains_tensor(name)), "{config}");
    }
}

#[test]
fn codes_whose_scale_is_not_known_are_no_values() {
    let marked = |format: &str| text("l.comfy_quant", &json!({ "format": format }).to_string());
    let other = || [ones("m.weight", &[2, 2]), f32s("m.scale_weight", &[], &[1.0])].into_iter();
    let marks = [vec![marked("mxfp8")], vec![marked("float8_e4m3fn")], vec![f32s("l.weight_scale_inv", &[], &[0.5])]];
    for beside in marks {
        let tensors: Vec<Stored> = [ones("l.weight", &[2, 2])].into_iter().chain(beside).chain(other()).collect();
        let folder = write(&tensors, "");
        let checkpoint = Checkpoint::open_as(&[folder.path()], Dialect::ComfyUi).unwrap();
        let error = checkpoint.tensor("l.weight", DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("has no scale"), "{error}");
        assert!(checkpoint.tensor("m.weight", DType::F32, &Device::Cpu).is_ok());
    }
    // Of a layer that nothing is said of, values are what a cast made of them.
    let tensors: Vec<Stored> = [ones("l.weight", &[2, 2])].into_iter().chain(other()).collect();
    let folder = write(&tensors, "");
    let checkpoint = Checkpoint::open_as(&[folder.path()], Dialect::ComfyUi).unwrap();
    assert!(checkpoint.tensor("l.weight", DType::F32, &Device::Cpu).is_ok());
}

#[test]
fn what_is_written_says_nothing_of_an_earlier_quantization() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let old = json!({ "quant_method": "fp8", "activation_scheme": "dynamic" });
    let config = json!({ "a": 1, "quantization_config": old, "text_config": { "compression_config": old, "b": 2 } });
    fs::write(&file, config.to_string()).unwrap();
    let model = super::Layers::from([("l", super::frozen(4, 4, 1, Fp8::E4M3))]);
    for dialect in [Dialect::ComfyUi, Dialect::CompressedTensors] {
        let out = folder.path().join(dialect.to_string());
        Writer::new(dialect).config_from(&file).unwrap().save(&model, &out).unwrap();
        let written: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!((&written["a"], &written["text_config"]), (&json!(1), &json!({ "b": 2 })));
        assert_eq!(written.get("quantization_config").is_some(), dialect != Dialect::ComfyUi);
        assert_eq!(Checkpoint::open(&[&out]).unwrap().dialect(), dialect);
    }
}

#[test]
fn modelopt_says_things_twice_or_not() {
    let tensors = [
        ones("l.weight", &[2, 2]),
        f32s("l.weight_scale", &[], &[0.5]),
        ones("m.weight", &[2, 2]),
        ones("n.weight", &[2, 2]),
    ];
    let config = json!({
        "quant_method": "modelopt", "quant_algo": "FP8", "quantized_layers": null,
        "ignore": ["m"], "exclude_modules": ["n"],
    });
    let (_folder, checkpoint) = opened(&tensors, &config);
    for (name, expected) in [("l", 0.5), ("m", 1.0), ("n", 1.0)] {
        let values = checkpoint.tensor(&format!("{name}.weight"), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(values.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [expected; 4]);
    }
}
