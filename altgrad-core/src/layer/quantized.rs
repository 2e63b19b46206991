//! A linear layer that computes with a fake-quantized weight and trains its full-precision one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Module, Tensor};

use super::{FrozenLinear, LayerPath, Recipe, check_parts, forward, locate};
use crate::quantizer::{AmaxHistory, Fp8Tensor, amax, check_finite, fake_quantize_cached, fake_quantize_with_scale};
use crate::{Error, Result};

/// A linear layer whose weight is quantized on the way into every product, and whose gradient goes to the wrapped
/// layer's own tensors through the straight-through estimator.
///
/// In training mode (the mode it starts in) each forward pass quantizes the weight anew, since the optimizer moves it,
/// and adds a step to the histories that scales are made from. In eval mode the codes are computed once and kept, and
/// histories stand still; call [`Quantizable::eval`](crate::Quantizable::eval) again after changing weights by other
/// means. The gradient is the same in both modes.
///
/// ```
/// use altgrad_core::{Fp8, QuantizedLinear};
/// use candle_core::{DType, Device, Module, Tensor, Var};
///
/// let weight = Var::randn(0f32, 1.0, (3, 4), &Device::Cpu)?;
/// let layer = QuantizedLinear::new(candle_nn::Linear::new(weight.as_tensor().clone(), None), Fp8::E4M3)?;
/// let y = layer.forward(&Tensor::ones((2, 4), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(y.dims(), [2, 3]);
///
/// assert_eq!(layer.weight().id(), weight.id());
/// assert!(y.sum_all()?.backward()?.get(&weight).is_some());
/// # Ok::<(), altgrad_core::Error>(())
/// ```
#[derive(Debug)]
pub struct QuantizedLinear {
    wrapped: candle_nn::Linear,
    recipe: Recipe,
    training: bool,
    state: Mutex<State>,
    path: LayerPath,
}

#[derive(Clone, Debug)]
struct State {
    weight_history: AmaxHistory,
    /// The weight's codes in eval mode, once they were needed.
    codes: Option<Fp8Tensor>,
}

impl QuantizedLinear {
    /// Wraps a layer.
    ///
    /// # Errors
    ///
    /// A weight that is not a finite f32, f64, f16 or bf16 matrix on the CPU, a bias that does not fit it, or an
    /// invalid recipe.
    pub fn new(linear: candle_nn::Linear, recipe: impl Into<Recipe>) -> Result<Self> {
        let recipe = recipe.into();
        recipe.weights.validate()?;
        check_parts(linear.weight().dims(), linear.bias())?;
        check_finite(linear.weight(), "the weight")?;
        let state = State { weight_history: recipe.weights.history(), codes: None };
        Ok(Self { wrapped: linear, recipe, training: true, state: Mutex::new(state), path: None })
    }

    /// The full-precision weight, shape `(outputs, inputs)`: the wrapped layer's own tensor.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        self.wrapped.weight()
    }

    /// The bias, shape `(outputs,)`: the wrapped layer's own tensor. It is not quantized.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.wrapped.bias()
    }

    /// How the layer is quantized.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The weight's largest magnitudes in the training steps that the next scale depends on.
    #[must_use]
    pub fn weight_history(&self) -> AmaxHistory {
        self.state().weight_history.clone()
    }

    /// The codes that the next forward pass computes with.
    ///
    /// # Errors
    ///
    /// [`Error::NanNotRepresentable`] if the weight holds NaN and the format has none.
    pub fn quantized_weight(&self) -> Result<Fp8Tensor> {
        locate(self.pack(&mut self.state()), &self.path)
    }

    /// Whether the layer is in training mode.
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.training
    }

    /// Switches between training and eval mode, and forgets codes that were kept.
    pub fn set_training(&mut self, training: bool) {
        self.training = training;
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).codes = None;
    }

    /// The wrapped layer: the same tensors, bit for bit.
    #[must_use]
    pub fn into_linear(self) -> candle_nn::Linear {
        self.wrapped
    }

    /// The layer reduced to the codes that the next forward pass would compute with.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] if the weight has a value that is not finite.
    pub fn freeze(&self) -> Result<FrozenLinear> {
        let frozen = check_finite(self.weight(), "the weight").and_then(|_| {
            // The weight may have changed since codes were kept.
            let mut state = State { codes: None, ..self.state().clone() };
            FrozenLinear::new(self.pack(&mut state)?, self.bias().cloned())
        });
        Ok(locate(frozen, &self.path)?.with_path(self.path.clone()))
    }

    pub(crate) fn with_path(self, path: LayerPath) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn wrapped(&self) -> &candle_nn::Linear {
        &self.wrapped
    }

    /// A lock that a panicking thread left behind guards plain values, so they are as good as before.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pack(&self, state: &mut State) -> Result<Fp8Tensor> {
        if let Some(codes) = &state.codes {
            return Ok(codes.clone());
        }
        let quantizer = &self.recipe.weights;
        let scale = quantizer.scale(amax(self.weight(), "the weight")? as f32, &state.weight_history);
        let codes = Fp8Tensor::quantize_with_scale(self.weight(), quantizer.format, scale)?;
        if !self.training {
            state.codes = Some(codes.clone());
        }
        Ok(codes)
    }

    fn fake_quantized_weight(&self) -> Result<Tensor> {
        let quantizer = &self.recipe.weights;
        let mut state = self.state();
        if !self.training {
            match self.pack(&mut state) {
                // NaN stays NaN in fake quantization, even where no code can hold it.
                Err(Error::NanNotRepresentable { .. }) => {}
                codes => return fake_quantize_cached(self.weight(), &codes?, self.recipe.ste),
            }
        }
        let amax = amax(self.weight(), "the weight")? as f32;
        let scale = quantizer.scale(amax, &state.weight_history);
        if self.training {
            state.weight_history.record(amax);
        }
        drop(state);
        fake_quantize_with_scale(self.weight(), quantizer.format, scale, self.recipe.ste)
    }
}

impl Module for QuantizedLinear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.fake_quantized_weight().and_then(|weight| forward(x, weight, self.bias()));
        Ok(locate(y, &self.path)?)
    }
}

impl Clone for QuantizedLinear {
    /// Shares the tensors, as the clone of a candle layer does; histories go separate ways.
    fn clone(&self) -> Self {
        Self {
            wrapped: self.wrapped.clone(),
            recipe: self.recipe.clone(),
            training: self.training,
            state: Mutex::new(self.state().clone()),
            path: self.path.clone(),
        }
    }
}
