//! A linear layer that computes with quantized tensors and trains its full-precision weight.

use std::sync::Arc;

use altgrad_kernels::Conversion;
use candle_core::{Module, Shape, Tensor};

use super::backward::{Backward, transposed_codes};
use super::calibration::Calibration;
use super::fused::{self, Input, Weight};
use super::mode::Mode;
use super::node::{Arguments, attach};
use super::product::{Pass, Product, transposed};
use super::shared::{Kept, KeptTranspose, Shared};
use super::weight::FixedWeight;
use super::{Compute, FrozenLinear, LayerPath, Recipe, check_input, check_parts, forward, locate, output_dims};
use crate::quantizer::{
    AmaxHistory, Clip, Codes, Fp8Tensor, Observation, Quantizer, check_finite, fake_quantize_watched,
    fake_quantize_with, has_kernels,
};
use crate::{Error, Result};

/// A linear layer whose tensors are quantized on the way into every product, as its [`Recipe`] says, and whose gradients
/// go to the wrapped layer's own tensors through the straight-through estimator.
///
/// # Training and eval mode
///
/// In training mode (the mode it starts in) each forward pass quantizes the weight anew, since the optimizer moves it,
/// and each pass adds a step to the histories that scales are made from. In eval mode the weight's codes, and those of its transpose if backward passes need them, are computed when
/// they are first needed and kept, and histories stand still. **After changing a weight in eval mode** (`Var::set`,
/// `VarMap::load`) **call [`Quantizable::eval`](crate::Quantizable::eval) again**: until then the layer computes with the
/// weight as it was. A backward pass that gives the weight a gradient says as much by itself, so from then on no codes
/// are kept until `eval` is called again: a layer that is trained in eval mode trains right, only slower. How gradients are
/// computed is the same in both modes. A delayed scale is 1 until the first step in training mode.
///
/// A backward pass computes with the weight as its forward pass saw it, in both modes and whatever was done to the
/// weight in between; its input it reads from candle's graph, as candle's operations do.
///
/// # Threads
///
/// Threads may call a layer at the same time, also from jobs of one `rayon` pool; no lock of altgrad is held while anything
/// is computed, and on the CPU no thread takes up other jobs while it waits for parts of a product of codes. In training mode each pass takes the next step number as it begins, sees the histories as they are then, and
/// adds each amax when it is known; so amaxes are recorded in the order in which they become known.
///
/// # Precision
///
/// On the CPU, products of `f32`, `f16` and `bf16` layers are computed from codes, and for the backward pass nothing else is
/// kept of quantized tensors: sums of `decode(code) × scale` in `f32`, which differ from the exact ones by at most
/// `2·k·2⁻²⁴·Σ|a||b|` for `k` products, rounded to the layer's dtype once. Elsewhere, and for `f64`, they are candle's
/// products of fake-quantized tensors, and so they are where an operand holds NaN and its format does not.
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
pub struct QuantizedLinear {
    wrapped: candle_nn::Linear,
    recipe: Recipe,
    mode: Mode,
    shared: Arc<Shared>,
    /// What was seen of the input, while a calibration pass runs.
    calibration: Option<Calibration>,
    /// What a calibration has seen that could not end.
    observation: Option<Observation>,
    path: LayerPath,
}

/// How a tensor is converted in the step of this number.
type Converted = (Arc<Conversion>, u64);

impl QuantizedLinear {
    /// Wraps a layer.
    ///
    /// # Errors
    ///
    /// A weight that is not a finite f32, f64, f16 or bf16 matrix, a bias that does not fit it, or an invalid recipe.
    pub fn new(linear: candle_nn::Linear, recipe: impl Into<Recipe>) -> Result<Self> {
        Self::at(linear, recipe.into(), Mode::default(), None)
    }

