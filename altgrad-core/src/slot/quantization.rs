//! How a quantized layer of any kind computes, and what it keeps from pass to pass.

use std::sync::Arc;

use altgrad_kernels::Conversion;
use candle_core::{DType, Device, Tensor};

use super::mode::Mode;
use super::operands::Operands;
use super::operation::matrix;
use super::products::{Product, Training, WeightSource, transposed_weights};
use super::{Evaluation, LayerPath, Lowering, Recipe, check_kind, lookup};
use crate::autograd::{Computed, Pass, attach};
use crate::quantizer::{CachedCodes, Fp8Tensor, Operand, Quantizer, Ste, Uses, check_finite, fake_quantize_with};
use crate::{Error, FormatError, Result, TensorError};

/// Everything in a quantized layer but the layer that it wraps: the same type for every kind.
#[derive(Debug)]
pub struct Quantization {
    pub(crate) recipe: Recipe,
    pub(crate) operands: Arc<Operands>,
    pub(super) mode: Mode,
    pub(super) evaluation: Evaluation,
    /// Whether a calibration pass runs, in which the layer computes in full precision and its input is watched.
    pub(crate) is_calibrating: bool,
    pub(super) path: LayerPath,
}

/// The tensors of the layer that is wrapped.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub(super) weight: &'a Tensor,
    pub(super) bias: Option<&'a Tensor>,
}

/// Calls the layer with another weight and an input.
pub(super) type Call<'a> = &'a dyn Fn(Tensor, &Tensor) -> Result<Tensor>;

/// How a tensor is converted in the step with this number.
type Converted = (Arc<Conversion>, u64);

impl Quantization {
    /// The state before its first step of the layer at `path` with these tensors, whose slot is in this mode. Layers
    /// that are quantized as one share `weights`.
    pub(super) fn new(
        tensors: Tensors<'_>,
        evaluation: Evaluation,
        recipe: Recipe,
        mode: Mode,
        path: LayerPath,
        weights: Option<Arc<Operand>>,
    ) -> Result<Self> {
        recipe.validate()?;
        let Tensors { weight, bias } = tensors;
        check_parts(&evaluation, weight.dims(), weight.dtype(), weight.device(), bias)?;
        check_finite(weight, "the weight")?;
        let mut operands = Operands::new(&recipe, path.as_deref().unwrap_or_default());
        operands.weights = weights.unwrap_or(operands.weights);
        let layout = evaluation.layout();
        let is_product = matches!(evaluation, Evaluation::Product(_));
        let transposed = is_product && transposed_weights(&recipe, layout.groups()).is_some();
        operands.weights.add_use(Uses { layout, transposed });
        let operands = Arc::new(operands);
        Ok(Self { recipe, operands, mode, evaluation, is_calibrating: false, path })
    }

    /// Whether the weight, if both layers share it, has the same codes in both: they are quantized as one, or would
    /// convert it in the same way, as clones do.
    pub(crate) fn has_codes_of(&self, other: &Self) -> bool {
        let (own, others) = (&self.operands.weights, &other.operands.weights);
        Arc::ptr_eq(own, others)
            || self.recipe.weights == other.recipe.weights
                && self.recipe.ste == other.recipe.ste
                && own.converts_as(others, &self.recipe.weights)
    }

    /// The codes that a weight would have in the next step.
    pub(crate) fn pack(&self, weight: &Tensor) -> Result<Fp8Tensor> {
        self.operands.weights.pack(&self.recipe.weights, &matrix(&weight.detach())?)
    }

    /// The weight's codes that the next forward pass computes with. In eval mode these may be kept codes.
    pub(crate) fn quantized_weight(&self, weight: &Tensor) -> Result<Fp8Tensor> {
        let kept = if self.mode.training { None } else { self.operands.weights.cache.peek() };
        match kept {
            Some(kept) => kept.codes.to_tensor(),
            None => self.pack(weight),
        }
    }

    /// Switches between training and eval mode, and drops kept codes.
    pub(super) fn set_training(&mut self, training: bool) {
        self.mode.training = training;
        self.forget_codes();
        self.operands.all().into_iter().for_each(Operand::clear_buffers);
    }

    /// Makes the next forward pass in eval mode recompute the weight's codes.
    pub(crate) fn forget_codes(&self) {
        self.operands.weights.cache.renew();
    }

    /// Fails if the weight's scaling is delayed and no amax was recorded yet.
    pub(crate) fn check_measured(&self) -> Result<()> {
        self.operands.weights.check_measured(&self.recipe.weights)
    }

