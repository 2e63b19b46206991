//! Checkpoints: reading what other libraries wrote, writing what they read, and refusing what is broken.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests compare exact values and fail by panicking")]

mod back;
mod convert;
mod damaged;
mod fixtures;
mod hostile;
mod interop;
mod layers;
mod left_alone;
mod round_trip;
mod spellings;
mod tables;
mod wild;

use std::collections::BTreeMap;

use altgrad_core::checkpoint::{self, Dialect};
use altgrad_core::{Fp8Tensor, Linear, QuantizedLinear, Recipe};
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

/// A model of layers that are called what the test calls them.
type Layers = BTreeMap<&'static str, Linear>;

/// A weight whose rows and columns differ in size, so that every granularity has scales of its own.
fn weight(outputs: usize, inputs: usize, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values: Vec<f32> = (0..outputs * inputs)
        .map(|i| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let unit = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
            unit * f32::powi(2.0, (i / inputs % 7) as i32 - (i % inputs / 16 % 5) as i32)
        })
        .collect();
    Tensor::from_vec(values, (outputs, inputs), &Device::Cpu).unwrap()
}

/// A layer that is quantized by `recipe`, with a bias.
fn quantized(outputs: usize, inputs: usize, seed: u64, recipe: impl Into<Recipe>) -> Linear {
    let bias = weight(1, outputs, seed + 1).flatten_all().unwrap();
    let full = candle_nn::Linear::new(weight(outputs, inputs, seed), Some(bias));
    QuantizedLinear::new(full, recipe).unwrap().into()
}

fn frozen(outputs: usize, inputs: usize, seed: u64, recipe: impl Into<Recipe>) -> Linear {
    let Linear::Quantized(layer) = quantized(outputs, inputs, seed, recipe) else { unreachable!() };
    layer.freeze().unwrap().into()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = tensor.flatten_all().unwrap().to_dtype(candle_core::DType::F32).unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

fn codes(tensor: &Fp8Tensor) -> Vec<u8> {
    tensor.codes().flatten_all().unwrap().to_vec1().unwrap()
}

/// Saves a model into a new folder and opens it.
fn save_and_open(model: &Layers, dialect: Dialect) -> (tempfile::TempDir, VarBuilder<'static>) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    checkpoint::save(model, &out, dialect).unwrap();
    let vb = checkpoint::var_builder(&[&out], candle_core::DType::F32, &Device::Cpu).unwrap();
    (folder, vb)
}
