//! How fast is a frozen layer? Against candle's layers in f32 and in `Q8_0`, with weights that the cache holds and with
//! weights that come from memory.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

mod common;

use std::hint::black_box;

use altgrad::{Fp8, Granularity, Linear, Quantizable, Quantizer, Recipe, Scaling};
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};

/// Tokens, inputs and outputs.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 4096, 4096), (8, 4096, 4096), (64, 4096, 4096), (256, 4096, 4096), (256, 4096, 1024), (512, 768, 768)];

/// Bytes of weights that no cache holds.
const MEMORY: usize = 256 << 20;

fn main() {
    let mut criterion = common::criterion();
    for shape in SHAPES {
        run(&mut criterion, "cached", shape, |_| 1);
    }
    run(&mut criterion, "memory", (1, 4096, 4096), |bytes| MEMORY / bytes);
    criterion.final_summary();
}

/// Compares layers of one shape; each pass takes the next of as many as `copies` says for the bytes of one.
fn run(
    criterion: &mut criterion::Criterion,
    name: &str,
    (tokens, inputs, outputs): (usize, usize, usize),
    copies: impl Fn(usize) -> usize,
) {
    let device = Device::Cpu;
    let x = Tensor::randn(0f32, 1.0, (tokens, inputs), &device).unwrap();
    let elements = inputs * outputs;
    let weight = || Tensor::randn(0f32, 0.02, (outputs, inputs), &device).unwrap();
    let full = || candle_nn::Linear::new(weight(), None);
    let q8_0 = || QMatMul::from_qtensor(QTensor::quantize(&weight(), GgmlDType::Q8_0).unwrap()).unwrap();
    // One scale a row; activations under a scale that calibration would give.
    let weights = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    let activations = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(4.0 / 448.0));
    let frozen = |recipe: Recipe| {
        let mut layer = Linear::from(full());
        layer.quantize(recipe).unwrap();
        layer.freeze().unwrap();
        layer
    };
    let weight_only = || frozen(Recipe::weight_only(weights.clone()));
    let fp8 = || frozen(Recipe::weight_only(weights.clone()).activations(activations.clone()));
    let x = &x;
    common::compare(
        criterion,
        &format!("frozen_linear/{name}/{tokens}x{inputs}x{outputs}"),
        (2 * tokens * elements, "operations"),
        vec![
            ("E4M3", rotate(copies(elements), weight_only, x)),
            ("candle f32", rotate(copies(4 * elements), full, x)),
            ("candle Q8_0", rotate(copies(elements), q8_0, x)),
            ("E4M3 x E4M3", rotate(copies(elements), fp8, x)),
        ],
    );
}

/// Passes through one of several layers after the other.
fn rotate<'a, M: Module + 'a>(copies: usize, layer: impl Fn() -> M, x: &'a Tensor) -> Box<dyn FnMut() + 'a> {
    let layers: Vec<M> = (0..copies.max(1)).map(|_| layer()).collect();
    let mut next = 0;
    Box::new(move || {
        black_box(layers[next].forward(x).unwrap());
        next = (next + 1) % layers.len();
    })
}
