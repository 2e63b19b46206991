//! Layer norm and RMS norm, with a backward pass.

use altgrad_kernels::transformer::{self as kernels, Norm, NormGradients};
use altgrad_kernels::zeroed;
use candle_core::{D, Module, Result, Tensor};
use candle_nn::{LayerNormConfig, VarBuilder, ops};

use super::{check_dtype, check_shape};
use crate::autograd::{Pass, attach, computed, floats, tensor};
use crate::quantizer::has_kernels;

/// A layer norm: `(x - mean) / √(variance + eps) · weight + bias` over the last dimension.
///
/// The same as [`candle_nn::LayerNorm`], whose fused operation has no backward pass: gradients stop there in silence.
/// This one has one, and computes both passes in one pass over memory each, in `f32` for `f16` and `bf16`.
///
/// ```
/// use altgrad::nn::LayerNorm;
/// use candle_core::{Device, Module, Tensor, Var};
///
/// let weight = Var::ones(4, candle_core::DType::F32, &Device::Cpu)?;
/// let bias = Tensor::zeros(4, candle_core::DType::F32, &Device::Cpu)?;
/// let norm = LayerNorm::new(weight.as_tensor().clone(), bias, 1e-5);
/// let y = norm.forward(&Tensor::new(&[[1f32, 2.0, 3.0, 4.0]], &Device::Cpu)?)?;
/// assert!(y.sqr()?.sum_all()?.backward()?.get(&weight).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm(candle_nn::LayerNorm);

impl LayerNorm {
    /// A layer norm with a weight and a bias, each with as many elements as rows have.
    #[must_use]
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self(candle_nn::LayerNorm::new(weight, bias, eps))
    }

    /// A layer norm without a bias.
    #[must_use]
    pub fn new_no_bias(weight: Tensor, eps: f64) -> Self {
        Self(candle_nn::LayerNorm::new_no_bias(weight, eps))
    }

    /// An RMS norm, which does not subtract the mean.
    #[must_use]
    pub fn rms_norm(weight: Tensor, eps: f64) -> Self {
        Self(candle_nn::LayerNorm::rms_norm(weight, eps))
    }

    /// The weight, one element for each of a row.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// The bias, one element for each of a row.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }

    /// What is added to the mean square before its root is taken.
    #[must_use]
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }
}

impl From<candle_nn::LayerNorm> for LayerNorm {
    fn from(norm: candle_nn::LayerNorm) -> Self {
        Self(norm)
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        normalize(x, self.0.weight(), self.0.bias(), self.0.eps(), self.0.remove_mean())
    }
}

/// An RMS norm: `x / √(mean square + eps) · weight` over the last dimension.
///
/// The same as [`candle_nn::RmsNorm`], with a backward pass; see [`LayerNorm`].
#[derive(Clone, Debug)]
pub struct RmsNorm(LayerNorm);

impl RmsNorm {
    /// An RMS norm whose weight has as many elements as rows have.
    #[must_use]
    pub fn new(weight: Tensor, eps: f64) -> Self {
        Self(LayerNorm::rms_norm(weight, eps))
    }

    /// The same as a [`LayerNorm`].
    #[must_use]
    pub fn into_inner(self) -> LayerNorm {
        self.0
    }

    /// The weight, one element for each of a row.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// What is added to the mean square before its root is taken.
    #[must_use]
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }

    /// The output: the same as [`forward`](Module::forward), which has a backward pass, too.
    ///
    /// # Errors
    ///
    /// Those of [`ops::rms_norm`](super::ops::rms_norm).
    pub fn forward_diff(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(x)
    }
}

impl From<candle_nn::RmsNorm> for RmsNorm {
    fn from(norm: candle_nn::RmsNorm) -> Self {
        Self(norm.into_inner().into())
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// A layer norm with a `weight` and, unless the configuration is without, a `bias` from `vb`, as
/// [`candle_nn::layer_norm`](candle_nn::layer_norm()) makes it.
///
/// # Errors
///
/// Those of candle's constructor, for a tensor that is missing or has another shape.
pub fn layer_norm<C: Into<LayerNormConfig>>(size: usize, config: C, vb: VarBuilder<'_>) -> Result<LayerNorm> {
    candle_nn::layer_norm(size, config, vb).map(LayerNorm)
}

/// A layer norm with a `weight` from `vb`, as [`candle_nn::layer_norm_no_bias`] makes it.
///
/// # Errors
///
/// Those of candle's constructor, for a tensor that is missing or has another shape.
pub fn layer_norm_no_bias(size: usize, eps: f64, vb: VarBuilder<'_>) -> Result<LayerNorm> {
    candle_nn::layer_norm_no_bias(size, eps, vb).map(LayerNorm)
}

/// An RMS norm with a `weight` from `vb`, as [`candle_nn::rms_norm`] makes it.
///
/// # Errors
///
/// Those of candle's constructor, for a tensor that is missing or has another shape.
pub fn rms_norm(size: usize, eps: f64, vb: VarBuilder<'_>) -> Result<RmsNorm> {
    candle_nn::rms_norm(size, eps, vb).map(RmsNorm::from)
}

/// The rows of the last dimension, normalized.
pub(super) fn normalize(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f64,
    centered: bool,
) -> Result<Tensor> {
    let cols = x.dim(D::Minus1)?;
    for (what, tensor) in [("the weight of a norm", Some(weight)), ("the bias of a norm", bias)] {
        let Some(tensor) = tensor else { continue };
        check_shape(what, tensor, &[cols])?;
        check_dtype(what, tensor, x.dtype())?;
    }
    if !has_kernels(x.dtype(), x.device()) {
        return match bias {
            Some(bias) if centered => ops::layer_norm_slow(x, weight, bias, eps as f32),
            Some(bias) => ops::rms_norm_slow(x, weight, eps as f32)?.broadcast_add(bias),
            None if centered => ops::layer_norm_slow(x, weight, &weight.zeros_like()?, eps as f32),
            None => ops::rms_norm_slow(x, weight, eps as f32),
        };
    }
    let norm = Norm { eps: eps as f32, centered };
    let y = {
        let (x, weight) = (floats(x)?, floats(weight)?);
        let bias = bias.map(floats).transpose()?;
        let mut y = zeroed(x.len());
        kernels::norm(norm, &x, &weight, bias.as_deref(), &mut y);
        y
    };
    let arguments: Vec<&Tensor> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    attach(computed(y, x.dtype())?, x.shape(), &arguments, move |pass: Pass<'_>| {
        let needs = |place: usize, len: usize| {
            let argument = pass.arguments.get(place).filter(|argument| argument.track_op());
            argument.map(|_| zeroed::<f32>(len))
        };
        let (x, weight, dtype) = (pass.arguments[0], pass.arguments[1], pass.dy.dtype());
        let (mut dx, mut dweight, mut dbias) = (needs(0, x.elem_count()), needs(1, cols), needs(2, cols));
        let to = NormGradients { x: dx.as_deref_mut(), weight: dweight.as_deref_mut(), bias: dbias.as_deref_mut() };
        kernels::norm_gradients(norm, &floats(x)?, &floats(weight)?, &floats(pass.dy)?, to);
        let of_columns = |gradient: Option<Vec<f32>>| gradient.map(|values| tensor(values, cols, dtype)).transpose();
        let dx = dx.map(|values| tensor(values, x.shape(), dtype)).transpose()?;
        Ok([dx, of_columns(dweight)?, of_columns(dbias)?])
    })
}
