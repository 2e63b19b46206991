//! From FP8 back to full precision, and on to another format.

use std::collections::HashMap;
use std::fs;

use altgrad_core::checkpoint::{self, Checkpoint, Dialect, Writer, compare};
use altgrad_core::{CheckpointError, Error, Fp8, Granularity, QuantConfig, Quantizer, Recipe, Scaling, TensorError};
use candle_core::{DType, Device};
use serde_json::Value;
use tempfile::TempDir;

use super::{Layers, bits, frozen, weight};

/// A folder `fp8` with a checkpoint, of which `large` is read in several pieces.
fn quantized(dialect: Dialect, quantizer: &Quantizer) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let model = Layers::from([
        ("large", frozen(3000, 520, 1, Recipe::weight_only(quantizer.clone()))),
        ("small", frozen(70, 96, 2, Recipe::weight_only(quantizer.clone()))),
    ]);
    let config = folder.path().join("config.json");
    fs::write(&config, r#"{"model_type": "llama", "torch_dtype": "float32", "time_step_limit": [0.0, Infinity]}"#)
        .unwrap();
    let writer = Writer::new(dialect).config_from(&config).unwrap();
    writer.save(&model, folder.path().join("fp8")).unwrap();
    fs::write(folder.path().join("fp8/tokenizer.json"), "{}").unwrap();
    let checkpoint = Checkpoint::open(&[folder.path().join("fp8")]).unwrap();
    (folder, checkpoint)
}

fn granularities() -> [Quantizer; 4] {
    let block = |rows, cols| Quantizer::new(Fp8::E4M3).granularity(Granularity::PerBlock { rows, cols });
    [
        Quantizer::new(Fp8::E4M3),
        Quantizer::new(Fp8::E5M2).granularity(Granularity::PerRow),
        block(128, 128),
        block(1, 32),
    ]
}

#[test]
fn values_come_back_in_each_dtype() {
    for quantizer in granularities() {
        let (folder, fp8) = quantized(Dialect::Altgrad, &quantizer);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let out = folder.path().join(format!("{dtype:?}"));
            let mut last = 0;
            let count = fp8.dequantize(dtype, &out, |progress| last = progress.done).unwrap();
            assert_eq!(count, 2);
            assert!(last > 0);
            let full = Checkpoint::open(&[&out]).unwrap();
            assert_eq!(full.quantized().unwrap().len(), 0);
            for name in ["large.weight", "small.weight"] {
                let expected = fp8.tensor(name, dtype, &Device::Cpu).unwrap();
                let actual = full.tensor(name, dtype, &Device::Cpu).unwrap();
                assert_eq!((actual.dims(), bits(&actual)), (expected.dims(), bits(&expected)), "{quantizer:?} {name}");
                let stored = full.inspect().unwrap().tensors.into_iter().find(|tensor| tensor.name == name).unwrap();
                assert_eq!(stored.dtype, format!("{dtype:?}"));
            }
            // What was not quantized is as it was.
            let bias =
                |checkpoint: &Checkpoint| bits(&checkpoint.tensor("small.bias", DType::F32, &Device::Cpu).unwrap());
            assert_eq!(bias(&full), bias(&fp8));
            let config = fs::read_to_string(out.join("config.json")).unwrap();
            assert!(!config.contains("quantization_config") && config.contains("Infinity"), "{config}");
            let named = ["float32", "float16", "bfloat16"]
                [[DType::F32, DType::F16, DType::BF16].iter().position(|it| *it == dtype).unwrap()];
            assert!(config.contains(&format!("\"torch_dtype\": \"{named}\"")), "{config}");
            assert!(out.join("tokenizer.json").is_file());
        }
    }
}

#[test]
fn what_cannot_be_dequantized_leaves_nothing() {
    let (folder, fp8) = quantized(Dialect::Altgrad, &Quantizer::new(Fp8::E4M3));
    let out = folder.path().join("out");
    let error = fp8.dequantize(DType::F64, &out, |_| ()).unwrap_err();
    assert!(matches!(error, Error::Tensor(TensorError::UnsupportedDType { .. })), "{error}");
    fp8.dequantize(DType::BF16, &out, |_| ()).unwrap();
    let again = Checkpoint::open(&[&out]).unwrap().dequantize(DType::BF16, folder.path().join("again"), |_| ());
    assert!(again.unwrap_err().to_string().contains("nothing to dequantize"));
    let error = fp8.dequantize(DType::BF16, &out, |_| ()).unwrap_err();
    assert!(matches!(error, Error::Checkpoint(CheckpointError::TargetExists { .. })), "{error}");
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "fp8", "out"]);
}