    /// Wraps the layer at `path`, whose slot is in this mode.
    pub(crate) fn at(linear: candle_nn::Linear, recipe: Recipe, mode: Mode, path: LayerPath) -> Result<Self> {
        recipe.validate()?;
        let weight = linear.weight();
        check_parts(weight.dims(), weight.dtype(), weight.device(), linear.bias())?;
        check_finite(linear.weight(), "the weight")?;
        let shared = Arc::new(Shared::new(&recipe, path.as_deref().unwrap_or_default()));
        Ok(Self { wrapped: linear, recipe, mode, shared, calibration: None, observation: None, path })
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

    /// The weight's codes that the next forward pass computes with, which in eval mode may be those that are kept.
    ///
    /// # Errors
    ///
    /// [`Error::NanNotRepresentable`] if the weight holds NaN and the format has none.
    pub fn quantized_weight(&self) -> Result<Fp8Tensor> {
        let kept = if self.mode.training { None } else { self.shared.kept.peek() };
        let codes = match kept {
            Some(kept) => kept.weight.to_tensor(),
            None => self.pack().map(|(packed, _)| packed),
        };
        locate(codes, &self.path)
    }

    /// Whether the layer is in training mode.
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.mode.training
    }

    /// Switches between training and eval mode, and drops codes that were kept.
    pub fn set_training(&mut self, training: bool) {
        self.mode.training = training;
        self.forget_codes();
        for role in self.shared.roles() {
            role.clear_spares();
        }
    }

    /// The wrapped layer: the same tensors, bit for bit.
    #[must_use]
    pub fn into_linear(self) -> candle_nn::Linear {
        self.wrapped
    }

    /// The layer reduced to the codes of the weight as it is now: those that the next forward pass would compute with, in
    /// eval mode after [`Quantizable::eval`](crate::Quantizable::eval). It goes on quantizing its input as eval mode does.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] if the weight has a value that is not finite.
    pub fn freeze(&self) -> Result<FrozenLinear> {
        let frozen = check_finite(self.weight(), "the weight").and_then(|_| {
            // The weight may have changed since codes were kept.
            let frozen = FrozenLinear::new(self.pack()?.0, self.bias().cloned())?.with_mode(self.mode);
            Ok(frozen.with_trained_activations(self.recipe.activations.clone(), &self.shared, self.recipe.ste))
        });
        Ok(locate(frozen, &self.path)?.with_path(self.path.clone()))
    }

