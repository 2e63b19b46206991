//! The slot: what a model declares instead of a layer in full precision.

use candle_core::{Module, Tensor};

use super::mode::Mode;
use super::{Frozen, Full, Operation, Quantized, Recipe};
use crate::quantizer::Quantizer;
use crate::{Fp8, Result};

/// A layer that can be quantized in place: declare it instead of the layer in full precision.
/// [`Linear`](crate::Linear), [`Embedding`](crate::nn::Embedding), [`Conv1d`](crate::nn::Conv1d) and
/// [`Conv2d`](crate::nn::Conv2d) are slots; see [`Operation`] for a kind of your own.
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
/// A slot is in training mode until it is switched to eval mode, and keeps its mode in every state: a slot that is
/// quantized, frozen or dequantized in eval mode remains in eval mode. See [`Quantized`] for what the mode means.
#[derive(Clone, Debug)]
pub enum Slot<O: Operation> {
    /// A layer in full precision.
    Full(Full<O>),
    /// A layer that computes with quantized tensors and trains the full-precision weight.
    Quantized(Box<Quantized<O>>),
    /// A layer that holds codes only.
    Frozen(Box<Frozen<O>>),
}

/// Which of the three a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// A layer in full precision.
    Full,
    /// A layer that computes with quantized tensors and trains the full-precision weight.
    Quantized,
    /// A layer that holds codes only.
    Frozen,
}

impl<O: Operation> Slot<O> {
    /// What the slot holds.
    #[must_use]
    pub fn state(&self) -> SlotState {
        match self {
            Self::Full(_) => SlotState::Full,
            Self::Quantized(_) => SlotState::Quantized,
            Self::Frozen(_) => SlotState::Frozen,
        }
    }

    /// The weight as floats: the layer's own tensor, or the values of the codes once frozen. It has the shape
    /// `(outputs, inputs)` in a linear layer.
    ///
    /// # Errors
    ///
    /// Only those of candle's tensor operations.
    pub fn weight(&self) -> Result<Tensor> {
        match self {
            Self::Full(layer) => Ok(layer.weight().clone()),
            Self::Quantized(layer) => Ok(layer.weight().clone()),
            Self::Frozen(layer) => Ok(layer.dequantize()?.weight().clone()),
        }
    }

    /// The bias, shape `(outputs,)`: the layer's own tensor in every state.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        match self {
            Self::Full(layer) => layer.bias(),
            Self::Quantized(layer) => layer.bias(),
            Self::Frozen(layer) => layer.bias(),
        }
    }

    /// The format that the layer's weight is quantized to, if it is.
    #[must_use]
    pub fn format(&self) -> Option<Fp8> {
        match self {
            Self::Full(_) => None,
            Self::Quantized(layer) => Some(layer.recipe().weights.format),
            Self::Frozen(layer) => Some(layer.format()),
        }
    }

    /// How the layer's tensors are quantized, if it is quantized and not frozen.
    #[must_use]
    pub fn recipe(&self) -> Option<&Recipe> {
        match self {
            Self::Full(_) | Self::Frozen(_) => None,
            Self::Quantized(layer) => Some(layer.recipe()),
        }
    }

    /// How the layer's input is quantized, if it is.
    #[must_use]
    pub fn activations(&self) -> Option<&Quantizer> {
        match self {
            Self::Full(_) => None,
            Self::Quantized(layer) => layer.recipe().activations.as_ref(),
            Self::Frozen(layer) => layer.activations(),
        }
    }

    /// How the gradient of the layer's output is quantized, if it is.
    #[must_use]
    pub fn gradients(&self) -> Option<&Quantizer> {
        self.recipe().and_then(|recipe| recipe.gradients.as_ref())
    }

    /// Whether the slot is in training mode, in which it starts, and not in eval mode.
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.mode().training
    }

    /// The weight's dimensions.
    #[must_use]
    pub fn weight_dims(&self) -> &[usize] {
        match self {
            Self::Full(layer) => layer.weight().dims(),
            Self::Quantized(layer) => layer.weight().dims(),
            Self::Frozen(layer) => layer.dims(),
        }
    }

    /// Bytes that the weight takes in memory now: those of the full-precision tensor, or of codes and scales once
    /// frozen.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        let bytes = |weight: &Tensor| weight.elem_count() * weight.dtype().size_in_bytes();
        match self {
            Self::Full(layer) => bytes(layer.weight()),
            Self::Quantized(layer) => bytes(layer.weight()),
            Self::Frozen(layer) => layer.weight_bytes(),
        }
    }

    /// The layer's configuration: everything except its tensors, such as the stride of a convolution.
    #[must_use]
    pub fn config(&self) -> O::Config {
        match self {
            Self::Full(layer) => layer.layer().config(),
            Self::Quantized(layer) => layer.layer().config(),
            Self::Frozen(layer) => layer.config().clone(),
        }
    }

    /// The settings of the slot, in any state.
    pub(super) fn mode(&self) -> Mode {
        match self {
            Self::Full(layer) => layer.mode(),
            Self::Quantized(layer) => layer.quantization().mode,
            Self::Frozen(layer) => layer.codes().mode,
        }
    }
}

impl<O: Operation> Module for Slot<O> {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Full(layer) => layer.forward(x),
            Self::Quantized(layer) => layer.forward(x),
            Self::Frozen(layer) => layer.forward(x),
        }
    }
}

impl<O: Operation> From<O> for Slot<O> {
    fn from(layer: O) -> Self {
        Self::Full(layer.into())
    }
}

impl<O: Operation> From<Quantized<O>> for Slot<O> {
    fn from(layer: Quantized<O>) -> Self {
        Self::Quantized(Box::new(layer))
    }
}

impl<O: Operation> From<Frozen<O>> for Slot<O> {
    fn from(layer: Frozen<O>) -> Self {
        Self::Frozen(Box::new(layer))
    }
}
