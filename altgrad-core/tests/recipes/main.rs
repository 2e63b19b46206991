//! Recipes: whole tensors against tables of other libraries, layers against arithmetic in `f64`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests compare exact values, fail by panicking and say how much they compared"
)]

mod delayed;
mod golden;
mod gradients;
mod histories;
mod invalid;
mod non_finite;
mod products;
mod reference;
mod scaling;
mod shapes;
mod tables;

use altgrad_core::{QuantizedLinear, Recipe};
use candle_core::{Device, Module, Tensor, Var};

/// Some numbers of both signs over several binades, the same for the same seed.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let fraction = 0.5 + (state >> 40) as f32 / 2f32.powi(25);
        let sign = if state & 1 == 0 { 1.0 } else { -1.0 };
        sign * fraction * 2f32.powi(-((state >> 1 & 7) as i32))
    };
    (0..count).map(number).collect()
}

/// A matrix of [`numbers`] whose rows and columns differ in magnitude, so that it matters which of them share a scale.
fn uneven(rows: usize, cols: usize, seed: u64) -> Vec<f32> {
    let magnitude = |i: usize| 2f32.powi((i * 5 % 7) as i32 - 3);
    let spread = |(i, x): (usize, f32)| x * magnitude(i / cols) * magnitude(i % cols + 2);
    numbers(rows * cols, seed).into_iter().enumerate().map(spread).collect()
}

/// The elements in logical order, exact.
fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_dtype(candle_core::DType::F64).unwrap().to_vec1().unwrap()
}

/// A layer over variables of its own.
struct Trained {
    layer: QuantizedLinear,
    weight: Var,
    bias: Option<Var>,
}

impl Trained {
    fn new(weight: &Tensor, bias: Option<&Tensor>, recipe: impl Into<Recipe>) -> Self {
        let weight = Var::from_tensor(weight).unwrap();
        let bias = bias.map(|bias| Var::from_tensor(bias).unwrap());
        let linear =
            candle_nn::Linear::new(weight.as_tensor().clone(), bias.as_ref().map(|bias| bias.as_tensor().clone()));
        Self { layer: QuantizedLinear::new(linear, recipe).unwrap(), weight, bias }
    }

    /// One step: the output for `x`, and the gradients of `Σ dy × output`.
    fn step(&self, x: &Tensor, dy: &Tensor) -> Step {
        let x = Var::from_tensor(x).unwrap();
        let y = self.layer.forward(&x).unwrap();
        let gradients = (&y * dy).unwrap().sum_all().unwrap().backward().unwrap();
        Step {
            y,
            dx: gradients.get(&x).unwrap().clone(),
            dw: gradients.get(&self.weight).unwrap().clone(),
            // Candle leaves out the sum of nothing and a bias.
            dbias: self.bias.as_ref().and_then(|bias| gradients.get(bias).cloned()),
        }
    }
}

/// What a step computes.
struct Step {
    y: Tensor,
    dx: Tensor,
    dw: Tensor,
    dbias: Option<Tensor>,
}

fn cpu<S: Into<candle_core::Shape>>(values: Vec<f32>, shape: S) -> Tensor {
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}