    /// Fails if the weight has a delayed scale and nothing was measured yet.
    pub(crate) fn check_measured(&self) -> Result<()> {
        self.shared.weights.check_measured(&self.recipe.weights)
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

    /// The same layer around other tensors, of the same shapes and values.
    pub(crate) fn with_wrapped(&self, wrapped: candle_nn::Linear) -> Self {
        let layer = Self { wrapped, observation: self.observation.clone(), ..self.clone() };
        // Whether a gradient of the weight is needed is another matter now.
        layer.shared.kept.forget();
        layer
    }

    /// Lets the next forward pass in eval mode compute the weight's codes anew.
    pub(crate) fn forget_codes(&mut self) {
        self.shared.kept.renew();
    }

    pub(crate) fn calibration_mut(&mut self) -> &mut Option<Calibration> {
        &mut self.calibration
    }

    pub(crate) fn observation_mut(&mut self) -> &mut Option<Observation> {
        &mut self.observation
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn mode_mut(&mut self) -> &mut Mode {
        &mut self.mode
    }

    /// The codes of the weight as it is.
    fn pack(&self) -> Result<(Fp8Tensor, Conversion)> {
        let quantizer = &self.recipe.weights;
        let conversion = self.shared.weights.peek(quantizer, self.weight())?;
        Ok((Fp8Tensor::convert(self.weight(), &conversion, quantizer.granularity)?, conversion))
    }

    /// The codes of the weight that eval mode keeps.
    fn kept(&self) -> Result<Kept> {
        self.shared.kept.get_or_compute(|| {
            let (packed, conversion) = self.pack()?;
            let clip = self.recipe.ste.clip(self.weight(), &conversion)?;
            let transposed = self.transposed_weights().map(|quantizer| self.kept_transpose(quantizer)).transpose()?;
            Ok(Kept { weight: FixedWeight::new(packed)?, conversion: Arc::new(conversion), clip, transposed })
        })
    }

    fn kept_transpose(&self, quantizer: &Quantizer) -> Result<KeptTranspose> {
        let (weight, role) = (self.weight(), &self.shared.weights);
        if weight.device().is_cpu() {
            let no_code = Error::NanNotRepresentable { format: quantizer.format };
            let codes = transposed_codes(weight, quantizer, role, role.step(), None)?;
            return codes.map(KeptTranspose::Codes).ok_or(no_code);
        }
        let weight = weight.detach().t()?.contiguous()?;
        let conversion = role.transposed(quantizer, &weight, role.step())?;
        Ok(KeptTranspose::Tensor(Fp8Tensor::convert(&weight, &conversion, quantizer.granularity)?))
    }

    /// How the weight is converted, and its codes if there are kept ones.
    fn convert_weight(&self) -> Result<(Converted, Option<Kept>)> {
        let role = &self.shared.weights;
        if !self.mode.training {
            match self.kept() {
                // NaN stays NaN in fake quantization, even where no code can hold it.
                Err(Error::NanNotRepresentable { .. }) => {}
                kept => {
                    let kept = kept?;
                    return Ok(((Arc::clone(&kept.conversion), role.step()), Some(kept)));
                }
            }
        }
        let (conversion, step) = role.advance(&self.recipe.weights, self.weight(), self.mode.training)?;
        Ok(((Arc::new(conversion), step), None))
    }

    fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        check_input(x, self.weight().dims(), self.weight().dtype(), self.weight().device())?;
        if let Some(calibration) = &self.calibration {
            let x = &x.contiguous()?;
            calibration.observe(x)?;
            return forward(x, &self.wrapped);
        }
        // Once, for all that reads it.
        let values = x.detach().contiguous()?;
        let (weight, kept) = self.convert_weight()?;
        let input = match &self.recipe.activations {
            None => None,
            Some(quantizer) => {
                let (conversion, step) = self.shared.activations.advance(quantizer, &values, self.mode.training)?;
                Some((Arc::new(conversion), step))
            }
        };
        if has_kernels(x.dtype(), x.device())
            && let Some(y) = self.multiply_codes(x, &values, input.as_ref(), &weight, kept.as_ref())?
        {
            return Ok(y);
        }
        self.multiply_values(&x.contiguous()?, input, weight, kept.as_ref())
    }

    /// The quantizer of the weight's transpose, if gradients of inputs need one that is not that of the weight.
    fn transposed_weights(&self) -> Option<&Quantizer> {
        let weights = &self.recipe.weights;
        (self.recipe.gradients.is_some() && !weights.granularity.is_symmetric()).then_some(weights)
    }

    /// Where the weight's gradient stops.
    fn weight_clip(&self, conversion: &Conversion, kept: Option<&Kept>) -> Result<Clip> {
        match kept {
            Some(kept) => Ok(kept.clip.clone()),
            None => self.recipe.ste.clip(self.weight(), conversion),
        }
    }

    fn pass(&self, input: Option<&Converted>) -> Pass {
        Pass {
            recipe: self.recipe.clone(),
            input_step: input.map_or(0, |(_, step)| *step),
            training: self.mode.training,
            shared: Arc::clone(&self.shared),
            path: self.path.clone(),
        }
    }

    /// The product from codes, of an `x` with these values as a contiguous tensor; `None` if an operand has no codes, since
    /// it holds NaN and its format does not.
    fn multiply_codes(
        &self,
        x: &Tensor,
        values: &Tensor,
        input: Option<&Converted>,
        weight: &Converted,
        kept: Option<&Kept>,
    ) -> Result<Option<Tensor>> {
        let (outputs, _) = self.weight().dims2()?;
        let roles = &*self.shared;
        let spare = |spare| self.mode.training.then_some(spare);
        let codes = if let Some(Kept { weight: FixedWeight::Packed { codes, .. }, .. }) = kept {
            Weight::Packed(Arc::clone(codes))
        } else {
            match Codes::encode(self.weight(), &weight.0, spare(&roles.weights.spare))? {
                Some(codes) => Weight::Codes(codes),
                None => return Ok(None),
            }
        };
        let input_codes = match input {
            None => None,
            Some((conversion, _)) => match Codes::encode(values, conversion, spare(&roles.activations.spare))? {
                None => return Ok(None),
                codes => codes,
            },
        };
        let operand = input_codes.as_ref().map_or(Input::Floats(Compute::Full), Input::Codes);
        let y = fused::forward(values, operand, &codes, outputs, self.bias())?;
        let transposed_codes = match (self.transposed_weights().filter(|_| x.track_op()), kept) {
            (None, _) => None,
            (Some(_), Some(Kept { transposed: Some(KeptTranspose::Codes(codes)), .. })) => Some(codes.clone()),
            (Some(quantizer), _) => {
                let spare = spare(&roles.weights.transposed_spare);
                let codes = transposed_codes(self.weight(), quantizer, &roles.weights, weight.1, spare)?;
                if codes.is_none() {
                    return Ok(None);
                }
                codes
            }
        };
        let backward = Backward {
            pass: self.pass(input),
            input: input_codes,
            codes,
            transposed_codes,
            weight_shape: self.weight().shape().clone(),
            input_clip: match input {
                Some((conversion, _)) => self.recipe.ste.clip(x, conversion)?,
                None => Clip::default(),
            },
            weight_clip: self.weight_clip(&weight.0, kept)?,
        };
        let arguments = Arguments { x, w: Some(self.weight()), bias: self.bias() };
        let backward = move |arguments: Arguments<'_>, dy: &Tensor| {
            Ok(locate(backward.gradients(arguments, dy), &backward.pass.path)?)
        };
        Ok(Some(attach(y, output_dims(x, outputs).0, arguments, backward)?))
    }

