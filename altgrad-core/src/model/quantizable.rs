//! What can be done to a model.

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

/// A model, or a part of one, whose slots altgrad finds by dotted path and replaces in place: `#[derive(Quantizable)]`
/// makes one of a type.
///
/// Every type that implements [`Visit`], which is what the derive does, has all of it, and no type can do it otherwise.
/// So has `dyn Visit`, for parts whose types are not known.
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
    /// Makes every slot what `config` says it is to be, quantized or in full precision.
    ///
    /// Either all layers are changed or, if there is an error, none is. The full-precision weights stay the same
    /// tensors, so optimizers and ties keep working; see [`QuantConfig`] for who decides about a layer. In a model that
    /// is quantized already, histories, steps and calibrated scales start anew. Layers stay in the mode that they are
    /// in.
    ///
    /// # Errors
    ///
    /// A rule that matches nothing or never applies, a layer whose weight is not finite or frozen, two layers of one
    /// path, or no layer at all.
    fn quantize(&mut self, config: impl Into<QuantConfig>) -> Result<QuantReport> {
        surgery::quantize(self, config.into())
    }

    /// Reduces every quantized layer to its codes: one byte a weight.
    ///
    /// The codes are those of the weights as they are now: those that the next forward pass would compute with, in eval
    /// mode after [`eval`](Self::eval). A layer whose recipe quantizes activations goes on doing so. A layer that
    /// shares its weight with another part of the model stays as it is, since freezing it would break the tie. All
    /// layers or, on an error, none.
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
    /// None of its own; see candle for those of tensor operations.
    fn dequantize(&mut self) -> Result<QuantReport> {
        surgery::dequantize(self)
    }

    /// How each layer is quantized now, and how far its weight lies from the values it computes with. Changes nothing,
    /// so it can be called between training steps.
    ///
    /// # Errors
    ///
    /// A quantized weight that holds NaN in a format without NaN.
    fn report(&self) -> Result<QuantReport> {
        surgery::report(self)
    }

    /// Makes variables of the weights and biases of all layers but frozen ones, quantized or not, and returns all
    /// variables of slots, for an optimizer, with what could not be made one: after a model was loaded as constants, or
    /// was [dequantized](Self::dequantize).
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
    /// What are variables already stay the same ones. A tensor that several layers share becomes one variable.
    /// Histories, steps and scales of quantized layers stay as they are.
    ///
    /// # Errors
    ///
    /// [`ModelError::NothingToTrain`](crate::ModelError::NothingToTrain) if all layers are frozen.
    fn make_trainable(&mut self) -> Result<Trainable> {
        trainable::make_trainable(self)
    }

    /// Switches all layers to training mode, in which weights are quantized anew at every forward pass. Layers that are
    /// not quantized remember it for the time that they are.
    ///
    /// # Errors
    ///
    /// None of its own; see [`visit_mut`](Visit::visit_mut).
    fn train(&mut self) -> Result<()> {
        surgery::set_training(self, true)
    }

    /// Switches all layers to eval mode, in which codes are computed when they are first needed and kept, and histories
    /// stand still. Layers that are not quantized remember it for the time that they are.
    ///
    /// In eval mode, call it again after weights have changed by other means than an optimizer's step after a backward
    /// pass; until then layers compute with the weights as they were.
    ///
    /// # Errors
    ///
    /// None of its own; see [`visit_mut`](Visit::visit_mut).
    fn eval(&mut self) -> Result<()> {
        surgery::set_training(self, false)
    }

    /// Changes in which precision frozen layers read inputs that they do not quantize; see [`Compute`]. Layers that are
    /// not frozen remember it for the time that they are.
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
    /// None of its own; see [`visit_mut`](Visit::visit_mut).
    fn set_compute(&mut self, compute: Compute) -> Result<()> {
        surgery::set_compute(self, compute)
    }

    /// Fixes the scales of activations: [`calibrate_with`](Self::calibrate_with) the [`Observer::MinMax`].
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

    /// Runs `passes`, which is to call the model with typical inputs, observes what goes into each quantized layer, and
    /// gives each layer whose activations have one scale for the whole tensor a [`Scaling::Static`](crate::Scaling)
    /// one. In these passes no layer quantizes anything but frozen ones, and no history moves.
    ///
    /// `config` is an [`Observer`](crate::Observer), or a [`CalibrationConfig`] that says also what to do with layers
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
    /// [`ModelError::NotCalibrated`](crate::ModelError::NotCalibrated) with all layers that no input reached, and then
    /// what the others saw is kept for the next calibration by the same observer, until the model is quantized or
    /// calibrated. No scale has changed after an error.
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
    /// | key | tensor | there |
    /// |---|---|---|
    /// | `<path>.<role>.step` | `I64` scalar, number of training steps so far | always |
    /// | `<path>.<role>.amax_history` | `F32` `(n,)`, oldest first | for windowed and delayed scaling after a step |
    /// | `<path>.<role>.scale` | `F32` scalar | for a static scale |
    ///
    /// With the variables and the optimizer's own state, this is all that training needs to go on with identical bits:
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
    /// Two layers of one path.
    fn quantizer_state(&self) -> Result<HashMap<String, Tensor>> {
        state::save(self)
    }

    /// Puts back what [`quantizer_state`](Self::quantizer_state) gave, in a model that was quantized by the same
    /// config. A static scale there makes its quantizer static, so a calibrated model need not be calibrated again. Of
    /// a history that is longer than the recipe looks back, the last steps count.
    ///
    /// # Errors
    ///
    /// A tensor that is missing, of no use, not of this model, or of a layer that is frozen or in full precision. Then
    /// nothing has changed.
    fn load_quantizer_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        state::load(self, state)
    }

    /// All slots, of every kind, with their paths, in the order of declaration.
    ///
    /// # Errors
    ///
    /// Two slots of one path.
    fn slots(&self) -> Result<Vec<(String, &dyn AnySlot)>> {
        inspect::slots(self)
    }

    /// The slot at `path`, of whatever kind.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoSuchLayer`](crate::ModelError::NoSuchLayer), which names the nearest paths.
    fn slot(&self, path: &str) -> Result<&dyn AnySlot> {
        inspect::find(self, path)
    }

    /// The slot at `path`, of whatever kind, open to replacement.
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
    /// Two slots of one path.
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
