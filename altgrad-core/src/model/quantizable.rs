//! The operations on a whole model.

use std::collections::HashMap;

use candle_core::Tensor;

use super::Visit;
use super::calibrate::{CalibrationConfig, CalibrationReport};
use super::config::QuantConfig;
use super::inspect;
use super::report::QuantReport;
use super::trainable::{self, Trainable};
use super::{calibrate, state, surgery};
use crate::Result;
use crate::quantizer::Observer;
use crate::slot::{AnySlot, Compute, Linear};

/// A model, or a part of one, whose slots altgrad finds by dotted path and replaces in place; use
/// `#[derive(Quantizable)]` to make a type one.
///
/// Every type that implements [`Visit`], as the derive does, has all of these methods and cannot override them. So does
/// `dyn Visit`, for parts whose types are not known.
///
/// ```
/// use altgrad::{Fp8, Linear, Quantizable, linear};
/// use altgrad::visit::Visit;
/// # use candle_core::{DType, Device};
/// # use candle_nn::{VarBuilder, VarMap};
///
/// #[derive(Quantizable)]
/// struct Mlp {
///     c_fc: Linear,
///     c_proj: Linear,
/// }
///
/// # let variables = VarMap::new();
/// # let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let mut mlp = Mlp { c_fc: linear(8, 16, vb.pp("c_fc"))?, c_proj: linear(16, 8, vb.pp("c_proj"))? };
/// mlp.quantize(Fp8::E4M3)?;
///
/// let model: &mut dyn Visit = &mut mlp;
/// model.quantize(Fp8::E5M2)?;
/// model.freeze()?;
/// # Ok::<(), altgrad::Error>(())
/// ```
pub trait Quantizable: Visit {
    /// Puts every slot into the state that `config` asks for: quantized or in full precision.
    ///
    /// Either all layers are changed or, if there is an error, none is. The full-precision weights stay the same
    /// tensors, so optimizers and ties keep working; see [`QuantConfig`] for what decides about a layer. If the model
    /// is quantized already, histories, steps and calibrated scales are reset. Layers stay in training or eval mode as
    /// they are.
    ///
    /// # Errors
    ///
    /// A rule that matches nothing or never applies, a layer that is frozen or whose weight is not finite, two layers
    /// with the same path, or no layer at all.
    fn quantize(&mut self, config: impl Into<QuantConfig>) -> Result<QuantReport> {
        surgery::quantize(self, config.into())
    }

    /// Reduces every quantized layer to its codes: one byte per weight.
    ///
    /// The codes are computed from the current weights: they are those that the next forward pass would use (in eval
    /// mode, the next one after [`eval`](Self::eval)). A layer whose recipe quantizes activations continues to do so. A
    /// layer that shares its weight with another part of the model stays as it is, unless both are quantized as one,
    /// since freezing it would break the tie. Either all layers are frozen or, if there is an error, none is.
    ///
    /// # Errors
    ///
    /// A weight that is not finite, or a model in which nothing is quantized.
    fn freeze(&mut self) -> Result<QuantReport> {
        surgery::freeze(self)
    }

    /// Puts the original layers back: the same tensors, bit for bit. A frozen layer gets the values of its codes.
    ///
    /// # Errors
    ///
    /// Only those of candle's tensor operations.
    fn dequantize(&mut self) -> Result<QuantReport> {
        surgery::dequantize(self)
    }

    /// Reports how each layer is quantized now, and how far its weight is from the values that it computes with. This
    /// changes nothing, so it can be called between training steps.
    ///
    /// # Errors
    ///
    /// A quantized weight that holds NaN in a format without NaN.
    fn report(&self) -> Result<QuantReport> {
        surgery::report(self)
    }

    /// Turns the weights and biases of all layers except frozen ones into variables, quantized or not. Returns all
    /// variables of slots, for an optimizer, and the tensors that cannot be variables. Use this after a model was
    /// loaded as constants or was [dequantized](Self::dequantize).
    ///
    /// ```
    /// # use altgrad::{Fp8, Quantizable, linear};
    /// # use candle_core::{DType, Device};
    /// # use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap};
    /// # let variables = VarMap::new();
    /// # let mut model = linear(4, 3, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    /// # model.quantize(Fp8::E4M3)?;
    /// # model.freeze()?;
    /// model.dequantize()?;            // a frozen model in full precision again, but constant
    /// model.quantize(Fp8::E4M3)?;
    /// let trainable = model.make_trainable()?;
    /// assert!(trainable.constants.is_empty());
    /// let optimizer = AdamW::new_lr(trainable.vars(), 1e-3)?;
    /// # assert_eq!(trainable.variables.len(), 2);
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    ///
    /// Existing variables are kept. A tensor that several layers share becomes one variable. Histories, steps and
    /// scales of quantized layers stay as they are.
    ///
    /// # Errors
    ///
    /// [`ModelError::NothingToTrain`](crate::ModelError::NothingToTrain) if all layers are frozen.
    fn make_trainable(&mut self) -> Result<Trainable> {
        trainable::make_trainable(self)
    }

