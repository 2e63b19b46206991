//! What quantizing a checkpoint leaves alone: said of each matrix, with the reason, and listed for other libraries.

use std::collections::HashMap;
use std::fs;

use altgrad_core::checkpoint::{Checkpoint, Dialect, Writer};
use altgrad_core::report::{Action, QuantReport, SkipReason};
use altgrad_core::{ConfigError, Error, Fp8, Granularity, QuantConfig, Quantizer, Recipe};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use tempfile::TempDir;

use super::weight;

fn original(tensors: &[(&str, &[usize])], config: &str) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let tensor =
        |shape: &[usize]| weight(shape.iter().product(), 1, 1).reshape(shape).unwrap().to_dtype(DType::BF16).unwrap();
    let tensors: HashMap<&str, Tensor> = tensors.iter().map(|(name, shape)| (*name, tensor(shape))).collect();
    fs::create_dir(folder.path().join("in")).unwrap();
    candle_core::safetensors::save(&tensors, folder.path().join("in/model.safetensors")).unwrap();
    fs::write(folder.path().join("in/config.json"), config).unwrap();
    let checkpoint = Checkpoint::open(&[folder.path().join("in")]).unwrap();
    (folder, checkpoint)
}

fn rows() -> Quantizer {
    Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow)
}

/// The report, and the list of what is left in full precision.
fn quantize(
    (folder, original): &(TempDir, Checkpoint),
    config: impl Into<QuantConfig>,
) -> altgrad_core::Result<(QuantReport, Vec<String>)> {
    let out = folder.path().join("out");
    let _ = fs::remove_dir_all(&out);
    let report = Writer::new(Dialect::CompressedTensors).quantize(original, config, &out, |_| ())?;
    let config: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    let ignored = serde_json::from_value(config["quantization_config"]["ignore"].clone()).unwrap();
    Ok((report, ignored))
}

fn reason(report: &QuantReport, path: &str) -> Option<SkipReason> {
    match &report.layer(path).unwrap_or_else(|| panic!("no row for {path}")).action {
        Action::Skipped(reason) => Some(reason.clone()),
        _ => None,
    }
}

#[test]
fn a_tied_head_has_no_tensor_and_is_listed() {
    let tensors: [(&str, &[usize]); 2] =
        [("model.embed_tokens.weight", &[256, 128]), ("model.layers.0.mlp.up_proj.weight", &[256, 128])];
    for config in [r#"{"tie_word_embeddings": true}"#, r#"{"text_config": {"tie_word_embeddings": true}}"#] {
        let original = original(&tensors, config);
        let (report, ignored) = quantize(&original, rows()).unwrap();
        assert_eq!(reason(&report, "lm_head"), Some(SkipReason::Tied("model.embed_tokens.weight".to_owned())));
        assert_eq!(ignored, ["model.embed_tokens", "lm_head"]);
        // Rules may name it.
        let (report, ignored) = quantize(&original, QuantConfig::new(rows()).skip("lm_head")).unwrap();
        assert_eq!(reason(&report, "lm_head"), Some(SkipReason::Rule("lm_head".to_owned())));
        assert!(ignored.contains(&"lm_head".to_owned()));
        let (report, _) = quantize(&original, QuantConfig::new(rows()).rule("lm_head", rows())).unwrap();
        assert_eq!(reason(&report, "lm_head"), Some(SkipReason::Tied("model.embed_tokens.weight".to_owned())));
    }
    // Where nothing is tied, there is no head.
    let error = quantize(&original(&tensors, "{}"), QuantConfig::new(rows()).skip("lm_head")).unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::RuleMatchesNothing { .. })), "{error}");
}

#[test]
fn routers_stay_in_full_precision_unless_a_rule_names_them() {
    let (gate, shared) = ("model.layers.0.mlp.gate", "model.layers.0.mlp.shared_expert_gate");
    let names = [gate, shared, "model.layers.0.mlp.gate_proj"].map(|path| format!("{path}.weight"));
    let tensors: [(&str, &[usize]); 3] = [(&names[0], &[8, 64]), (&names[1], &[1, 64]), (&names[2], &[64, 64])];
    let original = original(&tensors, "{}");
    let (report, ignored) = quantize(&original, rows()).unwrap();
    assert_eq!((reason(&report, gate), reason(&report, shared)), (Some(SkipReason::Router), Some(SkipReason::Router)));
    assert_eq!(reason(&report, "model.layers.0.mlp.gate_proj"), None);
    assert_eq!(ignored, [gate, shared]);
    // The name of the router is found in that of a layer that is quantized.
    let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("`model.layers.0.mlp.gate`") && warning.contains("gate_proj"), "{warning}");
    assert!(report.to_string().contains(&format!("\nwarning: {warning}")));

    let (report, ignored) = quantize(&original, QuantConfig::new(rows()).rule("**.gate", rows())).unwrap();
    assert_eq!((reason(&report, gate), reason(&report, shared)), (None, Some(SkipReason::Router)));
    assert_eq!((ignored.len(), report.warnings.len()), (1, 0));
}

