//! A layer that computes with quantized tensors and trains its full-precision weight.

use std::sync::Arc;

use candle_core::{Module, Tensor};

use super::frozen::Frozen;
use super::mode::Mode;
use super::quantization::{Quantization, Tensors};
use super::{LayerPath, Operation, Recipe, locate};
use crate::Result;
use crate::quantizer::{AmaxHistory, FixedWeight, Fp8Tensor, Operand, check_finite};

/// A layer that quantizes its tensors before it computes with them, as its [`Recipe`] says. Gradients go to the
/// wrapped layer's own tensors through the straight-through estimator. [`QuantizedLinear`](crate::QuantizedLinear) is
/// the one around a linear layer.
///
/// # Training and eval mode
///
/// In training mode (the mode it starts in) each forward pass quantizes the weight again, since the optimizer changes
/// it, and each pass adds a step to the histories that scales are made from. In eval mode the weight's codes, and
/// those of its transpose if backward passes need them, are computed when they are first needed and then kept, and
/// histories do not change. **After changing a weight in eval mode** (`Var::set`, `VarMap::load`) **call
/// [`Quantizable::eval`](crate::Quantizable::eval) again**: until then the layer computes with the old weight. A
/// backward pass that gives the weight a gradient announces such a change by itself: from then on no codes are kept
/// until `eval` is called again, so a layer that is trained in eval mode trains correctly, only more slowly.
/// Gradients are computed in the same way in both modes. A delayed scale is 1 until the first step in training mode.
///
/// In both modes a backward pass computes with the weight as its forward pass saw it, even if the weight has changed
/// in between. It reads the input from candle's graph, as candle's operations do.
///
/// Layers that share a weight and are quantized as one also share the weight's history and its count of steps: every
/// pass of each of them counts as a step. So with two such layers, a window of 16 steps reaches back over 8 passes of
/// the model, and in training the two draw different numbers for stochastic rounding.
///
/// # Threads
///
/// Threads may call a layer at the same time, including from jobs of one `rayon` pool. altgrad holds no lock while
/// anything is computed, and on the CPU no thread takes up other jobs while it waits for parts of a product of codes.
/// In training mode each pass takes the next step number when it begins, sees the histories as they are at that time,
/// and adds each amax as soon as it is known; so amaxes are recorded in the order in which they become known.
///
/// # Precision
///
/// On the CPU, products of `f32`, `f16` and `bf16` layers are computed from codes, and only the codes of quantized
/// tensors are kept for the backward pass. Products of values `decode(code) × scale` are summed in `f32`; a sum of
/// `k` products differs from the exact one by at most `2·k·2⁻²⁴·Σ|a||b|`, and is rounded to the layer's dtype once.
/// Elsewhere, for `f64`, and where an operand holds NaN but its format has none, they are candle's products of
/// fake-quantized tensors.
///
/// ```
/// use altgrad::{Fp8, QuantizedLinear};
/// use candle_core::{DType, Device, Module, Tensor, Var};
///
/// let weight = Var::randn(0f32, 1.0, (3, 4), &Device::Cpu)?;
/// let layer = QuantizedLinear::new(candle_nn::Linear::new(weight.as_tensor().clone(), None), Fp8::E4M3)?;
/// let y = layer.forward(&Tensor::ones((2, 4), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(y.dims(), [2, 3]);
///
/// assert_eq!(layer.weight().id(), weight.id());
/// assert!(y.sum_all()?.backward()?.get(&weight).is_some());
/// # Ok::<(), altgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Quantized<O> {
    layer: O,
    quantization: Quantization,
}

impl<O: Operation> Quantized<O> {
    /// Wraps a layer.
    ///
    /// # Errors
    ///
    /// A weight that is not finite, has a dtype other than f32, f64, f16 and bf16, or another shape than the layer's;
    /// a bias that does not fit the weight; or an invalid recipe.
    pub fn new(layer: O, recipe: impl Into<Recipe>) -> Result<Self> {
        Self::at(layer, O::adapt(recipe.into()), Mode::default(), None, None)
    }

    /// Wraps the layer at `path`, whose slot is in this mode. Layers that are quantized as one share `weights`.
    pub(super) fn at(
        layer: O,
        recipe: Recipe,
        mode: Mode,
        path: LayerPath,
        weights: Option<Arc<Operand>>,
    ) -> Result<Self> {
        let evaluation = O::evaluation(&layer.config(), layer.weight().dims())?;
        let quantization = Quantization::new(tensors(&layer), evaluation, recipe, mode, path, weights)?;
        Ok(Self { layer, quantization })
    }

