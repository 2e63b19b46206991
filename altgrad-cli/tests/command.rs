//! The command `altgrad`, run as a user does.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use candle_core::{Device, Tensor};
use serde_json::Value;

fn altgrad(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_altgrad")).current_dir(folder).args(arguments).output().unwrap()
}

/// What a command that must succeed printed.
fn stdout(folder: &Path, arguments: &[&str]) -> String {
    let output = altgrad(folder, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that must fail printed, which must leave nothing in the folder `out`.
fn stderr(folder: &Path, arguments: &[&str]) -> String {
    let output = altgrad(folder, arguments);
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!folder.join("out").exists());
    String::from_utf8(output.stderr).unwrap()
}

/// A checkpoint `in` of two linear layers.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let weight = |rows: usize| Tensor::randn(0f32, 1.0, (rows, 64), &Device::Cpu).unwrap();
    let tensors = HashMap::from([("h.0.up.weight", weight(32)), ("lm_head.weight", weight(16))]);
    std::fs::create_dir(folder.path().join("in")).unwrap();
    candle_core::safetensors::save(&tensors, folder.path().join("in/model.safetensors")).unwrap();
    folder
}

#[test]
fn a_checkpoint_is_quantized_inspected_and_compared() {
    let folder = folder();
    let path = folder.path();
    let report = stdout(path, &["quantize", "in", "--output", "out", "--skip", "lm_head"]);
    assert!(report.contains("1 of 2 layers quantized"), "{report}");
    let contents = stdout(path, &["inspect", "out"]);
    assert!(contents.contains("dialect compressed-tensors, 1 of 2 tensors quantized"), "{contents}");
    let comparison = stdout(path, &["compare", "in", "out"]);
    assert!(comparison.contains("2 tensors in both, 1 of them equal"), "{comparison}");
}

#[test]
fn a_checkpoint_goes_back_and_on() {
    let folder = folder();
    let path = folder.path();
    stdout(path, &["quantize", "in", "--output", "fp8"]);
    let message = stderr(path, &["quantize", "fp8", "-o", "out"]);
    assert!(message.contains("--requantize"), "{message}");
    stdout(path, &["quantize", "fp8", "-o", "again", "--requantize", "--recipe", "E5M2", "--dialect", "altgrad"]);
    assert!(stdout(path, &["inspect", "again"]).contains("E5M2"));
    let text = stdout(path, &["dequantize", "fp8", "-o", "full", "--dtype", "f32"]);
    assert_eq!(text, "2 tensors dequantized to f32 in full\n");
    let comparison = stdout(path, &["compare", "fp8", "full"]);
    assert!(comparison.contains("2 tensors in both, 2 of them equal"), "{comparison}");
    let message = stderr(path, &["dequantize", "fp8", "-o", "out", "--dtype", "f64"]);
    assert!(message.contains("`bf16`, `f16` or `f32`"), "{message}");
}

#[test]
fn json_is_all_that_is_printed() {
    let folder = folder();
    let path = folder.path();
    let arguments =
        ["quantize", "in", "-o", "out", "--recipe", "E5M2", "--granularity", "16x32", "--dialect", "altgrad", "--json"];
    let report: Value = serde_json::from_str(&stdout(path, &arguments)).unwrap();
    assert_eq!(report["layers"][0]["path"], "h.0.up");
    assert_eq!(report["layers"][0]["format"], "E5M2");
    let contents: Value = serde_json::from_str(&stdout(path, &["inspect", "out", "--json"])).unwrap();
    assert_eq!(contents["tensors"][0]["quantized"]["granularity"]["per_block"]["cols"], 32);
    let comparison: Value = serde_json::from_str(&stdout(path, &["compare", "in", "out", "--json"])).unwrap();
    assert_eq!(comparison["tensors"][0]["name"], "h.0.up.weight");
}

#[test]
fn a_config_file_says_all() {
    let folder = folder();
    let path = folder.path();
    let config = "recipe = 'mxfp8'\nrules = [{ pattern = 'lm_head', recipe = 'full_precision' }]";
    std::fs::write(path.join("config.toml"), config).unwrap();
    stdout(path, &["quantize", "in", "-o", "out", "--config", "config.toml"]);
    let contents = stdout(path, &["inspect", "out"]);
    assert!(contents.contains("1×32"), "{contents}");
}