    /// The product from fake-quantized values, in candle's operations.
    fn multiply_values(
        &self,
        x: &Tensor,
        input: Option<Converted>,
        (conversion, step): Converted,
        kept: Option<&Kept>,
    ) -> Result<Tensor> {
        let pass = self.pass(input.as_ref());
        let ste = self.recipe.ste;
        let codes = kept.map(|kept| kept.weight.to_tensor()).transpose()?;
        let clip = self.weight_clip(&conversion, kept)?;
        let shared = Arc::clone(&self.shared);
        // An optimizer is about to move the weight.
        let on_gradient = Box::new(move || shared.kept.disable());
        let weight = fake_quantize_watched(self.weight(), conversion, clip, codes.as_ref(), Some(on_gradient))?;
        let input = match input {
            None => x.clone(),
            Some((conversion, _)) => fake_quantize_with(x, conversion, ste)?,
        };
        let Some(gradients) = self.recipe.gradients.clone() else {
            return forward(&input, &candle_nn::Linear::new(weight, self.bias().cloned()));
        };
        let (outputs, inputs) = weight.dims2()?;
        let transposed_w = match (self.transposed_weights().filter(|_| x.track_op()), kept) {
            (None, _) => None,
            (Some(_), Some(Kept { transposed: Some(kept), .. })) => {
                Some(kept.dequantize(&Shape::from((inputs, outputs)), weight.dtype())?)
            }
            (Some(quantizer), _) => transposed(quantizer, &self.shared.weights, self.weight(), step)?,
        };
        let (dims, tokens) = output_dims(x, outputs);
        let full = x.detach().reshape((tokens, inputs))?;
        let product = Product { pass, gradients, input: full, transposed_w };
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
    /// Shares the tensors, as the clone of a candle layer does; histories and codes that eval mode keeps go separate ways, and a
    /// calibration pass watches the original only. So training one moves the weight of the other under its kept codes:
    /// call [`Quantizable::eval`](crate::Quantizable::eval) on that.
    fn clone(&self) -> Self {
        Self {
            wrapped: self.wrapped.clone(),
            recipe: self.recipe.clone(),
            mode: self.mode,
            shared: Arc::new(Shared::clone(&self.shared)),
            calibration: None,
            observation: None,
            path: self.path.clone(),
        }
    }
}
