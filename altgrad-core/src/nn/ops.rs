//! The functions of [`candle_nn::ops`], of which those that a transformer trains with have a backward pass and take one
//! pass over memory each way.
//!
//! On the CPU, `f32`, `f16` and `bf16` tensors are computed by kernels, in `f32`; other tensors by candle's operations.
//! Values are within 4·10⁻⁶ of the exact ones, relative to the largest of a row, and gradients as well.

use altgrad_kernels::transformer::{self as kernels, Activation};
use altgrad_kernels::zeroed;
use candle_core::shape::Dim;
use candle_core::{D, Result, Tensor};
pub use candle_nn::ops::*;

use super::norm::normalize;
use super::{check_dtype, check_shape};
use crate::Mask;
use crate::autograd::{Pass, attach, computed, floats, tensor};
use crate::quantizer::has_kernels;

/// `x·σ(x)`, also called swish.
///
/// # Errors
///
/// Those of candle.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    activate(Activation::Silu, x)
}

/// `x·Φ(x)` with the approximation of the normal distribution by `tanh`, as [`Tensor::gelu`].
///
/// # Errors
///
/// Those of candle.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    activate(Activation::GeluTanh, x)
}

/// `x·Φ(x)` with the normal distribution itself, as [`Tensor::gelu_erf`].
///
/// # Errors
///
/// Those of candle.
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    activate(Activation::GeluErf, x)
}

/// `silu(gate) · up`, element by element: the gated product of LLaMA's feed-forward layer.
///
/// ```
/// use altgrad::nn::ops;
/// use candle_core::{Device, Tensor};
///
/// let (gate, up) = (Tensor::new(&[0f32, 1.0], &Device::Cpu)?, Tensor::new(&[5f32, 2.0], &Device::Cpu)?);
/// let y = ops::silu_mul(&gate, &up)?.to_vec1::<f32>()?;
/// assert_eq!(y[0], 0.0);
/// assert!((y[1] - 2.0 * 0.731_058_6).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
///
/// Operands of different shapes or dtypes.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gated(Activation::Silu, gate, up)
}

/// [`gelu`]`(gate) · up`, element by element: the gated product of Gemma's feed-forward layer.
///
/// # Errors
///
/// Operands of different shapes or dtypes.
pub fn gelu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gated(Activation::GeluTanh, gate, up)
}

/// [`silu_mul`] of the two halves of the last dimension, as [`candle_nn::ops::swiglu`].
///
/// # Errors
///
/// Those of candle, for a last dimension that is odd.
pub fn swiglu(x: &Tensor) -> Result<Tensor> {
    let halves = x.chunk(2, D::Minus1)?;
    match &halves[..] {
        [gate, up] => silu_mul(gate, up),
        _ => candle_nn::ops::swiglu(x),
    }
}

/// A layer norm over the last dimension; see [`LayerNorm`](super::LayerNorm).
///
/// # Errors
///
/// A weight or a bias that does not have as many elements as rows, or has another dtype.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    normalize(x, weight, Some(bias), f64::from(eps), true)
}

/// An RMS norm over the last dimension; see [`RmsNorm`](super::RmsNorm).
///
/// # Errors
///
/// A weight that does not have as many elements as rows, or has another dtype.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    normalize(x, weight, None, f64::from(eps), false)
}

/// `exp(x[i]) / Σ exp(x[j])` over one dimension.
///
/// # Errors
///
/// A dimension that `x` does not have.
#[allow(clippy::needless_pass_by_value, reason = "the signature is candle's")]
pub fn softmax<I: Dim>(x: &Tensor, dim: I) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "softmax")?;
    let last = x.rank() - 1;
    if dim == last { softmax_last_dim(x) } else { softmax_last_dim(&x.transpose(dim, last)?)?.transpose(dim, last) }
}

/// `exp(x[i]) / Σ exp(x[j])` over the last dimension.
///
/// # Errors
///
/// A tensor without dimensions.
pub fn softmax_last_dim(x: &Tensor) -> Result<Tensor> {
    masked_softmax(x, Mask::All)
}