#[test]
fn every_matrix_that_is_left_alone_has_a_row_and_a_reason() {
    let tensors: [(&str, &[usize]); 6] = [
        ("experts.mlp.w1", &[64, 64]),
        ("attn.in_proj_weight", &[192, 64]),
        ("experts.gate_up_proj", &[2, 16, 64]),
        ("patch.weight", &[8, 3, 2, 2]),
        ("fc.weight", &[64, 64]),
        ("norm.weight", &[64]),
    ];
    let (report, ignored) = quantize(&original(&tensors, "{}"), rows()).unwrap();
    for (path, why) in [
        ("experts.mlp.w1", "not called `weight`"),
        ("attn.in_proj_weight", "not called `weight`"),
        ("experts.gate_up_proj", "3 dimensions"),
        ("patch", "4 dimensions"),
    ] {
        let Some(SkipReason::Unsupported(said)) = reason(&report, path) else { panic!("{path}") };
        assert!(said.contains(why), "{path}: {said}");
        assert!(ignored.contains(&path.to_owned()), "{path}");
    }
    assert_eq!((report.layers.len(), report.quantized()), (5, 1));
}

#[test]
fn rows_are_in_natural_order_and_like_layers_in_one() {
    let layers: Vec<(String, Vec<usize>)> = (0..12)
        .flat_map(|block| {
            ["mlp.up_proj", "mlp.down_proj"].map(|name| (format!("model.layers.{block}.{name}.weight"), vec![32, 32]))
        })
        .collect();
    let tensors: Vec<(&str, &[usize])> = layers.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect();
    let (report, _) = quantize(&original(&tensors, "{}"), QuantConfig::new(rows()).skip("model.layers.3")).unwrap();
    let paths: Vec<&str> = report.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(
        paths[..3],
        ["model.layers.0.mlp.down_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj"]
    );
    assert_eq!(paths[22..], ["model.layers.11.mlp.down_proj", "model.layers.11.mlp.up_proj"]);
    let table = report.grouped().to_string();
    assert!(table.contains("model.layers.*.mlp.up_proj ×11"), "{table}");
    assert!(table.contains("model.layers.3.mlp.up_proj "), "skipped ones are groups of their own: {table}");
    assert_eq!(table.lines().count(), 1 + 4 + 2 + 1, "{table}");
    assert!(table.contains("22 of 24 layers quantized"), "{table}");
}

#[test]
fn layers_far_below_their_group_are_named() {
    let names: Vec<String> = (0..5).map(|block| format!("h.{block}.fc.weight")).collect();
    let folder = tempfile::tempdir().unwrap();
    // With steps of equal size, one element 30 times as large as the others costs them most of theirs.
    let tensor = |block: usize| {
        let mut values: Vec<f32> = (0..1024).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        values[0] = if block == 3 { 30.0 } else { 1.0 };
        Tensor::from_vec(values, (32, 32), &Device::Cpu).unwrap()
    };
    let tensors: HashMap<&str, Tensor> = names.iter().enumerate().map(|(i, name)| (name.as_str(), tensor(i))).collect();
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    let original = Checkpoint::open(&[folder.path()]).unwrap();
    let fixed_point = Quantizer::new(Fp8::E1M6);
    let writer = Writer::new(Dialect::Altgrad);
    let report = writer.quantize(&original, fixed_point, folder.path().join("out"), |_| ()).unwrap();
    let table = report.grouped().to_string();
    assert!(table.contains("h.*.fc ×5 ") && table.contains("\n  h.3.fc "), "{table}");
    assert_eq!(table.matches("\n  h.").count(), 1, "{table}");
}

#[test]
fn names_of_language_models_mean_nothing_in_diffusion_models() {
    let tensors: [(&str, &[usize]); 4] = [
        ("x_embedder.proj.weight", &[64, 16]),
        ("pos_embed.weight", &[64, 16]),
        ("mlp.gate.weight", &[16, 16]),
        ("lm_head.weight", &[16, 16]),
    ];
    let (folder, original) = original(&tensors, "{}");
    let out = folder.path().join("out");
    let report = Writer::new(Dialect::ComfyUi).quantize(&original, Recipe::from(Fp8::E4M3), &out, |_| ()).unwrap();
    assert_eq!(report.quantized(), 4);
    let written = Checkpoint::open(&[&out]).unwrap();
    assert_eq!((written.dialect(), written.quantized().unwrap().len()), (Dialect::ComfyUi, 4));
}
