//! A linear layer that computes with quantized tensors and trains its full-precision weight.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Module, Tensor};

use super::calibration::Calibration;
use super::product::Product;
use super::shared::Shared;
use super::{FrozenLinear, LayerPath, Recipe, check_input, check_parts, forward, locate, output_dims};
use crate::kernels::Conversion;
use crate::quantizer::{AmaxHistory, Fp8Tensor, check_finite, fake_quantize_cached, fake_quantize_with};
use crate::{Error, Result};

/// A linear layer whose tensors are quantized on the way into every product, as its [`Recipe`] says, and whose gradients
/// go to the wrapped layer's own tensors through the straight-through estimator.
///
/// In training mode (the mode it starts in) each forward pass quantizes the weight anew, since the optimizer moves it,
/// and each pass adds a step to the histories that scales are made from. In eval mode the weight's codes are computed once
/// and kept, and histories stand still; call [`Quantizable::eval`](crate::Quantizable::eval) again after changing weights
/// by other means. How gradients are computed is the same in both modes. A delayed scale is 1 until the first step in
/// training mode.
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
    shared: Arc<Shared>,
    /// The weight's codes in eval mode, once they were needed.
    codes: Mutex<Option<Codes>>,
    /// What was seen of the input, while a calibration pass runs.
    calibration: Option<Calibration>,
    path: LayerPath,
}

/// A weight's codes with what they were made by.
#[derive(Clone, Debug)]
struct Codes {
    packed: Fp8Tensor,
    conversion: Conversion,
}

impl QuantizedLinear {
    /// Wraps a layer.
    ///
    /// # Errors
    ///
    /// A weight that is not a finite f32, f64, f16 or bf16 matrix, a bias that does not fit it, or an invalid recipe.
    pub fn new(linear: candle_nn::Linear, recipe: impl Into<Recipe>) -> Result<Self> {
        Self::at(linear, recipe.into(), None)
    }

    /// Wraps the layer at `path`.
    pub(crate) fn at(linear: candle_nn::Linear, recipe: Recipe, path: LayerPath) -> Result<Self> {
        recipe.validate()?;
        let weight = linear.weight();
        check_parts(weight.dims(), weight.dtype(), weight.device(), linear.bias())?;
        check_finite(linear.weight(), "the weight")?;
        let shared = Arc::new(Shared::new(&recipe, path.as_deref().unwrap_or_default()));
        let codes = Mutex::new(None);
        Ok(Self { wrapped: linear, recipe, training: true, shared, codes, calibration: None, path })
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
        self.shared.weights.history()
    }

    /// The input's largest magnitudes in the training steps that the next scale depends on.
    #[must_use]
    pub fn input_history(&self) -> AmaxHistory {
        self.shared.activations.history()
    }

    /// The largest magnitudes of the output's gradient in the training steps that the next scale depends on.
    #[must_use]
    pub fn gradient_history(&self) -> AmaxHistory {
        self.shared.gradients.history()
    }

    /// The weight's codes that the next forward pass computes with.
    ///
    /// # Errors
    ///
    /// [`Error::NanNotRepresentable`] if the weight holds NaN and the format has none.
    pub fn quantized_weight(&self) -> Result<Fp8Tensor> {
        locate(self.kept_codes(), &self.path).map(|codes| codes.packed)
    }

