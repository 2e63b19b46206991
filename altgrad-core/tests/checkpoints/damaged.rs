//! Broken files: each gives an error that names the file and the tensor, and none a panic or a huge allocation.

use altgrad_core::CheckpointError;
use std::fs;
use std::path::{Path, PathBuf};

use altgrad_core::Error;
use altgrad_core::checkpoint::{Checkpoint, Dialect};
use candle_core::{DType, Device};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What is done to a checkpoint to break it.
type Break = Box<dyn Fn(&mut Files)>;

/// A checkpoint of one E4M3 weight `a.weight` of 2 × 4 with its scales, to be broken.
struct Files {
    folder: TempDir,
    header: Value,
    data: Vec<u8>,
    config: Value,
}

impl Files {
    fn new() -> Self {
        let scales: Vec<u8> = [0.5f32, 2.0].iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let group = json!({
            "targets": ["Linear"],
            "weights": { "num_bits": 8, "type": "float", "strategy": "channel", "dynamic": false },
            "input_activations": null,
        });
        Self {
            folder: tempfile::tempdir().unwrap(),
            header: json!({
                "a.weight_scale": { "dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8] },
                "a.weight": { "dtype": "F8_E4M3", "shape": [2, 4], "data_offsets": [8, 16] },
            }),
            data: [scales, vec![0x38; 8]].concat(),
            config: json!({
                "quantization_config": { "quant_method": "compressed-tensors", "config_groups": { "group_0": group } }
            }),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("model.safetensors")
    }

    fn write(&self) {
        let header = serde_json::to_vec(&self.header).unwrap();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &self.data].concat();
        fs::write(self.path(), bytes).unwrap();
        fs::write(self.folder.path().join("config.json"), serde_json::to_vec(&self.config).unwrap()).unwrap();
    }

    /// Opens the checkpoint and reads its weight.
    fn read(&self) -> altgrad_core::Result<Vec<f32>> {
        self.write();
        read(&[self.folder.path()])
    }
}

fn read<P: AsRef<Path>>(paths: &[P]) -> altgrad_core::Result<Vec<f32>> {
    let weight = Checkpoint::open(paths)?.tensor("a.weight", DType::F32, &Device::Cpu)?;
    Ok(weight.flatten_all()?.to_vec1()?)
}

/// Fails unless the error names the file and has all of `parts`.
fn assert_says(result: altgrad_core::Result<Vec<f32>>, file: &str, parts: &[&str]) {
    let message = result.unwrap_err().to_string();
    for part in parts.iter().chain([&file]) {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn what_is_whole_is_read() {
    assert_eq!(Files::new().read().unwrap(), [0.5, 0.5, 0.5, 0.5, 2.0, 2.0, 2.0, 2.0]);
}

#[test]
fn headers_that_lie() {
    let set = |pointer: &'static str, value: Value| {
        move |files: &mut Files| *files.header.pointer_mut(pointer).unwrap() = value.clone()
    };
    let cases: Vec<(Break, &[&str])> = vec![
        (Box::new(set("/a.weight/data_offsets", json!([8, 17]))), &["`a.weight`", "impossible"]),
        (Box::new(set("/a.weight/data_offsets", json!([7, 15]))), &["`a.weight`", "overlaps"]),
        (Box::new(set("/a.weight/data_offsets", json!([16, 8]))), &["`a.weight`", "impossible"]),
        (Box::new(set("/a.weight/data_offsets", json!([u64::MAX, 4]))), &["`a.weight`"]),
        (Box::new(set("/a.weight/data_offsets", json!([-8, 0]))), &["`a.weight`", "invalid description"]),
        (Box::new(set("/a.weight/shape", json!([2, 5]))), &["`a.weight`", "[2, 5]"]),
        (Box::new(set("/a.weight/shape", json!([u64::MAX, u64::MAX]))), &["`a.weight`", "impossible"]),
        (Box::new(set("/a.weight/shape", json!([1_u64 << 62, 4]))), &["`a.weight`", "impossible"]),
        (
            Box::new(set(
                "/a.weight",
                json!({ "dtype": "F8_E4M3", "shape": [0, 1_u64 << 40, 1_u64 << 40], "data_offsets": [8, 8] }),
            )),
            &["`a.weight`", "impossible"],
        ),
        (Box::new(set("/a.weight/dtype", json!("F9"))), &["`a.weight`", "F9"]),
        (Box::new(set("/a.weight/dtype", json!("BF16"))), &["`a.weight`", "impossible"]),
        (Box::new(set("/a.weight/dtype", json!("I8"))), &["`a.weight_scale`", "`a.weight` is of dtype I8"]),
        (Box::new(set("/a.weight", json!(null))), &["`a.weight`", "invalid description"]),
        (Box::new(set("/a.weight_scale/dtype", json!("I32"))), &["`a.weight_scale`", "I32"]),
        (Box::new(set("/a.weight_scale/shape", json!([1, 2]))), &["`a.weight_scale`", "[1, 2]", "[2, 4]"]),
        (Box::new(|files| files.header["__metadata__"] = json!({ "a": 1 })), &["__metadata__"]),
        (Box::new(|files| files.data.truncate(15)), &["`a.weight`", "incomplete"]),
        (Box::new(|files| files.data.push(0)), &["17", "16"]),
        (
            Box::new(|files| {
                files.header["gap"] = json!({ "dtype": "U8", "shape": [1], "data_offsets": [17, 18] });
                files.data.extend([0, 0]);
            }),
            &["`gap`", "leaves a gap"],
        ),
        (Box::new(|files| files.header = json!([1])), &["header"]),
    ];
    for (damage, parts) in cases {
        let mut files = Files::new();
        damage(&mut files);
        assert_says(files.read(), "model.safetensors", parts);
    }
}

#[test]
fn scales_that_cannot_be() {
    for (scale, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (0.0, "0"), (-1.0, "-1")] {
        let mut files = Files::new();
        files.data[4..8].copy_from_slice(&scale.to_le_bytes());
        assert_says(files.read(), "model.safetensors", &["`a.weight_scale`", "index 1", text]);
    }
    // The byte that is NaN among exponents.
    let mut files = Files::new();
    files.header["a.weight_scale"] = json!({ "dtype": "U8", "shape": [2, 1], "data_offsets": [0, 2] });
    files.header["a.weight"]["data_offsets"] = json!([2, 10]);
    files.data = [vec![127, 255], vec![0x38; 8]].concat();
    assert_says(files.read(), "model.safetensors", &["`a.weight_scale`", "index 1", "NaN"]);

    let mut files = Files::new();
    files.header["b.weight_scale"] = files.header["a.weight_scale"].take();
    files.header.as_object_mut().unwrap().remove("a.weight_scale");
    assert_says(files.read(), "model.safetensors", &["`a.weight`", "has no scale", "`a.weight_scale`"]);

    let mut files = Files::new();
    files.header["b.weight_scale"] = json!({ "dtype": "F32", "shape": [1], "data_offsets": [16, 20] });
    files.data.extend(1f32.to_le_bytes());
    assert_eq!(
        files.read().unwrap(),
        [0.5, 0.5, 0.5, 0.5, 2.0, 2.0, 2.0, 2.0],
        "a scale of another tensor does not matter"
    );
    let checkpoint = Checkpoint::open(&[files.folder.path()]).unwrap();
    let error = checkpoint.tensor("b.weight_scale", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("`b.weight_scale`") && error.contains("missing"), "{error}");
}

#[test]
fn files_that_are_none() {
    for (bytes, part) in [
        (&b"abc"[..], "too few"),
        (&[0xFF; 8], "header claims"),
        (&[9, 0, 0, 0, 0, 0, 0, 0, b'{'], "header claims 9"),
        (&[1, 0, 0, 0, 0, 0, 0, 0, b'{'], "cannot be read"),
        (b"\x02\0\0\0\0\0\0\0\xFF\xFF", "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 8\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>not found</html>", "header claims"),
    ] {
        let files = Files::new();
        files.write();
        fs::write(files.path(), bytes).unwrap();
        assert_says(read(&[files.folder.path()]), "model.safetensors", &[part]);
    }
    let missing = Files::new();
    assert_says(read(&[missing.path()]), "model.safetensors", &["cannot read"]);
    assert_says(read(&[missing.folder.path()]), "", &["no `.safetensors` file"]);
    assert_says(read::<&str>(&[]), "", &["no file or folder"]);
}

#[test]
fn indexes_that_lie() {
    let files = Files::new();
    files.write();
    let index = files.folder.path().join("model.safetensors.index.json");
    fs::rename(files.path(), files.folder.path().join("one.safetensors")).unwrap();
    let all = |name: &str| json!({ "a.weight": name, "a.weight_scale": name });
    for (map, parts) in [
        (all("two.safetensors"), &["`a.weight`", "`two.safetensors`", "missing"][..]),
        (all("../one.safetensors"), &["`a.weight`", "not the name of a file"]),
        (all("/etc/passwd"), &["`a.weight`", "not the name of a file"]),
        (json!({ "b.weight": "one.safetensors" }), &["`b.weight`", "is not"]),
        (json!([1]), &["not an index"]),
    ] {
        fs::write(&index, serde_json::to_vec(&json!({ "weight_map": map })).unwrap()).unwrap();
        assert_says(read(&[files.folder.path()]), "index.json", parts);
    }
    fs::write(&index, b"{").unwrap();
    assert_says(read(&[files.folder.path()]), "index.json", &["not an index"]);

    fs::write(&index, serde_json::to_vec(&json!({ "weight_map": all("one.safetensors") })).unwrap()).unwrap();
    assert_eq!(read(&[files.folder.path()]).unwrap().len(), 8);
    fs::copy(files.folder.path().join("one.safetensors"), files.folder.path().join("two.safetensors")).unwrap();
    let both = ["one", "two"].map(|name| files.folder.path().join(format!("{name}.safetensors")));
    assert_says(read(&both), "two.safetensors", &["`a.weight`", "is also in", "one.safetensors"]);
}

#[test]
fn configurations_that_cannot_be() {
    let group = "/quantization_config/config_groups/group_0";
    for (pointer, value, parts) in [
        ("/quantization_config/quant_method", json!("gptq"), &["`gptq`", "compressed-tensors"][..]),
        ("/quantization_config/quant_method", json!(null), &[][..]),
        ("/quantization_config", json!({ "bits": 4 }), &["no `quant_method`"]),
        ("/quantization_config/config_groups", json!(3), &["quantization_config.config_groups"]),
        (group, json!({ "targets": 1 }), &["config_groups.group_0.targets"]),
        (group, json!({ "targets": ["re:("], "weights": null }), &["`re:(`", "not a regular expression"]),
    ] {
        let mut files = Files::new();
        *files.config.pointer_mut(pointer).unwrap() = value;
        if parts.is_empty() {
            // `config_groups` alone are those of compressed-tensors.
            assert!(files.read().is_ok());
        } else {
            assert_says(files.read(), "config.json", parts);
        }
    }
    for (field, value, part) in [("num_bits", json!(4), "4 bits"), ("type", json!("int"), "type int")] {
        let mut files = Files::new();
        *files.config.pointer_mut(&format!("{group}/weights/{field}")).unwrap() = value;
        assert_says(files.read(), "config.json", &["`quantization_config`", "`group_0`", part]);
    }
    for (pointer, value, parts) in [
        (format!("{group}/input_activations"), json!({ "type": "float" }), &["`a.weight`", "`a.input_scale`"]),
        (
            format!("{group}/input_activations"),
            json!({ "type": "float", "dynamic": "local" }),
            &["`a.weight`", "`local`"],
        ),
    ] {
        let mut files = Files::new();
        *files.config.pointer_mut(&pointer).unwrap() = value;
        assert_says(files.read(), "model.safetensors", parts);
    }
    for text in ["{", "[]", "\u{0}"] {
        let files = Files::new();
        files.write();
        fs::write(files.folder.path().join("config.json"), text).unwrap();
        assert_says(read(&[files.folder.path()]), "config.json", &["it is not"]);
    }
}

#[test]
fn ambiguity_shows_what_was_found() {
    let files = Files::new();
    files.write();
    fs::remove_file(files.folder.path().join("config.json")).unwrap();
    assert_says(read(&[files.folder.path()]), "model.safetensors", &["`a.weight_scale`", "modelopt", "open_as"]);
    let checkpoint = Checkpoint::open_as(&[files.folder.path()], Dialect::CompressedTensors).unwrap();
    assert_eq!(checkpoint.quantized().unwrap().len(), 1);

    // A configuration of one dialect beside the tensors of another.
    let mut files = Files::new();
    files.config["quantization_config"] = json!({ "quant_method": "torchao" });
    let error = files.read().unwrap_err();
    assert!(matches!(error, Error::Checkpoint(CheckpointError::Invalid { .. })), "{error}");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let files = Files::new();
    files.write();
    let checkpoint = Checkpoint::open(&[files.folder.path()]).unwrap();
    fs::OpenOptions::new().write(true).open(files.path()).unwrap().set_len(100).unwrap();
    let message = checkpoint.tensor("a.weight", DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("model.safetensors"), "{message}");
}