#[test]
fn a_quantized_checkpoint_is_quantized_again_if_that_is_allowed() {
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    for quantizer in granularities() {
        let (folder, fp8) = quantized(Dialect::Altgrad, &quantizer);
        let out = folder.path().join("out");
        let writer = Writer::new(Dialect::CompressedTensors);
        let error = writer.quantize(&fp8, rows.clone(), &out, |_| ()).unwrap_err().to_string();
        assert!(error.contains("quantized already") && error.contains("--requantize"), "{error}");
        let config = QuantConfig::new(rows.clone()).skip("small");
        let report = writer.requantize().quantize(&fp8, config, &out, |_| ()).unwrap();
        assert_eq!(report.quantized(), 1);
        // The same as from the values in full precision, but for what was left alone, which is in bf16.
        let full = folder.path().join("full");
        fp8.dequantize(DType::F32, &full, |_| ()).unwrap();
        let full = Checkpoint::open(&[&full]).unwrap();
        let expected = folder.path().join("expected");
        Writer::new(Dialect::CompressedTensors)
            .quantize(&full, QuantConfig::new(rows.clone()).skip("small"), &expected, |_| ())
            .unwrap();
        let (actual, expected) = (Checkpoint::open(&[&out]).unwrap(), Checkpoint::open(&[&expected]).unwrap());
        let compared = compare(&actual, &expected).unwrap();
        for tensor in compared.tensors.iter().filter(|tensor| tensor.name != "small.weight") {
            assert_eq!(tensor.differing, 0, "{}", tensor.name);
        }
        let small = |dtype| bits(&actual.tensor("small.weight", dtype, &Device::Cpu).unwrap());
        assert_eq!(small(DType::F32), bits(&fp8.tensor("small.weight", DType::BF16, &Device::Cpu).unwrap()));
        let config: Value =
            serde_json::from_str(&fs::read_to_string(out.join("config.json")).unwrap().replace("Infinity", "1"))
                .unwrap();
        assert_eq!(config["quantization_config"]["quant_method"], "compressed-tensors");
    }
}

#[test]
fn comfyui_comes_back_as_it_was_written() {
    let fixed = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(0.25));
    let model = Layers::from([
        ("blocks.0.img_attn.qkv", frozen(96, 64, 1, Recipe::from(Fp8::E4M3))),
        ("blocks.0.img_mlp.0", frozen(64, 64, 2, Recipe::from(Fp8::E5M2))),
        ("blocks.0.img_mlp.2", frozen(32, 64, 3, Recipe::from(Fp8::E4M3).activations(fixed.clone()))),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    checkpoint::save(&model, &out, Dialect::ComfyUi).unwrap();
    let files: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["model.safetensors"], "one file and nothing else");
    let file = out.join("model.safetensors");
    let tensors = candle_core::safetensors::load(&file, &Device::Cpu);
    // Candle has no E5M2, so the header is read instead.
    drop(tensors);
    let checkpoint = Checkpoint::open(&[&file]).unwrap();
    assert_eq!(checkpoint.dialect(), Dialect::ComfyUi);
    for (path, layer) in &model {
        let name = format!("{path}.weight");
        let actual = checkpoint.tensor(&name, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(bits(&actual), bits(&layer.weight().unwrap()), "{path}");
    }
    let inputs: HashMap<String, bool> = checkpoint
        .quantized()
        .unwrap()
        .into_iter()
        .map(|stored| (stored.name, stored.activations.is_some_and(|inputs| inputs.scaling == fixed.scaling)))
        .collect();
    assert_eq!(inputs.values().filter(|is_static| **is_static).count(), 1);
    assert!(inputs["blocks.0.img_mlp.2.weight"]);
    let bytes = fs::read(&file).unwrap();
    let header = String::from_utf8_lossy(&bytes[8..]);
    assert!(header.contains("blocks.0.img_attn.qkv.comfy_quant") && header.contains("F8_E5M2"));
}

#[test]
fn a_file_that_shrinks_while_it_is_converted_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let tensors = HashMap::from([("a.weight", weight(3000, 520, 1)), ("b.weight", weight(64, 64, 2))]);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let original = Checkpoint::open(&[&file]).unwrap();
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    let error = Writer::new(Dialect::Altgrad).quantize(&original, rows, folder.path().join("out"), |progress| {
        if progress.done > 0 {
            fs::File::options().write(true).open(&file).unwrap().set_len(5000).unwrap();
        }
    });
    assert!(matches!(error, Err(Error::Checkpoint(CheckpointError::Unreadable { .. }))), "{error:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
