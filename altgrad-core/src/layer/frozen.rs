//! A linear layer that holds nothing of its weight but the codes.

use candle_core::{Module, Tensor};

use super::{LayerPath, check_parts, forward, locate};
use crate::Result;
use crate::quantizer::Fp8Tensor;

/// A linear layer with a weight of one byte an element.
///
/// The codes are constants: gradients go through the layer to its input, so adapters can train on top of it, and to its
/// bias if that is a variable.
#[derive(Clone, Debug)]
pub struct FrozenLinear {
    weight: Fp8Tensor,
    bias: Option<Tensor>,
    path: LayerPath,
}

impl FrozenLinear {
    /// A layer from packed weights of shape `(outputs, inputs)` and a bias of shape `(outputs,)`.
    ///
    /// # Errors
    ///
    /// Shapes that do not fit.
    pub fn new(weight: Fp8Tensor, bias: Option<Tensor>) -> Result<Self> {
        check_parts(weight.shape().dims(), bias.as_ref())?;
        Ok(Self { weight, bias, path: None })
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

    /// A full-precision layer with the values that the codes stand for, which are those that training computed with.
    ///
    /// # Errors
    ///
    /// Codes on a device other than the CPU.
    pub fn dequantize(&self) -> Result<candle_nn::Linear> {
        let weight = locate(self.weight.dequantize(), &self.path)?;
        Ok(candle_nn::Linear::new(weight, self.bias.clone()))
    }

    pub(crate) fn with_path(self, path: LayerPath) -> Self {
        Self { path, ..self }
    }
}

impl Module for FrozenLinear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.weight.dequantize().and_then(|weight| forward(x, weight, self.bias()));
        Ok(locate(y, &self.path)?)
    }
}
