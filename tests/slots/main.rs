//! Slots of every kind, those of altgrad and one that is defined here, through everything that can be done to a model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

mod convolution;
mod embedding;
mod every_kind;
mod granularity;
mod own_kind;
mod port;
mod ties;

use candle_core::{DType, Device, Module, Shape, Tensor, Var};

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

/// A tensor of [`numbers`].
fn tensor(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let shape = shape.into();
    Tensor::from_vec(numbers(shape.elem_count(), seed), shape, &Device::Cpu).unwrap()
}

/// A tensor of integers from -3 to 3, whose products and sums are exact.
fn integers(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let shape = shape.into();
    let whole = numbers(shape.elem_count(), seed).into_iter().map(|x| (x * 1e4).round().rem_euclid(7.0) - 3.0);
    Tensor::from_vec(whole.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

/// An output and the gradients of `Σ dy × output`.
struct Step {
    y: Tensor,
    dx: Tensor,
    dw: Option<Tensor>,
}

/// One step of a layer with this weight; `dy` is made for the output.
fn step(layer: &dyn Module, x: &Tensor, weight: Option<&Tensor>, dy: impl Fn(&Tensor) -> Tensor) -> Step {
    let x = Var::from_tensor(x).unwrap();
    let y = layer.forward(&x).unwrap();
    let gradients = (&y * dy(&y)).unwrap().sum_all().unwrap().backward().unwrap();
    let dx = gradients.get(&x).unwrap().clone();
    Step { dx, dw: weight.map(|weight| gradients.get(weight).unwrap().clone()), y }
}

#[track_caller]
fn assert_same(what: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    assert_eq!(bits(a), bits(b), "{what}");
}

/// Asserts that values differ by at most the bound, relative to the largest of them.
#[track_caller]
fn assert_close(what: &str, a: &Tensor, b: &Tensor, bound: f32) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let largest = values(b).into_iter().fold(0f32, |largest, x| largest.max(x.abs()));
    for (a, b) in values(a).into_iter().zip(values(b)) {
        assert!((a - b).abs() <= bound * largest, "{what}: {a} and {b}");
    }
}