    /// The state for other tensors of the same shapes and values, which replaces this one.
    pub(super) fn moved(&self) -> Self {
        // Whether the weight needs a gradient may be different for the new tensor.
        self.operands.weights.cache.forget();
        Self { operands: Arc::clone(&self.operands), ..self.split() }
    }

    /// A copy of the state that changes independently from here on, and is not calibrated.
    pub(super) fn split(&self) -> Self {
        Self {
            recipe: self.recipe.clone(),
            operands: Arc::new(self.operands.split()),
            mode: self.mode,
            evaluation: self.evaluation.clone(),
            is_calibrating: false,
            path: self.path.clone(),
        }
    }

    /// The layer's output; `call` computes it in full precision.
    pub(super) fn forward(&self, tensors: Tensors<'_>, x: &Tensor, call: Call<'_>) -> Result<Tensor> {
        let Tensors { weight, .. } = tensors;
        check_input(&self.evaluation, x, weight.dtype(), weight.device())?;
        if self.is_calibrating {
            let x = &x.contiguous()?;
            let input = &self.operands.activations;
            input.watch.see(x, input.what())?;
            return call(weight.clone(), x);
        }
        match &self.evaluation {
            Evaluation::Product(lowering) => self.product(lowering, tensors, x),
            Evaluation::Lookup => self.lookup(weight, x),
            Evaluation::Values => self.values(weight, x, call),
        }
    }

    fn product(&self, lowering: &Arc<dyn Lowering>, tensors: Tensors<'_>, x: &Tensor) -> Result<Tensor> {
        let Tensors { weight, bias } = tensors;
        // Computed once for everything that reads it.
        let values = lowering.input(&x.detach())?;
        let matrix = matrix(weight)?;
        let detached = matrix.detach();
        let kept = self.kept(&matrix)?;
        let weight_of_pass = if let Some(kept) = &kept {
            WeightSource::Fixed(&kept.codes, kept.clip.clone(), kept.transposed.clone())
        } else {
            let (conversion, step) = self.convert_weight(&detached)?;
            WeightSource::Full(&detached, conversion, step)
        };
        let product = Product {
            lowering,
            weight: weight_of_pass,
            bias,
            input: self.convert_input(&values)?,
            ste: self.recipe.ste,
            compute: self.mode.compute,
            training: Some(Training {
                recipe: self.recipe.clone(),
                operands: Arc::clone(&self.operands),
                counts: self.mode.training,
                weight: weight.clone(),
                matrix: detached.clone(),
            }),
            path: &self.path,
        };
        product.forward(x, &values)
    }

    fn lookup(&self, weight: &Tensor, rows: &Tensor) -> Result<Tensor> {
        let quantizer = &self.recipe.weights;
        let operand = &self.operands.weights;
        let looked_up = match self.kept(weight)? {
            Some(kept) => lookup::kept(&kept, rows)?,
            None if lookup::is_by_row(quantizer) => {
                let values = lookup::rows(&weight.detach(), rows)?;
                let (conversion, _) = operand.advance(quantizer, &values, self.mode.training)?;
                let clip = self.recipe.ste.clip_values(&values, &conversion, weight.track_op())?;
                (fake_quantize_with(&values, conversion, Ste::PassThrough)?, clip)
            }
            None => {
                let weight_values = weight.detach();
                let (conversion, _) = self.convert_weight(&weight_values)?;
                let clip = self.recipe.ste.clip_values(&weight_values, &conversion, weight.track_op())?;
                let table = fake_quantize_with(&weight_values, conversion, Ste::PassThrough)?;
                (lookup::rows(&table, rows)?, clip.rows(&lookup::numbers(rows)?)?)
            }
        };
        let operands = Arc::clone(&self.operands);
        lookup::attach(looked_up, weight, rows, move || operands.weights.cache.disable())
    }

    fn values(&self, weight: &Tensor, x: &Tensor, call: Call<'_>) -> Result<Tensor> {
        let weight = self.weight_values(weight)?;
        let x = &x.contiguous()?;
        let input = match self.convert_input(&x.detach())? {
            None => x.clone(),
            Some((conversion, _)) => fake_quantize_with(x, conversion, self.recipe.ste)?,
        };
        let y = call(weight, &input)?;
        match &self.recipe.gradients {
            None => Ok(y),
            Some(quantizer) => self.quantize_gradient(&y, quantizer.clone()),
        }
    }

