//! Conversions that cannot end: nothing is lost, and what they leave is removed by the next.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};

/// A checkpoint `in` that takes a while.
fn folder(rows: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tensors: HashMap<String, Tensor> = (0..8)
        .map(|layer| (format!("h.{layer}.fc.weight"), Tensor::randn(0f32, 1.0, (rows, 2048), &Device::Cpu).unwrap()))
        .collect();
    fs::create_dir(folder.path().join("in")).unwrap();
    candle_core::safetensors::save(&tensors, folder.path().join("in/model.safetensors")).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next() {
    let folder = folder(2048);
    let path = folder.path();
    let mut child = Command::new(env!("CARGO_BIN_EXE_altgrad"))
        .current_dir(path)
        .args(["quantize", "in", "-o", "out"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while names(path).len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it begins");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if !path.join("out").exists() {
        assert!(names(path).iter().any(|name| name.starts_with(".altgrad-checkpoint-")), "{:?}", names(path));
    }
    // One that is at work is left alone.
    let at_work = path.join(".altgrad-checkpoint-at-work");
    fs::create_dir(&at_work).unwrap();
    let lock = fs::File::create(at_work.join(".lock")).unwrap();
    lock.lock().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_altgrad"))
        .current_dir(path)
        .args(["quantize", "in", "-o", "again"])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let left: Vec<String> = names(path).into_iter().filter(|name| name != "out").collect();
    assert_eq!(left, [".altgrad-checkpoint-at-work", "again", "in"]);
    assert_eq!(names(&path.join("again")), ["config.json", "model.safetensors"]);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let folder = folder(256);
    let path = folder.path();
    // A limit on the size of files stands for the end of the disk.
    let script = format!("trap '' XFSZ; ulimit -f 64; exec {} quantize in -o out", env!("CARGO_BIN_EXE_altgrad"));
    let output = Command::new("bash").current_dir(path).args(["-c", &script]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("cannot write") && message.contains("out"), "{message}");
    assert_eq!(names(path), ["in"]);
}