    /// Switches all layers to training mode, in which weights are quantized again in every forward pass. Layers that
    /// are not quantized remember the mode for when they are.
    ///
    /// # Errors
    ///
    /// Only those of [`visit_mut`](Visit::visit_mut).
    fn train(&mut self) -> Result<()> {
        surgery::set_training(self, true)
    }

    /// Switches all layers to eval mode, in which codes are computed when first needed and then kept, and histories do
    /// not advance. Layers that are not quantized remember the mode for when they are.
    ///
    /// In eval mode, call this again if weights have changed by any means other than an optimizer's step after a
    /// backward pass; until then, layers compute with the old weights.
    ///
    /// # Errors
    ///
    /// Only those of [`visit_mut`](Visit::visit_mut).
    fn eval(&mut self) -> Result<()> {
        surgery::set_training(self, false)
    }

    /// Sets the precision in which frozen layers read inputs that they do not quantize; see [`Compute`]. Layers that
    /// are not frozen remember it for when they are.
    ///
    /// ```
    /// # use altgrad::{Compute, Fp8, Quantizable, linear};
    /// # use candle_core::{DType, Device};
    /// # use candle_nn::{VarBuilder, VarMap};
    /// # let variables = VarMap::new();
    /// # let mut model = linear(4, 3, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    /// model.quantize(Fp8::E4M3)?;
    /// model.freeze()?;
    /// model.set_compute(Compute::Bf16Activations)?;
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Only those of [`visit_mut`](Visit::visit_mut).
    fn set_compute(&mut self, compute: Compute) -> Result<()> {
        surgery::set_compute(self, compute)
    }

