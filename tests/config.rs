//! The config file that the README shows, on a model.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use altgrad::{Fp8, QuantConfig, Quantizable};
use candle_core::DType;

#[test]
fn the_file_in_the_readme_quantizes_a_gpt() {
    let readme = include_str!("../README.md");
    let file = readme.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (mut model, _) = common::gpt(DType::F32, 1);
    let report = model.quantize(QuantConfig::from_toml(file).unwrap()).unwrap();
    let formats = |path: &str| {
        let layer = report.layer(path).unwrap();
        [layer.format, layer.activations, layer.gradients]
    };
    let (e4m3, e5m2) = (Some(Fp8::E4M3), Some(Fp8::E5M2));
    assert_eq!(formats("h.0.mlp.c_fc"), [None; 3]);
    assert_eq!(formats("h.1.mlp.c_proj"), [Some(Fp8::E3M4), None, None]);
    assert_eq!(formats("h.1.mlp.c_fc"), [e4m3, e4m3, e5m2]);
    assert_eq!(formats("h.1.attn.c_attn"), [e4m3, e4m3, e5m2]);
    assert!(report.to_string().contains("E4M3/E4M3/E5M2"), "{report}");
}
