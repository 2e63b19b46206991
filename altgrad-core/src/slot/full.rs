//! A layer in full precision, in a slot.

use candle_core::{Module, Tensor};

use super::Operation;
use super::mode::Mode;

/// A layer without any quantization, with the mode that its slot is in.
///
/// ```
/// use altgrad::Linear;
/// use candle_core::{DType, Device, Tensor};
///
/// let weight = Tensor::ones((3, 4), DType::F32, &Device::Cpu)?;
/// let slot = Linear::from(candle_nn::Linear::new(weight, None));
/// if let Linear::Full(layer) = slot {
///     assert_eq!(layer.weight().dims(), [3, 4]);
///     let of_candle: candle_nn::Linear = layer.into_layer();
/// }
/// # Ok::<(), altgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Full<O> {
    layer: O,
    mode: Mode,
}

impl<O: Operation> Full<O> {
    pub(super) fn new(layer: O, mode: Mode) -> Self {
        Self { layer, mode }
    }

    /// The weight, which has the shape `(outputs, inputs)` in a linear layer.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        self.layer.weight()
    }

    /// The bias, shape `(outputs,)`.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.layer.bias()
    }

    /// The layer itself.
    #[must_use]
    pub fn layer(&self) -> &O {
        &self.layer
    }

    /// The layer itself, with the same tensors.
    #[must_use]
    pub fn into_layer(self) -> O {
        self.layer
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn mode_mut(&mut self) -> &mut Mode {
        &mut self.mode
    }
}

impl<O: Operation> From<O> for Full<O> {
    fn from(layer: O) -> Self {
        Self::new(layer, Mode::default())
    }
}

impl<O: Operation> Module for Full<O> {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.layer.forward(x)?)
    }
}