    /// The full-precision weight: the wrapped layer's own tensor, which has the shape `(outputs, inputs)` in a linear
    /// layer.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        self.layer.weight()
    }

    /// The bias, shape `(outputs,)`: the wrapped layer's own tensor. It is not quantized.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.layer.bias()
    }

    /// How the layer is quantized.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.quantization.recipe
    }

    /// The weight's largest magnitudes in the training steps that the next scale depends on.
    #[must_use]
    pub fn weight_history(&self) -> AmaxHistory {
        self.quantization.operands.weights.history()
    }

    /// The input's largest magnitudes in the training steps that the next scale depends on.
    #[must_use]
    pub fn input_history(&self) -> AmaxHistory {
        self.quantization.operands.activations.history()
    }

    /// The largest magnitudes of the output's gradient in the training steps that the next scale depends on.
    #[must_use]
    pub fn gradient_history(&self) -> AmaxHistory {
        self.quantization.operands.gradients.history()
    }

    /// The weight's codes that the next forward pass computes with: a matrix with a row for each index of the
    /// weight's first dimension. In eval mode these may be kept codes.
    ///
    /// # Errors
    ///
    /// [`FormatError::NanNotRepresentable`](crate::FormatError::NanNotRepresentable) if the weight holds NaN and the
    /// format has none.
    pub fn quantized_weight(&self) -> Result<Fp8Tensor> {
        locate(self.quantization.quantized_weight(self.weight()), &self.quantization.path)
    }

    /// Whether the layer is in training mode.
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.quantization.mode.training
    }

    /// Switches between training and eval mode, and drops kept codes.
    pub fn set_training(&mut self, training: bool) {
        self.quantization.set_training(training);
    }

    /// The wrapped layer.
    #[must_use]
    pub fn layer(&self) -> &O {
        &self.layer
    }

    /// The wrapped layer: the same tensors, bit for bit.
    #[must_use]
    pub fn into_layer(self) -> O {
        self.layer
    }

    /// The layer reduced to the codes of the current weight: those that the next forward pass would compute with, in
    /// eval mode after [`Quantizable::eval`](crate::Quantizable::eval). It continues to quantize its input as in eval
    /// mode.
    ///
    /// # Errors
    ///
    /// [`TensorError::NotFinite`](crate::TensorError::NotFinite) if the weight has a value that is not finite.
    pub fn freeze(&self) -> Result<Frozen<O>> {
        self.freeze_with(None)
    }

    /// As [`freeze`](Self::freeze), with the codes of another layer, if both are quantized as one.
    pub(super) fn freeze_with(&self, codes: Option<Arc<FixedWeight>>) -> Result<Frozen<O>> {
        let frozen = || {
            check_finite(self.weight(), "the weight")?;
            let codes = if let Some(codes) = codes {
                codes
            } else {
                // The weight may have changed since codes were kept.
                let codes = self.quantization.pack(self.weight())?;
                Arc::new(FixedWeight::new(codes, self.quantization.evaluation.layout())?)
            };
            Ok(Frozen::of_trained(&self.layer, &self.quantization, codes))
        };
        locate(frozen(), &self.quantization.path)
    }

    pub(super) fn quantization(&self) -> &Quantization {
        &self.quantization
    }

    pub(super) fn quantization_mut(&mut self) -> &mut Quantization {
        &mut self.quantization
    }

    /// The same layer around other tensors of the same shapes and values, which replaces this one.
    pub(super) fn with_tensors(&self, weight: Tensor, bias: Option<Tensor>) -> Self {
        let layer = O::from_parts(self.layer.config(), weight, bias);
        Self { layer, quantization: self.quantization.moved() }
    }
}

fn tensors<O: Operation>(layer: &O) -> Tensors<'_> {
    Tensors { weight: layer.weight(), bias: layer.bias() }
}

impl<O: Operation> Module for Quantized<O> {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let call =
            |weight, x: &Tensor| O::from_parts(self.layer.config(), weight, self.layer.bias().cloned()).forward(x);
        Ok(locate(self.quantization.forward(tensors(&self.layer), x, &call), &self.quantization.path)?)
    }
}

impl<O: Operation> Clone for Quantized<O> {
    /// Shares the tensors, as the clone of a candle layer does, and copies the histories and the codes that eval mode
    /// keeps, which are independent from then on. A calibration pass watches the original only. Training one changes
    /// the weight of the other, whose kept codes are then out of date: call
    /// [`Quantizable::eval`](crate::Quantizable::eval) on the other.
    fn clone(&self) -> Self {
        Self { layer: self.layer.clone(), quantization: self.quantization.split() }
    }
}
