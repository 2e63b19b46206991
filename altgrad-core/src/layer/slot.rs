//! The slot: the linear layer that a model declares, and `candle_nn`'s constructors for it.

use std::sync::Arc;

use candle_core::{Module, Tensor};
use candle_nn::VarBuilder;

use super::handed_out::Found;
use super::mode::Mode;
use super::{Compute, FrozenLinear, FullLinear, QuantizedLinear, Recipe, handed_out};
use crate::quantizer::Quantizer;
use crate::{Fp8, Result};

/// A linear layer that can be quantized in place: declare it where a model would have a `candle_nn::Linear`.
///
/// ```
/// use altgrad::{Linear, linear};
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let layer: Linear = linear(4, 3, vb.pp("fc"))?;
/// let y = layer.forward(&Tensor::zeros((2, 4), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(y.dims(), [2, 3]);
/// # Ok::<(), altgrad::Error>(())
/// ```
///
/// A slot is in training mode until it is switched to eval mode, and stays in its mode whatever it holds: a slot that is
/// quantized, frozen or dequantized in eval mode still is afterwards. What the mode means, [`QuantizedLinear`] says.
#[derive(Clone, Debug)]
pub enum Linear {
    /// A layer in full precision.
    Full(FullLinear),
    /// A layer that computes with quantized tensors and trains the full-precision weight.
    Quantized(Box<QuantizedLinear>),
    /// A layer that holds codes only.
    Frozen(Box<FrozenLinear>),
}

impl Linear {
    /// A full-precision layer with a weight of shape `(outputs, inputs)` and a bias of shape `(outputs,)`, as
    /// `candle_nn::Linear::new`.
    #[must_use]
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        candle_nn::Linear::new(weight, bias).into()
    }

    /// The weight as floats, shape `(outputs, inputs)`: the layer's own tensor, or the values of the codes once frozen.
    ///
    /// # Errors
    ///
    /// None of its own; see candle for those of tensor operations.
    pub fn weight(&self) -> Result<Tensor> {
        match self {
            Self::Full(linear) => Ok(linear.weight().clone()),
            Self::Quantized(linear) => Ok(linear.weight().clone()),
            Self::Frozen(linear) => Ok(linear.dequantize()?.weight().clone()),
        }
    }

    /// The bias, shape `(outputs,)`: the layer's own tensor in every state.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        match self {
            Self::Full(linear) => linear.bias(),
            Self::Quantized(linear) => linear.bias(),
            Self::Frozen(linear) => linear.bias(),
        }
    }

    /// The format that the layer's weight is quantized to, if it is.
    #[must_use]
    pub fn format(&self) -> Option<Fp8> {
        match self {
            Self::Full(_) => None,
            Self::Quantized(linear) => Some(linear.recipe().weights.format),
            Self::Frozen(linear) => Some(linear.format()),
        }
    }

    /// How the layer's input is quantized, if it is.
    #[must_use]
    pub fn activations(&self) -> Option<&Quantizer> {
        match self {
            Self::Full(_) => None,
            Self::Quantized(linear) => linear.recipe().activations.as_ref(),
            Self::Frozen(linear) => linear.activations(),
        }
    }

    /// How the gradient of the layer's output is quantized, if it is.
    #[must_use]
    pub fn gradients(&self) -> Option<&Quantizer> {
        match self {
            Self::Full(_) | Self::Frozen(_) => None,
            Self::Quantized(linear) => linear.recipe().gradients.as_ref(),
        }
    }

    /// Whether the slot is in training mode, as it is at first, or else in eval mode.
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.mode().training
    }

    /// Switches between training and eval mode, and drops codes that were kept.
    pub(crate) fn switch_training(&mut self, training: bool) {
        match self {
            Self::Full(linear) => linear.mode_mut().training = training,
            Self::Quantized(linear) => linear.set_training(training),
            Self::Frozen(linear) => linear.mode_mut().training = training,
        }
    }

    /// Changes in which precision the slot's layer reads an input that it does not quantize, once it is frozen.
    pub(crate) fn switch_compute(&mut self, compute: Compute) {
        match self {
            Self::Full(linear) => linear.mode_mut().compute = compute,
            Self::Quantized(linear) => linear.mode_mut().compute = compute,
            Self::Frozen(linear) => linear.set_compute(compute),
        }
    }

    /// What is set of the slot, whatever it holds.
    fn mode(&self) -> Mode {
        match self {
            Self::Full(linear) => linear.mode(),
            Self::Quantized(linear) => linear.mode(),
            Self::Frozen(linear) => linear.mode(),
        }
    }

    /// The slot, in its mode, with a layer in full precision.
    pub(crate) fn with_full(&self, linear: candle_nn::Linear) -> Self {
        Self::Full(FullLinear::new(linear, self.mode()))
    }

    /// The slot at `path`, in its mode, with a layer that is quantized.
    pub(crate) fn with_quantized(
        &self,
        linear: candle_nn::Linear,
        recipe: Recipe,
        path: &str,
    ) -> Result<QuantizedLinear> {
        QuantizedLinear::at(linear, recipe, self.mode(), Some(Arc::from(path)))
    }

    /// The weight's own tensor, if the layer still has it.
    pub(crate) fn master_weight(&self) -> Option<&Tensor> {
        match self {
            Self::Full(linear) => Some(linear.weight()),
            Self::Quantized(linear) => Some(linear.weight()),
            Self::Frozen(_) => None,
        }
    }

    /// The weight's shape.
    pub(crate) fn weight_dims(&self) -> &[usize] {
        match self {
            Self::Full(linear) => linear.weight().dims(),
            Self::Quantized(linear) => linear.weight().dims(),
            Self::Frozen(linear) => linear.dims(),
        }
    }

    /// Bytes that the weight takes in memory now: of the full-precision tensor, or of codes and scales once frozen.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        match self {
            Self::Frozen(linear) => linear.weight_bytes(),
            Self::Full(_) | Self::Quantized(_) => {
                self.master_weight().map_or(0, |weight| weight.elem_count() * weight.dtype().size_in_bytes())
            }
        }
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Full(linear) => linear.forward(x),
            Self::Quantized(linear) => linear.forward(x),
            Self::Frozen(linear) => linear.forward(x),
        }
    }
}

