//! The tiny models that tests share, which `make_fixtures.py` makes.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::PathBuf;

use altgrad::KvCache;
use altgrad::checkpoint::Checkpoint;
use altgrad_llama::{Config, Llama};
use candle_core::{DType, Device, Tensor};

/// The names of the fixtures.
pub(crate) const FAMILIES: [&str; 5] = ["llama", "smollm", "mistral", "qwen2", "qwen3"];

/// A model and the logits `(tokens, vocabulary)` of some tokens `(1, tokens)`.
pub(crate) struct Fixture {
    pub(crate) model: Llama,
    pub(crate) tokens: Tensor,
    pub(crate) logits: Tensor,
}

impl Fixture {
    pub(crate) fn new(name: &str) -> Self {
        let expected = candle_core::safetensors::load(folder("").join(format!("{name}.safetensors")), &Device::Cpu);
        let expected = expected.unwrap();
        let tokens = expected["tokens"].unsqueeze(0).unwrap();
        Self { model: load(&folder(name)), tokens, logits: expected["logits"].clone() }
    }
}

/// The folder of a fixture.
pub(crate) fn folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures", name].iter().collect()
}

/// The model of a folder, in f32 where it is not quantized.
pub(crate) fn load(folder: &std::path::Path) -> Llama {
    let checkpoint = Checkpoint::open(&[folder]).unwrap();
    let config = Config::of_folder(folder).unwrap();
    Llama::new(&config, &checkpoint.var_builder(DType::F32, &Device::Cpu)).unwrap()
}

/// Empty caches in full precision.
pub(crate) fn caches(model: &Llama) -> Vec<KvCache> {
    vec![KvCache::full_precision(); model.config().layers]
}

/// The largest magnitude.
pub(crate) fn largest(x: &Tensor) -> f64 {
    let largest = x.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    f64::from(largest.to_scalar::<f32>().unwrap())
}

/// The largest magnitude of a difference; NaN if there is one.
pub(crate) fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    difference.into_iter().map(f64::from).fold(0.0, |most, next| if next.is_nan() || next > most { next } else { most })
}
