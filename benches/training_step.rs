//! How fast is a training step of one layer, forward and backward? Against candle's layer in f32.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

mod common;

use std::hint::black_box;

use altgrad::{Fp8, Linear, Quantizable, Recipe};
use candle_core::backprop::GradStore;
use candle_core::{Device, Module, Tensor, Var};

/// Tokens, inputs and outputs.
const SHAPES: [(usize, usize, usize); 3] = [(256, 768, 3072), (2048, 768, 768), (64, 4096, 4096)];

/// Both sides allocate every tensor anew. The system's allocator gives the memory of large ones back to the operating
/// system each time, which would be most of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = common::criterion();
    for (tokens, inputs, outputs) in SHAPES {
        let x = Var::randn(0f32, 1.0, (tokens, inputs), &Device::Cpu).unwrap();
        let weight = Var::randn(0f32, 0.02, (outputs, inputs), &Device::Cpu).unwrap();
        let full = candle_nn::Linear::new(weight.as_tensor().clone(), None);
        let quantized = |recipe: Recipe| {
            let mut layer = Linear::from(full.clone());
            layer.quantize(recipe).unwrap();
            layer
        };
        common::compare(
            &mut criterion,
            &format!("training_step/{tokens}x{inputs}x{outputs}"),
            (6 * tokens * inputs * outputs, "operations"),
            vec![
                ("tensorwise", step(quantized(Recipe::tensorwise()), &x)),
                ("candle f32", candle_step(full.clone(), &x)),
                ("hybrid", step(quantized(Recipe::hybrid()), &x)),
                ("E4M3 weights", step(quantized(Fp8::E4M3.into()), &x)),
                ("rowwise", step(quantized(Recipe::rowwise()), &x)),
                ("mxfp8", step(quantized(Recipe::mxfp8()), &x)),
            ],
        );
    }
    criterion.final_summary();
}

/// A forward and a backward pass, from a gradient of ones to those of the input and the weight.
fn step<'a>(layer: Linear, x: &'a Tensor) -> Box<dyn FnMut() + 'a> {
    let mut gradients = GradStore::default();
    Box::new(move || {
        altgrad::backward_into(&layer.forward(x).unwrap(), &mut gradients).unwrap();
        black_box(&gradients);
    })
}

/// The same as candle does it.
fn candle_step<'a>(layer: candle_nn::Linear, x: &'a Tensor) -> Box<dyn FnMut() + 'a> {
    Box::new(move || {
        black_box(layer.forward(x).unwrap().backward().unwrap());
    })
}