/// The softmax over those elements of the last dimension that a mask shows, of scores `(…, queries, tokens)`; the
/// others become 0. A row of which nothing is visible is 0.
///
/// ```
/// use altgrad::{Mask, nn::ops};
/// use candle_core::{DType, Device, Tensor};
///
/// let scores = Tensor::zeros((1, 2, 3), DType::F32, &Device::Cpu)?; // the queries of the last two of three tokens
/// let weights = ops::masked_softmax(&scores, Mask::Causal)?;
/// assert_eq!(weights.to_vec3::<f32>()?, [[[0.5, 0.5, 0.0], [1.0 / 3.0; 3]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
///
/// A tensor without dimensions, or with one for a mask other than [`Mask::All`].
pub fn masked_softmax(x: &Tensor, mask: Mask) -> Result<Tensor> {
    let cols = x.dim(D::Minus1)?;
    let rows = if mask == Mask::All { 1 } else { x.dim(D::Minus2)? };
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    if !has_kernels(x.dtype(), x.device()) {
        if mask == Mask::All {
            return candle_nn::ops::softmax(x, D::Minus1);
        }
        let hidden = mask.tensor(rows, cols, x.dtype(), x.device())?;
        let sees_something = |row: usize| u8::from(!mask.visible(row, rows, cols).is_empty());
        let seeing = Tensor::from_iter((0..rows).map(sees_something), x.device())?.reshape((rows, 1))?;
        // A row of -∞ would be NaN, and so would its gradient, whatever takes its place afterwards.
        let hidden = seeing.broadcast_as(hidden.shape())?.where_cond(&hidden, &hidden.zeros_like()?)?;
        let weights = candle_nn::ops::softmax(&x.broadcast_add(&hidden)?, D::Minus1)?;
        return seeing.broadcast_as(x.shape())?.where_cond(&weights, &weights.zeros_like()?);
    }
    let visible = |row: usize| mask.visible(row % rows.max(1), rows, cols);
    let mut y = zeroed(x.elem_count());
    kernels::softmax_rows(&floats(x)?, cols, &visible, &mut y);
    attach(computed(y, x.dtype())?, x.shape(), &[x], move |pass: Pass<'_>| {
        let mut dx = zeroed(pass.dy.elem_count());
        kernels::softmax_gradient(&floats(pass.result)?, &floats(pass.dy)?, cols, &mut dx);
        Ok([Some(tensor(dx, pass.dy.shape(), pass.dy.dtype())?), None, None])
    })
}

fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    if !has_kernels(x.dtype(), x.device()) {
        return match activation {
            Activation::Silu => x.silu(),
            Activation::GeluTanh => x.gelu(),
            Activation::GeluErf => x.gelu_erf(),
        };
    }
    let mut y = zeroed(x.elem_count());
    kernels::activate(activation, &floats(x)?, &mut y);
    attach(computed(y, x.dtype())?, x.shape(), &[x], move |pass: Pass<'_>| {
        let mut dx = zeroed(pass.dy.elem_count());
        kernels::activation_gradient(activation, &floats(pass.arguments[0])?, &floats(pass.dy)?, &mut dx);
        Ok([Some(tensor(dx, pass.dy.shape(), pass.dy.dtype())?), None, None])
    })
}

fn gated(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    check_shape("the gated tensor", up, gate.dims())?;
    check_dtype("the gated tensor", up, gate.dtype())?;
    if !has_kernels(gate.dtype(), gate.device()) {
        return activate(activation, gate)?.mul(up);
    }
    let mut y = zeroed(gate.elem_count());
    kernels::gate(activation, &floats(gate)?, &floats(up)?, &mut y);
    attach(computed(y, gate.dtype())?, gate.shape(), &[gate, up], move |pass: Pass<'_>| {
        let (gate, up, dy) = (pass.arguments[0], pass.arguments[1], pass.dy);
        let (mut dgate, mut dup) = (zeroed(dy.elem_count()), zeroed(dy.elem_count()));
        let (gate, up, from) = (floats(gate)?, floats(up)?, floats(dy)?);
        kernels::gate_gradients(activation, &gate, &up, &from, &mut dgate, &mut dup);
        let gradient = |values| tensor(values, dy.shape(), dy.dtype());
        Ok([Some(gradient(dgate)?), Some(gradient(dup)?), None])
    })
}