    /// Whether the layer is in training mode.
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.training
    }

    /// Switches between training and eval mode, and forgets codes that were kept.
    pub fn set_training(&mut self, training: bool) {
        self.training = training;
        self.forget_codes();
    }

    /// The wrapped layer: the same tensors, bit for bit.
    #[must_use]
    pub fn into_linear(self) -> candle_nn::Linear {
        self.wrapped
    }

    /// The layer reduced to the codes that the next forward pass would compute with. It goes on quantizing its input as
    /// eval mode does.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] if the weight has a value that is not finite.
    pub fn freeze(&self) -> Result<FrozenLinear> {
        let frozen = check_finite(self.weight(), "the weight").and_then(|_| {
            // The weight may have changed since codes were kept.
            let frozen = FrozenLinear::new(self.pack()?.packed, self.bias().cloned())?;
            Ok(frozen.with_activations(self.recipe.activations.clone(), &self.shared, self.recipe.ste))
        });
        Ok(locate(frozen, &self.path)?.with_path(self.path.clone()))
    }

    pub(crate) fn wrapped(&self) -> &candle_nn::Linear {
        &self.wrapped
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn recipe_mut(&mut self) -> &mut Recipe {
        &mut self.recipe
    }

    /// Lets the next forward pass in eval mode compute the weight's codes anew.
    pub(crate) fn forget_codes(&mut self) {
        *self.codes() = None;
    }

    pub(crate) fn calibration_mut(&mut self) -> &mut Option<Calibration> {
        &mut self.calibration
    }

    fn codes(&self) -> MutexGuard<'_, Option<Codes>> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The codes of the weight as it is.
    fn pack(&self) -> Result<Codes> {
        let quantizer = &self.recipe.weights;
        let conversion = self.shared.weights.peek(quantizer, self.weight())?;
        let packed = Fp8Tensor::convert(self.weight(), &conversion, quantizer.granularity)?;
        Ok(Codes { packed, conversion })
    }

    /// The codes of the weight, which eval mode keeps.
    fn kept_codes(&self) -> Result<Codes> {
        if self.training {
            return self.pack();
        }
        let mut kept = self.codes();
        match &*kept {
            Some(codes) => Ok(codes.clone()),
            None => Ok(kept.insert(self.pack()?).clone()),
        }
    }

    /// The weight as products see it, and the step that it was quantized in.
    fn fake_quantized_weight(&self) -> Result<(Tensor, u64)> {
        let Recipe { weights: quantizer, ste, .. } = &self.recipe;
        if !self.training {
            match self.kept_codes() {
                // NaN stays NaN in fake quantization, even where no code can hold it.
                Err(Error::NanNotRepresentable { .. }) => {}
                codes => {
                    let Codes { packed, conversion } = codes?;
                    let weight = fake_quantize_cached(self.weight(), conversion, &packed, *ste)?;
                    return Ok((weight, self.shared.weights.lock().step));
                }
            }
        }
        let (conversion, step) = self.shared.weights.advance(quantizer, self.weight(), self.training)?;
        Ok((fake_quantize_with(self.weight(), conversion, *ste)?, step))
    }

    fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        check_input(x, self.weight().dims(), self.weight().dtype(), self.weight().device())?;
        // Once, for all that reads it.
        let x = &x.contiguous()?;
        if let Some(calibration) = &self.calibration {
            calibration.observe(x)?;
            return forward(x, &self.wrapped);
        }
        let (weight, weight_step) = self.fake_quantized_weight()?;
        let (input, input_step) = match &self.recipe.activations {
            None => (x.clone(), 0),
            Some(quantizer) => {
                let (conversion, step) = self.shared.activations.advance(quantizer, x, self.training)?;
                (fake_quantize_with(x, conversion, self.recipe.ste)?, step)
            }
        };
        let Some(gradients) = &self.recipe.gradients else {
            return forward(&input, &candle_nn::Linear::new(weight, self.bias().cloned()));
        };
        let (outputs, inputs) = weight.dims2()?;
        let (dims, tokens) = output_dims(x, outputs);
        let product = Product {
            weights: self.recipe.weights.clone(),
            activations: self.recipe.activations.clone(),
            gradients: gradients.clone(),
            input: x.detach().reshape((tokens, inputs))?,
            weight: self.weight().detach(),
            input_step,
            weight_step,
            training: self.training,
            shared: Arc::clone(&self.shared),
            path: self.path.clone(),
        };
        let y = product.apply(&input.reshape((tokens, inputs))?, &weight)?.reshape(dims)?;
        match self.bias() {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }
}

impl Module for QuantizedLinear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(locate(self.multiply(x), &self.path)?)
    }
}

impl Clone for QuantizedLinear {
    /// Shares the tensors, as the clone of a candle layer does; histories go separate ways, and a calibration pass watches
    /// the original only.
    fn clone(&self) -> Self {
        Self {
            wrapped: self.wrapped.clone(),
            recipe: self.recipe.clone(),
            training: self.training,
            shared: Arc::new(Shared::clone(&self.shared)),
            codes: Mutex::new(self.codes().clone()),
            calibration: None,
            path: self.path.clone(),
        }
    }
}