    /// The fake-quantized values of a weight, differentiable.
    fn weight_values(&self, weight: &Tensor) -> Result<Tensor> {
        let matrix = matrix(weight)?;
        let (values, clip) = if let Some(kept) = self.kept(&matrix)? {
            (kept.codes.dequantize()?, kept.clip)
        } else {
            let values = matrix.detach();
            let (conversion, _) = self.convert_weight(&values)?;
            let clip = self.recipe.ste.clip_values(&values, &conversion, weight.track_op())?;
            (fake_quantize_with(&values, conversion, Ste::PassThrough)?, clip)
        };
        let operands = Arc::clone(&self.operands);
        let backward = move |pass: Pass<'_>| {
            // An optimizer is about to change the weight.
            operands.weights.cache.disable();
            let dy = matrix_of(&pass.dy.contiguous()?)?;
            Ok([Some(clip.stop(&dy)?.reshape(pass.dy.shape())?), None, None])
        };
        Ok(attach(Computed::Tensor(values), weight.dims(), &[weight], backward)?)
    }

    /// An output whose gradient is quantized on its way into the backward pass.
    fn quantize_gradient(&self, y: &Tensor, quantizer: Quantizer) -> Result<Tensor> {
        let (operands, counts, path) = (Arc::clone(&self.operands), self.mode.training, self.path.clone());
        let backward = move |pass: Pass<'_>| {
            let gradient = || {
                let dy = pass.dy.detach().contiguous()?;
                let (conversion, _) = operands.gradients.advance(&quantizer, &dy, counts)?;
                fake_quantize_with(&dy, conversion, Ste::PassThrough)
            };
            Ok([Some(super::locate(gradient(), &path)?), None, None])
        };
        Ok(attach(Computed::Tensor(y.detach()), y.dims(), &[y], backward)?)
    }

    /// In eval mode, the kept codes of the weight, unless one of its values has no code.
    fn kept(&self, matrix: &Tensor) -> Result<Option<CachedCodes>> {
        if self.mode.training {
            return Ok(None);
        }
        match self.operands.weights.cached_codes(&self.recipe.weights, matrix, self.recipe.ste) {
            // NaN stays NaN in fake quantization, even where no code can hold it.
            Err(Error::Format(FormatError::NanNotRepresentable { .. })) => Ok(None),
            kept => kept.map(Some),
        }
    }

    fn convert_weight(&self, matrix: &Tensor) -> Result<Converted> {
        let weights = &self.operands.weights;
        let (conversion, step) = weights.advance(&self.recipe.weights, matrix, self.mode.training)?;
        Ok((Arc::new(conversion), step))
    }

    fn convert_input(&self, values: &Tensor) -> Result<Option<Converted>> {
        let Some(quantizer) = &self.recipe.activations else { return Ok(None) };
        let (conversion, step) = self.operands.activations.advance(quantizer, values, self.mode.training)?;
        Ok(Some((Arc::new(conversion), step)))
    }
}

/// Checks that a layer can be computed with a weight of these dimensions and a bias.
pub(super) fn check_parts(
    evaluation: &Evaluation,
    weight: &[usize],
    dtype: DType,
    device: &Device,
    bias: Option<&Tensor>,
) -> Result<()> {
    if let Evaluation::Product(lowering) = evaluation {
        let (outputs, inputs) = lowering.weight_shape();
        let groups = lowering.groups();
        let actual = weight.split_first().map(|(first, rest)| (*first, rest.iter().product()));
        if actual != Some((outputs, inputs)) || groups == 0 || !outputs.is_multiple_of(groups.max(1)) {
            let expected = format!("the shape of a matrix of {outputs} × {inputs} in {groups} groups of rows");
            let actual = weight.to_vec();
            return Err(TensorError::ShapeMismatch { what: "the weight", expected, actual }.into());
        }
        if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
            let expected = format!("[{outputs}], one value per output");
            let actual = bias.dims().to_vec();
            return Err(TensorError::ShapeMismatch { what: "the bias", expected, actual }.into());
        }
    }
    bias.map_or(Ok(()), |bias| check_kind("the bias", bias, dtype, device))
}

/// As [`matrix`], with candle's error.
fn matrix_of(tensor: &Tensor) -> candle_core::Result<Tensor> {
    Ok(matrix(tensor)?)
}

/// Checks that a layer with a weight of this dtype on this device takes an input.
pub(super) fn check_input(evaluation: &Evaluation, x: &Tensor, dtype: DType, device: &Device) -> Result<()> {
    match evaluation {
        Evaluation::Lookup => lookup::check_numbers(x),
        Evaluation::Product(lowering) => {
            check_kind("the input", x, dtype, device)?;
            lowering.check_input(x)
        }
        Evaluation::Values => check_kind("the input", x, dtype, device),
    }
}