    /// Fixes the scales of activations, as [`calibrate_with`](Self::calibrate_with) does with [`Observer::MinMax`].
    ///
    /// ```
    /// # use altgrad::{Fp8, Linear, Quantizable, Quantizer, Recipe, Scaling, linear};
    /// # use candle_core::{DType, Device, Module, Tensor};
    /// # use candle_nn::{VarBuilder, VarMap};
    /// # let variables = VarMap::new();
    /// # let mut model = linear(4, 3, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    /// # let batches = [Tensor::new(&[[1f32, -448.0, 0.0, 2.0]], &Device::Cpu)?];
    /// model.quantize(Recipe::tensorwise().gradients(None))?;
    /// let report = model.calibrate(|model| {
    ///     for batch in &batches {
    ///         model.forward(batch)?;
    ///     }
    ///     Ok(())
    /// })?;
    /// assert_eq!(report.layers[0].scale, 1.0);
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`calibrate_with`](Self::calibrate_with).
    fn calibrate(&mut self, passes: impl FnOnce(&Self) -> Result<()>) -> Result<CalibrationReport> {
        self.calibrate_with(Observer::default(), passes)
    }

    /// Runs `passes`, which should call the model with typical inputs, and observes the input of each quantized layer.
    /// Each layer whose activations have one scale per tensor then gets a [`Scaling::Static`](crate::Scaling) scale.
    /// During these passes only frozen layers quantize anything, and no history advances.
    ///
    /// `config` is an [`Observer`](crate::Observer), or a [`CalibrationConfig`], which also says what to do with layers
    /// that no input reaches:
    ///
    /// ```
    /// # use altgrad::{Linear, Quantizable, Recipe, linear};
    /// use altgrad::{CalibrationConfig, IdleLayers, Observer};
    /// # use candle_core::{DType, Device, Module, Tensor};
    /// # use candle_nn::{VarBuilder, VarMap};
    /// # let variables = VarMap::new();
    /// # let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// # let mut model = (linear(4, 3, vb.pp("a"))?, linear(4, 3, vb.pp("b"))?);
    /// # let batch = Tensor::new(&[[1f32, -448.0, 0.0, 2.0]], &Device::Cpu)?;
    /// # model.quantize(Recipe::tensorwise().gradients(None))?;
    /// let config = CalibrationConfig::new(Observer::Percentile(99.9)).idle_layers(IdleLayers::LeaveAsIs);
    /// let report = model.calibrate_with(config, |model| {
    ///     model.0.forward(&batch)?;
    ///     Ok(())
    /// })?;
    /// assert_eq!(report.idle, ["1"]);
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `passes`; a model without such layers; a value that is not finite; or
    /// [`ModelError::NotCalibrated`](crate::ModelError::NotCalibrated), which names all layers that no input reached.
    /// In that case, what the other layers saw is kept for the next calibration with the same observer, until the model
    /// is quantized or calibrated. After an error, no scale has changed.
    fn calibrate_with(
        &mut self,
        config: impl Into<CalibrationConfig>,
        passes: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<CalibrationReport> {
        calibrate::calibrate(self, config.into(), passes)
    }

    /// What the model's quantizers remember from step to step, by layer path, role (`weights`, `activations`,
    /// `gradients`) and name:
    ///
    /// | key | tensor | present |
    /// |---|---|---|
    /// | `<path>.<role>.step` | `I64` scalar, number of training steps so far | always |
    /// | `<path>.<role>.amax_history` | `F32` `(n,)`, oldest first | for windowed and delayed scaling after a step |
    /// | `<path>.<role>.scale` | `F32` scalar | for a static scale |
    ///
    /// With the variables and the optimizer's own state, this is all that training needs to resume with identical bits:
    ///
    /// ```
    /// # use altgrad::{Linear, Quantizable, Recipe, linear};
    /// # use candle_core::{DType, Device};
    /// # use candle_nn::{VarBuilder, VarMap};
    /// # let variables = VarMap::new();
    /// # let mut model = linear(4, 3, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    /// # let folder = tempfile::tempdir().map_err(candle_core::Error::wrap)?;
    /// # let file = folder.path().join("quantizers.safetensors");
    /// model.quantize(Recipe::hybrid())?;
    /// candle_core::safetensors::save(&model.quantizer_state()?, &file)?;
    /// // … in another process, with the model quantized by the same config:
    /// model.load_quantizer_state(&candle_core::safetensors::load(&file, &Device::Cpu)?)?;
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    ///
    /// Layers that are frozen or in full precision have no such state.
    ///
    /// # Errors
    ///
    /// Two layers with the same path.
    fn quantizer_state(&self) -> Result<HashMap<String, Tensor>> {
        state::save(self)
    }

    /// Restores what [`quantizer_state`](Self::quantizer_state) returned, in a model that was quantized with the same
    /// config. A static scale in the state makes its quantizer static, so a calibrated model need not be calibrated
    /// again. If a history is longer than the recipe looks back, only the last steps count.
    ///
    /// # Errors
    ///
    /// A tensor that is missing, is invalid, does not belong to this model, or belongs to a layer that is frozen or in
    /// full precision. In case of an error, nothing has changed.
    fn load_quantizer_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        state::load(self, state)
    }

    /// All slots of every kind, with their paths, in the order of declaration.
    ///
    /// # Errors
    ///
    /// Two slots with the same path.
    fn slots(&self) -> Result<Vec<(String, &dyn AnySlot)>> {
        inspect::slots(self)
    }

    /// The slot at `path`, of any kind.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoSuchLayer`](crate::ModelError::NoSuchLayer), which names the nearest paths.
    fn slot(&self, path: &str) -> Result<&dyn AnySlot> {
        inspect::find(self, path)
    }

    /// The slot at `path`, of any kind, open to replacement.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoSuchLayer`](crate::ModelError::NoSuchLayer), which names the nearest paths.
    fn slot_mut(&mut self, path: &str) -> Result<&mut dyn AnySlot> {
        inspect::find_mut(self, path)
    }

    /// All linear layers with their paths, in the order of declaration.
    ///
    /// # Errors
    ///
    /// Two slots with the same path.
    fn layers(&self) -> Result<Vec<(String, &Linear)>> {
        inspect::layers(self)
    }

    /// The linear layer at `path`.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoSuchLayer`](crate::ModelError::NoSuchLayer), which names the nearest paths, or
    /// [`ModelError::OtherKind`](crate::ModelError::OtherKind) for a slot of another kind.
    fn layer(&self, path: &str) -> Result<&Linear> {
        inspect::find_linear(self, path)
    }

    /// The linear layer at `path`, open to replacement.
    ///
    /// # Errors
    ///
    /// As [`layer`](Self::layer).
    fn layer_mut(&mut self, path: &str) -> Result<&mut Linear> {
        inspect::find_linear_mut(self, path)
    }
}

impl<M: Visit + ?Sized> Quantizable for M {}
