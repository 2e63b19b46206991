//! A linear layer in full precision, in a slot.

use candle_core::{Module, Tensor};

use super::forward;
use super::mode::Mode;

/// A linear layer that nothing is quantized of: candle's, with the mode that its slot is in.
///
/// ```
/// use altgrad::Linear;
/// use candle_core::{DType, Device, Tensor};
///
/// let weight = Tensor::ones((3, 4), DType::F32, &Device::Cpu)?;
/// let slot = Linear::from(candle_nn::Linear::new(weight, None));
/// if let Linear::Full(layer) = slot {
///     assert_eq!(layer.weight().dims(), [3, 4]);
///     let of_candle: candle_nn::Linear = layer.into_linear();
/// }
/// # Ok::<(), altgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FullLinear {
    linear: candle_nn::Linear,
    mode: Mode,
}

impl FullLinear {
    pub(crate) fn new(linear: candle_nn::Linear, mode: Mode) -> Self {
        Self { linear, mode }
    }

    /// The weight, shape `(outputs, inputs)`.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        self.linear.weight()
    }

    /// The bias, shape `(outputs,)`.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.linear.bias()
    }

    /// Candle's layer, with the same tensors.
    #[must_use]
    pub fn into_linear(self) -> candle_nn::Linear {
        self.linear
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn mode_mut(&mut self) -> &mut Mode {
        &mut self.mode
    }
}

impl From<candle_nn::Linear> for FullLinear {
    fn from(linear: candle_nn::Linear) -> Self {
        Self::new(linear, Mode::default())
    }
}

impl Module for FullLinear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(forward(x, &self.linear)?)
    }
}
