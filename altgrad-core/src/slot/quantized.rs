//! A layer that computes with quantized tensors and trains its full-precision weight.

use std::sync::Arc;

use candle_core::{Module, Tensor};

use super::frozen::Frozen;
use super::mode::Mode;
use super::quantization::{Quantization, Tensors};
use super::{LayerPath, Operation, Recipe, locate};
use crate::Result;
use crate::quantizer::{AmaxHistory, FixedWeight, Fp8Tensor, Operand, check_finite};

/// A layer whose tensors are quantized on the way into its computation, as its [`Recipe`] says, and whose gradients go
/// to the wrapped layer's own tensors through the straight-through estimator.
/// [`QuantizedLinear`](crate::QuantizedLinear) is the one around a linear layer.
///
/// # Training and eval mode
///
/// In training mode (the mode it starts in) each forward pass quantizes the weight anew, since the optimizer moves it,
/// and each pass adds a step to the histories that scales are made from. In eval mode the weight's codes, and those of
/// its transpose if backward passes need them, are computed when they are first needed and kept, and histories stand
/// still. **After changing a weight in eval mode** (`Var::set`, `VarMap::load`) **call
/// [`Quantizable::eval`](crate::Quantizable::eval) again**: until then the layer computes with the weight as it was. A
/// backward pass that gives the weight a gradient says as much by itself, so from then on no codes are kept until
/// `eval` is called again: a layer that is trained in eval mode trains right, only slower. How gradients are computed
/// is the same in both modes. A delayed scale is 1 until the first step in training mode.
///
/// A backward pass computes with the weight as its forward pass saw it, in both modes and whatever was done to the
/// weight in between; its input it reads from candle's graph, as candle's operations do.
///
/// Layers that share a weight and are quantized as one have one history and one count of steps of it: each pass of each
/// of them counts as a step. So a window of 16 steps of two layers reaches back over 8 passes of the model, and in
/// training two layers that round stochastically draw differently.
///
/// # Threads
///
/// Threads may call a layer at the same time, also from jobs of one `rayon` pool; no lock of altgrad is held while
/// anything is computed, and on the CPU no thread takes up other jobs while it waits for parts of a product of codes.
/// In training mode each pass takes the next step number as it begins, sees the histories as they are then, and adds
/// each amax when it is known; so amaxes are recorded in the order in which they become known.
///
/// # Precision
///
/// On the CPU, products of `f32`, `f16` and `bf16` layers are computed from codes, and for the backward pass nothing
/// else is kept of quantized tensors: sums of `decode(code) × scale` in `f32`, which differ from the exact ones by at
/// most `2·k·2⁻²⁴·Σ|a||b|` for `k` products, rounded to the layer's dtype once. Elsewhere, and for `f64`, they are
/// candle's products of fake-quantized tensors, and so they are where an operand holds NaN and its format does not.
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
    /// A weight that is not finite, not of f32, f64, f16 or bf16 or of another shape than the layer's, a bias that does
    /// not fit it, or an invalid recipe.
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

    /// The full-precision weight, of a linear layer in the shape `(outputs, inputs)`: the wrapped layer's own tensor.
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

    /// The weight's codes that the next forward pass computes with, which in eval mode may be those that are kept: a
    /// matrix with a row for each index of the weight's first dimension.
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

    /// Switches between training and eval mode, and drops codes that were kept.
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

    /// The layer reduced to the codes of the weight as it is now: those that the next forward pass would compute with,
    /// in eval mode after [`Quantizable::eval`](crate::Quantizable::eval). It goes on quantizing its input as eval mode
    /// does.
    ///
    /// # Errors
    ///
    /// [`TensorError::NotFinite`](crate::TensorError::NotFinite) if the weight has a value that is not finite.
    pub fn freeze(&self) -> Result<Frozen<O>> {
        self.freeze_with(None)
    }

    /// As [`freeze`](Self::freeze), with the codes of a layer that this one is quantized as one with.
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

    /// The same layer around other tensors, of the same shapes and values, in place of this one.
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
    /// Shares the tensors, as the clone of a candle layer does; histories and codes that eval mode keeps go separate
    /// ways, and a calibration pass watches the original only. So training one moves the weight of the other under its
    /// kept codes: call [`Quantizable::eval`](crate::Quantizable::eval) on that.
    fn clone(&self) -> Self {
        Self { layer: self.layer.clone(), quantization: self.quantization.split() }
    }
}