impl From<candle_nn::Linear> for Linear {
    fn from(linear: candle_nn::Linear) -> Self {
        Self::Full(linear.into())
    }
}

impl From<QuantizedLinear> for Linear {
    fn from(linear: QuantizedLinear) -> Self {
        Self::Quantized(Box::new(linear))
    }
}

impl From<FrozenLinear> for Linear {
    fn from(linear: FrozenLinear) -> Self {
        Self::Frozen(Box::new(linear))
    }
}

/// [`candle_nn::linear()`] into a slot: weight `(out_dim, in_dim)` and bias `(out_dim,)` from `vb`. Where `vb` is that of an
/// [FP8 checkpoint](crate::checkpoint::var_builder), a quantized weight makes the slot a frozen layer.
///
/// # Errors
///
/// As candle's: a tensor that is missing or of another shape; and what is wrong with a quantized weight.
pub fn linear(in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> candle_core::Result<Linear> {
    linear_b(in_dim, out_dim, true, vb)
}

/// [`linear()`] without a bias, as [`candle_nn::linear_no_bias`]: weight `(out_dim, in_dim)` from `vb`.
///
/// # Errors
///
/// As candle's: a tensor that is missing or of another shape; and what is wrong with a quantized weight.
pub fn linear_no_bias(in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> candle_core::Result<Linear> {
    linear_b(in_dim, out_dim, false, vb)
}

/// As [`linear()`] or [`linear_no_bias`], depending on `bias`; [`candle_nn::linear_b`] into a slot.
///
/// What a builder does to names on the way, as `VarBuilder::rename_f` does, does not keep codes from the slot.
///
/// # Errors
///
/// As candle's: a tensor that is missing or of another shape; and what is wrong with a quantized weight.
#[allow(clippy::needless_pass_by_value, reason = "the signature is candle's")]
pub fn linear_b(in_dim: usize, out_dim: usize, bias: bool, vb: VarBuilder<'_>) -> candle_core::Result<Linear> {
    Ok(match handed_out::layer(in_dim, out_dim, bias, &vb).map_err(|error| error.at(&vb.prefix()))? {
        Found::Full(layer) => layer.into(),
        Found::Frozen(layer) => Linear::Frozen(layer),
    })
}