#[test]
fn errors_say_what_to_do_and_leave_nothing() {
    let folder = folder();
    let path = folder.path();
    for (arguments, parts) in [
        (
            &["quantize", "in", "-o", "out", "--recipe", "E3M4"][..],
            &["h.0.up", "compressed-tensors", "the dialect altgrad can"][..],
        ),
        (&["quantize", "in", "-o", "out", "--skip", "lm_heat"], &["lm_heat", "lm_head"]),
        (&["quantize", "in", "-o", "out", "--granularity", "rows"], &["rows", "128x128"]),
        (
            &["quantize", "in", "-o", "out", "--recipe", "rowwise", "--granularity", "row"],
            &["--granularity", "--config"],
        ),
        (&["quantize", "in", "-o", "out", "--dialect", "modelop"], &["modelop", "did you mean `modelopt`"]),
        (&["quantize", "nothing", "-o", "out"], &["nothing"]),
        (&["quantize", "in", "-o", "in"], &["exists and is not an empty folder"]),
        (&["inspect", "nothing"], &["nothing"]),
        (&["inspect", "in", "--from", "torch"], &["torch"]),
        (&["inspect", "in", "--width", "70000"], &["70000", "65535"]),
    ] {
        let message = stderr(path, arguments);
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(message.lines().filter(|line| line.starts_with("error:")).count(), 1, "{message}");
    }
}

#[test]
fn a_reader_that_stops_is_no_failure() {
    let folder = folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_altgrad"));
    let mut child = command
        .current_dir(folder.path())
        .args(["inspect", "in"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_tells_no_dialect_is_compared_when_it_is_said() {
    let folder = folder();
    let path = folder.path();
    stdout(path, &["quantize", "in", "--output", "out"]);
    std::fs::remove_file(path.join("out/config.json")).unwrap();
    let output = altgrad(path, &["compare", "in", "out"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("--from"), "{message}");
    let comparison = stdout(path, &["compare", "in", "out", "--second-from", "compressed-tensors"]);
    assert!(comparison.contains("2 tensors in both"), "{comparison}");
}

#[test]
fn each_dialect_has_a_recipe_that_needs_no_words() {
    let folder = folder();
    let path = folder.path();
    for dialect in ["compressed-tensors", "transformers", "modelopt", "comfyui", "altgrad"] {
        let report = stdout(path, &["quantize", "in", "-o", dialect, "--dialect", dialect]);
        assert!(report.contains("2 of 2 layers quantized"), "{report}");
        let contents = stdout(path, &["inspect", dialect]);
        assert!(contents.contains(&format!("dialect {dialect}, 2 of 2 tensors quantized")), "{contents}");
    }
    let message = stderr(path, &["quantize", "in", "-o", "out", "--dialect", "transformers", "--recipe", "E4M3"]);
    assert!(message.contains("one scale a row") && message.contains("`blockwise`"), "{message}");
    let message = stderr(path, &["quantize", "in", "-o", "out", "--recipe", "hybrid", "--dialect", "altgrad"]);
    assert!(message.contains("h.0.up") && message.contains("delayed"), "{message}");
    let message = stderr(path, &["quantize", "in", "-o", "out", "--skip", "**"]);
    assert!(message.contains("no layer is quantized"), "{message}");
}

#[test]
fn names_stay_whole_in_narrow_tables() {
    let folder = folder();
    for width in ["20", "60", "200"] {
        let report = stdout(folder.path(), &["quantize", "in", "-o", width, "--width", width]);
        assert!(report.lines().any(|line| line.starts_with("h.0.up ")), "{report}");
        assert_eq!(report.contains("mean  "), width == "200", "{report}");
        let out = format!("{width}-layers");
        let report = stdout(folder.path(), &["quantize", "in", "-o", &out, "--layers", "--width", width]);
        assert!(report.lines().any(|line| line.starts_with("h.0.up ")), "{report}");
        assert_eq!(report.contains("sat. %"), width == "200", "{report}");
    }
}
