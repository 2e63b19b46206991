//! A linear layer that holds nothing of its weight but the codes.

use candle_core::{Module, Tensor};

use super::shared::{Role, Shared};
use super::{LayerPath, check_input, check_parts, forward, locate};
use crate::Result;
use crate::quantizer::{Fp8Tensor, Quantizer, Ste, fake_quantize_with};

/// A linear layer with a weight of one byte an element.
///
/// The codes are constants: gradients go through the layer to its input, so adapters can train on top of it, and to its
/// bias if that is a variable. A layer that quantized its input in training goes on to do so, under the scales of eval
/// mode; gradients are not quantized.
#[derive(Clone, Debug)]
pub struct FrozenLinear {
    weight: Fp8Tensor,
    bias: Option<Tensor>,
    /// Boxed, so that a slot stays small for the layers that do not need it.
    activations: Option<Box<Activations>>,
    path: LayerPath,
}

/// How the input is quantized.
#[derive(Clone, Debug)]
struct Activations {
    quantizer: Quantizer,
    role: Role,
    ste: Ste,
}

impl FrozenLinear {
    /// A layer from packed weights of shape `(outputs, inputs)` and a bias of shape `(outputs,)`.
    ///
    /// # Errors
    ///
    /// Shapes that do not fit.
    pub fn new(weight: Fp8Tensor, bias: Option<Tensor>) -> Result<Self> {
        check_parts(weight.shape().dims(), weight.dtype(), weight.codes().device(), bias.as_ref())?;
        Ok(Self { weight, bias, activations: None, path: None })
    }

    /// The packed weight.
    #[must_use]
    pub fn weight(&self) -> &Fp8Tensor {
        &self.weight
    }

    /// The bias, in full precision.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// How the layer's input is quantized, if it is.
    #[must_use]
    pub fn activations(&self) -> Option<&Quantizer> {
        self.activations.as_ref().map(|activations| &activations.quantizer)
    }

    /// A full-precision layer with the values that the codes stand for, which are those that training computed with.
    ///
    /// # Errors
    ///
    /// None of its own; see candle for those of tensor operations.
    pub fn dequantize(&self) -> Result<candle_nn::Linear> {
        let weight = locate(self.weight.dequantize(), &self.path)?;
        Ok(candle_nn::Linear::new(weight, self.bias.clone()))
    }

    pub(crate) fn with_path(self, path: LayerPath) -> Self {
        Self { path, ..self }
    }

    pub(super) fn with_activations(self, quantizer: Option<Quantizer>, shared: &Shared, ste: Ste) -> Self {
        let activations =
            quantizer.map(|quantizer| Box::new(Activations { quantizer, role: shared.activations.clone(), ste }));
        Self { activations, ..self }
    }

    fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        check_input(x, self.weight.shape().dims(), self.weight.dtype(), self.weight.codes().device())?;
        let linear = candle_nn::Linear::new(self.weight.dequantize()?, self.bias.clone());
        match &self.activations {
            None => forward(x, &linear),
            Some(activations) => {
                let Activations { quantizer, role, ste } = &**activations;
                let x = x.contiguous()?;
                forward(&fake_quantize_with(&x, role.peek(quantizer, &x)?, *ste)?, &linear)
            }
        }
    }
}

impl Module for FrozenLinear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(locate(self.multiply(x), &self.path)?)
    }
}
