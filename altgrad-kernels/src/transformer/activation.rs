//! Activations, alone and as gates of another tensor.

use super::PART;
use super::exponential::{normal, sigmoid};
use crate::element::Scalar;
use crate::level::{Level, for_every_level};
use crate::threads;

/// An activation: a function of each element on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x·σ(x)`, also called swish.
    Silu,
    /// `x·Φ(x)` with the approximation of the normal distribution by `tanh` (Hendrycks and Gimpel, 2016).
    GeluTanh,
    /// `x·Φ(x)`.
    GeluErf,
}

for_every_level! {
    /// `to[i] = f(x[i])`.
    fn activate_part = activate_loop, (activation: Activation, x: &[f32], to: &mut [f32]);

    /// `to[i] = dy[i]·f'(x[i])`.
    fn gradient_part = gradient_loop, (activation: Activation, x: &[f32], dy: &[f32], to: &mut [f32]);

    /// `to[i] = f(x[i])·up[i]`.
    fn gate_part = gate_loop, (activation: Activation, x: &[f32], up: &[f32], to: &mut [f32]);

    /// `dx[i] = dy[i]·up[i]·f'(x[i])` and `dup[i] = dy[i]·f(x[i])`.
    fn gate_gradients_part = gate_gradients_loop, (activation: Activation, from: [&[f32]; 3], to: [&mut [f32]; 2]);
}

/// `to[i] = f(x[i])`; both slices have the same length.
pub fn activate(activation: Activation, x: &[f32], to: &mut [f32]) {
    let parts = x.chunks(PART).zip(to.chunks_mut(PART)).collect();
    threads::for_each(parts, work(x.len()), |(x, to): (&[f32], &mut [f32])| {
        activate_part::<f32>(Level::detect(), activation, x, to);
    });
}

/// `dx[i] = dy[i]·f'(x[i])`; all slices have the same length.
pub fn activation_gradient(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let parts = x.chunks(PART).zip(dy.chunks(PART)).zip(dx.chunks_mut(PART)).collect();
    threads::for_each(parts, work(x.len()), |((x, dy), dx): ((&[f32], &[f32]), &mut [f32])| {
        gradient_part::<f32>(Level::detect(), activation, x, dy, dx);
    });
}

/// `to[i] = f(x[i])·up[i]`; all slices have the same length.
pub fn gate(activation: Activation, x: &[f32], up: &[f32], to: &mut [f32]) {
    let parts = x.chunks(PART).zip(up.chunks(PART)).zip(to.chunks_mut(PART)).collect();
    threads::for_each(parts, work(x.len()), |((x, up), to): ((&[f32], &[f32]), &mut [f32])| {
        gate_part::<f32>(Level::detect(), activation, x, up, to);
    });
}

/// `dx[i] = dy[i]·up[i]·f'(x[i])` and `dup[i] = dy[i]·f(x[i])`; all slices have the same length.
pub fn gate_gradients(activation: Activation, x: &[f32], up: &[f32], dy: &[f32], dx: &mut [f32], dup: &mut [f32]) {
    let from = x.chunks(PART).zip(up.chunks(PART)).zip(dy.chunks(PART)).map(|((x, up), dy)| [x, up, dy]);
    let to = dx.chunks_mut(PART).zip(dup.chunks_mut(PART)).map(|(dx, dup)| [dx, dup]);
    threads::for_each(from.zip(to).collect(), work(x.len()), |(from, to): ([&[f32]; 3], [&mut [f32]; 2])| {
        gate_gradients_part::<f32>(Level::detect(), activation, from, to);
    });
}

/// An element takes about as long as this many that are moved.
fn work(elements: usize) -> usize {
    elements.saturating_mul(8)
}

/// `√(8/π)` and the factor of the cube: `tanh`'s argument, twice.
const TANH_LINEAR: f32 = 1.595_769;
const TANH_CUBIC: f32 = 0.044_715;

/// Magnitudes beyond which no derivative changes in f32; it is computed there, where nothing overflows.
const FLAT: f32 = 64.0;

/// A function and its derivative.
trait Function {
    fn value(x: f32) -> f32;
    fn derivative(x: f32) -> f32;
}

struct Silu;
struct GeluTanh;
struct GeluErf;

impl Function for Silu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(x).0
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        let (s, rest) = sigmoid(x);
        s + x.clamp(-2.0 * FLAT, 2.0 * FLAT) * s * rest
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(TANH_LINEAR * (x + TANH_CUBIC * x * x * x)).0
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        let x = x.clamp(-FLAT, FLAT);
        let (s, rest) = sigmoid(TANH_LINEAR * (x + TANH_CUBIC * x * x * x));
        s + x * s * rest * TANH_LINEAR * (1.0 + 3.0 * TANH_CUBIC * x * x)
    }
}

impl Function for GeluErf {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * normal(x).1
    }

    #[inline(always)]
    fn derivative(x: f32) -> f32 {
        let x = x.clamp(-FLAT, FLAT);
        let (density, below) = normal(x);
        below + x * density
    }
}

/// Runs `$body` with the type `$function` standing for an activation, so that each has a loop of its own.
macro_rules! with_function {
    ($activation:expr, $function:ident => $body:expr) => {
        match $activation {
            Activation::Silu => {
                type $function = Silu;
                $body
            }
            Activation::GeluTanh => {
                type $function = GeluTanh;
                $body
            }
            Activation::GeluErf => {
                type $function = GeluErf;
                $body
            }
        }
    };
}

#[inline(always)]
fn activate_loop(activation: Activation, x: &[f32], to: &mut [f32]) {
    with_function!(activation, F => for (to, x) in to.iter_mut().zip(x) {
        *to = F::value(*x);
    });
}

#[inline(always)]
fn gradient_loop(activation: Activation, x: &[f32], dy: &[f32], to: &mut [f32]) {
    with_function!(activation, F => for ((to, x), dy) in to.iter_mut().zip(x).zip(dy) {
        *to = dy * F::derivative(*x);
    });
}

#[inline(always)]
fn gate_loop(activation: Activation, x: &[f32], up: &[f32], to: &mut [f32]) {
    with_function!(activation, F => for ((to, x), up) in to.iter_mut().zip(x).zip(up) {
        *to = F::value(*x) * up;
    });
}

#[inline(always)]
fn gate_gradients_loop(activation: Activation, [x, up, dy]: [&[f32]; 3], [dx, dup]: [&mut [f32]; 2]) {
    with_function!(activation, F => for ((((dx, dup), x), up), dy) in dx.iter_mut().zip(dup).zip(x).zip(up).zip(dy) {
        *dx = dy * up * F::derivative(*x);
        *dup = dy * F::value(*x);
    });
}
