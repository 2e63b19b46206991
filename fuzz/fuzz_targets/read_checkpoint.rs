//! Reads whatever is given as a checkpoint: there may be errors, but no panic and no more memory than the input is
//! worth.
//!
//! The input is the configuration, the header and the data of a file, with an empty line and one more between them. So
//! the header is found without its length, which is taken from the input as it is if there is but one part.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use altgrad_core::checkpoint::{Checkpoint, Dialect, Writer};
use altgrad_core::{Fp8, Granularity, Quantizer};
use candle_core::{DType, Device};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fuzz_target!(|input: &[u8]| {
    let mut parts = split(input);
    let (config, file) = match (parts.next(), parts.next(), parts.next()) {
        (Some(config), Some(header), data) => {
            let length = (header.len() as u64).to_le_bytes();
            (config, [&length[..], header, data.unwrap_or_default()].concat())
        }
        (config, ..) => (&b""[..], config.unwrap_or_default().to_vec()),
    };
    for name in ["config.json", "hf_quant_config.json"] {
        let path = FOLDER.path().join(name);
        // Half of all inputs have the configuration in the other file.
        if (config.len() % 2 == 0) == (name == "config.json") && !config.is_empty() {
            fs::write(path, config).unwrap();
        } else {
            let _ = fs::remove_file(path);
        }
    }
    let path = FOLDER.path().join("model.safetensors");
    fs::write(&path, file).unwrap();
    let checkpoint = Checkpoint::open(&[&path]);
    convert(&checkpoint);
    read(checkpoint);
    for dialect in Dialect::ALL {
        read(Checkpoint::open_as(&[&path], dialect));
    }
});

fn read(checkpoint: altgrad_core::Result<Checkpoint>) {
    let Ok(checkpoint) = checkpoint else { return };
    let _ = checkpoint.inspect().map(|contents| contents.to_string());
    let _ = checkpoint.kv_scales();
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    let vb = checkpoint.var_builder(DType::F32, &Device::Cpu);
    for name in names {
        if let Ok(tensor) = checkpoint.tensor(&name, DType::BF16, &Device::Cpu)
            && let Ok((outputs, inputs)) = tensor.dims2()
            && let Some(path) = name.strip_suffix(".weight")
        {
            let _ = altgrad_core::linear_no_bias(inputs, outputs, vb.pp(path));
        }
    }
}

fn convert(checkpoint: &altgrad_core::Result<Checkpoint>) {
    let Ok(checkpoint) = checkpoint else { return };
    let folder = FOLDER.path().join("out");
    let _ = checkpoint.dequantize(DType::BF16, &folder, |_| ());
    let _ = fs::remove_dir_all(&folder);
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    let _ = Writer::new(Dialect::CompressedTensors).requantize().quantize(checkpoint, rows, &folder, |_| ());
    let _ = fs::remove_dir_all(&folder);
}

/// What lies between two line ends after one another, thrice at most.
fn split(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(input);
    let mut parts = 0;
    std::iter::from_fn(move || {
        let input = rest.take()?;
        parts += 1;
        match input.windows(3).position(|window| window == b"\n\n\n") {
            Some(end) if parts < 3 => {
                rest = Some(&input[end + 3..]);
                Some(&input[..end])
            }
            _ => Some(input),
        }
    })
}
