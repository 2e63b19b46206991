//! A pass through a layer that is a product of matrices: forward and backward, written once over [`Products`].

use std::sync::Arc;

use altgrad_kernels::Conversion;
use candle_core::Tensor;

use super::codes::FromCodes;
use super::values::Values;
use super::{ProductOperand, ProductShape, Products, is_symmetric};
use crate::autograd::{self, Gradients, Pass, attach};
use crate::quantizer::{self, CachedTranspose, Clip, FixedWeight, Quantizer, Ste, has_kernels, sum_rows};
use crate::slot::lowering::Lowering;
use crate::slot::operands::Operands;
use crate::slot::{Compute, LayerPath, Recipe, locate};
use crate::{Error, Result, TensorError};

/// A pass through a layer.
pub(in crate::slot) struct Product<'a> {
    pub(in crate::slot) lowering: &'a Arc<dyn Lowering>,
    pub(in crate::slot) weight: WeightSource<'a>,
    pub(in crate::slot) bias: Option<&'a Tensor>,
    /// How the input is quantized in this pass, with the number of the step.
    pub(in crate::slot) input: Option<(Arc<Conversion>, u64)>,
    pub(in crate::slot) ste: Ste,
    /// The precision in which an input that is not quantized is read.
    pub(in crate::slot) compute: Compute,
    /// How gradients are computed; `None` for a layer whose weight is a constant, which computes them in full
    /// precision.
    pub(in crate::slot) training: Option<Training>,
    pub(in crate::slot) path: &'a LayerPath,
}

/// The weight of a pass, as a matrix.
pub(in crate::slot) enum WeightSource<'a> {
    /// In full precision, to be quantized by this conversion in the step with this number.
    Full(&'a Tensor, Arc<Conversion>, u64),
    /// Kept codes, where the weight's gradient stops, and the transpose.
    Fixed(&'a Arc<FixedWeight>, Clip, Option<CachedTranspose>),
}

/// What a pass knows about a layer that trains.
#[derive(Clone)]
pub(in crate::slot) struct Training {
    pub(in crate::slot) recipe: Recipe,
    pub(in crate::slot) operands: Arc<Operands>,
    /// Whether this pass counts as a step.
    pub(in crate::slot) counts: bool,
    /// The weight in full precision, as the layer has it: what gets a gradient.
    pub(in crate::slot) weight: Tensor,
    pub(in crate::slot) matrix: Tensor,
}

impl Training {
    /// The quantizer of the weight's transpose, if gradients of inputs need the transpose quantized separately from
    /// the weight.
    fn transposed_weights(&self, groups: usize) -> Option<&Quantizer> {
        transposed_weights(&self.recipe, groups)
    }
}

/// The quantizer of a weight's transpose, if gradients of inputs need the transpose quantized separately from the
/// weight.
pub(in crate::slot) fn transposed_weights(recipe: &Recipe, groups: usize) -> Option<&Quantizer> {
    let weights = &recipe.weights;
    (recipe.gradients.is_some() && !is_symmetric(weights.granularity, groups)).then_some(weights)
}

impl Product<'_> {
    /// The result for `x`, whose values as a contiguous matrix are `values`, in the shape that the lowering gives to
    /// results.
    pub(in crate::slot) fn forward(&self, x: &Tensor, values: &Tensor) -> Result<Tensor> {
        if has_kernels(x.dtype(), x.device())
            && let Some(y) = self.by::<FromCodes>(x, values)?
        {
            return Ok(y);
        }
        match self.by::<Values>(x, values)? {
            Some(y) => Ok(y),
            None => Err(no_values()),
        }
    }

    /// The result by one implementation of products; `None` if an operand has no form that it reads.
    fn by<P: Products>(&self, x: &Tensor, values: &Tensor) -> Result<Option<Tensor>> {
        let groups = self.lowering.groups();
        let operands = self.training.as_ref().filter(|training| training.counts).map(|training| &training.operands);
        let shape = self.shape(values)?;
        let weight = match &self.weight {
            WeightSource::Full(weight, conversion, _) => {
                P::quantize(weight, conversion, groups, operands.map(|all| &all.weights.buffer))?
            }
            WeightSource::Fixed(codes, ..) => P::fixed(codes, shape)?,
        };
        let Some(weight) = weight else { return Ok(None) };
        let input = match &self.input {
            None => None,
            Some((conversion, _)) => {
                let buffer = operands.map(|all| &all.activations.buffer);
                match P::quantize(values, conversion, groups, buffer)? {
                    None => return Ok(None),
                    input => input,
                }
            }
        };
        let y = P::forward(operand(input.as_ref(), values), &weight, self.bias, self.compute, shape)?;
        let needs_transpose = x.track_op() && self.training.is_some();
        let transposed_weight = if needs_transpose {
            match self.transposed_weight::<P>(shape)? {
                Transpose::NotNeeded => None,
                Transpose::Quantized(matrix) => Some(matrix),
                Transpose::NoForm => return Ok(None),
            }
        } else {
            None
        };
        let backward = Backward::<P> {
            lowering: Arc::clone(self.lowering),
            input,
            input_step: self.input.as_ref().map_or(0, |(_, step)| *step),
            weight,
            transposed_weight,
            input_clip: match &self.input {
                Some((conversion, _)) => self.ste.clip_values(values, conversion, x.track_op())?,
                None => Clip::default(),
            },
            weight_clip: self.weight_clip()?,
            training: self.training.as_ref().map(Training::for_backward),
            shape,
        };
        // A constant weight is not an argument.
        let w = self.training.as_ref().map(|training| &training.weight);
        let arguments: Vec<&Tensor> = [Some(x), w, self.bias].into_iter().flatten().collect();
        let path = self.path.clone();
        let backward = move |pass: Pass<'_>| locate(backward.gradients(pass), &path);
        let y = attach(y, self.lowering.result_dims(x.dims(), shape.y()), &arguments, backward)?;
        self.lowering.output(y, x.dims()).map(Some)
    }

    fn shape(&self, values: &Tensor) -> Result<ProductShape> {
        let groups = self.lowering.groups().max(1);
        let (outputs, inputs) = self.lowering.weight_shape();
        match *values.dims() {
            [rows, cols] if cols == inputs && rows.is_multiple_of(groups) => {
                let (rows, outputs) = (rows / groups, outputs / groups);
                Ok(ProductShape { groups, rows, inputs, outputs, dtype: values.dtype() })
            }
            ref dims => {
                let expected = format!("a matrix with rows of {inputs} in {groups} groups");
                Err(TensorError::ShapeMismatch { what: "the lowered input", expected, actual: dims.to_vec() }.into())
            }
        }
    }

    fn transposed_weight<P: Products>(&self, shape: ProductShape) -> Result<Transpose<P>> {
        let Some(training) = &self.training else { return Ok(Transpose::NotNeeded) };
        let Some(quantizer) = training.transposed_weights(shape.groups) else { return Ok(Transpose::NotNeeded) };
        let kept = match &self.weight {
            WeightSource::Fixed(_, _, Some(kept)) => {
                P::fixed_transpose(kept, shape.transposed(shape.w()), shape.dtype)?
            }
            WeightSource::Fixed(_, _, None) | WeightSource::Full(..) => {
                let operand = &training.operands.weights;
                let step = match self.weight {
                    WeightSource::Full(_, _, step) => step,
                    WeightSource::Fixed(..) => operand.step(),
                };
                let buffer = training.counts.then_some(&operand.transposed_buffer);
                P::quantize_columns(&training.matrix, quantizer, operand, step, shape.groups, buffer)?
            }
        };
        Ok(kept.map_or(Transpose::NoForm, Transpose::Quantized))
    }

    /// Where the weight's gradient stops.
    fn weight_clip(&self) -> Result<Clip> {
        match (&self.weight, &self.training) {
            (WeightSource::Fixed(_, clip, _), _) => Ok(clip.clone()),
            (WeightSource::Full(matrix, conversion, _), Some(training)) => {
                self.ste.clip_values(matrix, conversion, training.weight.track_op())
            }
            (WeightSource::Full(..), None) => Ok(Clip::default()),
        }
    }
}

/// Whether there is a transpose of the weight.
enum Transpose<P: Products> {
    NotNeeded,
    Quantized(P::Matrix),
    /// It is needed, but has no form that these products read.
    NoForm,
}

/// What the forward pass leaves to the backward pass: nothing in it changes when the weight does.
struct Backward<P: Products> {
    lowering: Arc<dyn Lowering>,
    /// The input, if it was quantized.
    input: Option<P::Matrix>,
    /// The step of the input, for the random draws of its transposed copy.
    input_step: u64,
    weight: P::Matrix,
    /// The weight's transpose, quantized along its own rows, if it is needed and has to be quantized separately.
    transposed_weight: Option<P::Matrix>,
    /// Where gradients stop.
    input_clip: Clip,
    weight_clip: Clip,
    training: Option<TrainingStep>,
    shape: ProductShape,
}

/// What a backward pass knows about the layer.
struct TrainingStep {
    recipe: Recipe,
    operands: Arc<Operands>,
    counts: bool,
    /// The dimensions of the weight as the layer has it.
    weight: Vec<usize>,
}

impl Training {
    fn for_backward(&self) -> TrainingStep {
        TrainingStep {
            recipe: self.recipe.clone(),
            operands: Arc::clone(&self.operands),
            counts: self.counts,
            weight: self.weight.dims().to_vec(),
        }
    }
}

/// How the gradient of a result is quantized: by this quantizer, and in this step.
struct QuantizedGradient<'a> {
    quantizer: &'a Quantizer,
    conversion: &'a Conversion,
    step: u64,
}

impl<P: Products> Backward<P> {
    fn gradients(&self, pass: Pass<'_>) -> Result<Gradients> {
        let (x, w, bias) = match (pass.arguments, &self.training) {
            (&[x, w, bias], _) => (x, Some(w), Some(bias)),
            (&[x, w], Some(_)) => (x, Some(w), None),
            (&[x, bias], None) => (x, None, Some(bias)),
            (&[x], _) => (x, None, None),
            (arguments, _) => return Err(not_of_a_layer(arguments.len())),
        };
        let needs = [x.track_op(), w.is_some_and(Tensor::track_op)];
        let dy = &pass.dy.detach().contiguous()?.reshape(self.shape.y())?;
        let quantizer = self.training.as_ref().and_then(|training| training.recipe.gradients.as_ref());
        let to = if needs[1] { w.and_then(autograd::buffer) } else { None };
        let [dx, dw] = match (quantizer, &self.training) {
            (Some(quantizer), Some(training)) => {
                let (conversion, step) = training.operands.gradients.advance(quantizer, dy, training.counts)?;
                let gradient = QuantizedGradient { quantizer, conversion: &conversion, step };
                if let Some(gradients) = self.quantized(training, x, dy, &gradient, needs, to.clone())? {
                    gradients
                } else {
                    let gradients = self.to_values()?.quantized(training, x, dy, &gradient, needs, to)?;
                    gradients.ok_or_else(no_values)?
                }
            }
            _ => self.in_full_precision(x, dy, needs, to)?,
        };
        if dw.is_some()
            && let Some(training) = &self.training
        {
            // An optimizer is about to change the weight.
            training.operands.weights.cache.disable();
        }
        let dx = dx.map(|dx| self.lowering.input_gradient(self.input_clip.stop(&dx)?, x.dims())).transpose()?;
        let dw = dw.map(|dw| self.weight_gradient(&dw)).transpose()?;
        let dbias = bias_gradient(bias, dy, self.shape)?;
        Ok(if w.is_some() { [dx, dw, dbias] } else { [dx, dbias, None] })
    }

    /// The gradients from `dy` in full precision.
    fn in_full_precision(
        &self,
        x: &Tensor,
        dy: &Tensor,
        [needs_x, needs_w]: [bool; 2],
        to: Option<Tensor>,
    ) -> Result<[Option<Tensor>; 2]> {
        let dy = ProductOperand::Full(dy);
        let dx = if needs_x {
            Some(P::input_gradient(dy, ProductOperand::Quantized(&self.weight), self.shape)?)
        } else {
            None
        };
        let dw = match &self.input {
            _ if !needs_w => None,
            Some(input) => Some(P::weight_gradient(dy, ProductOperand::Quantized(input), to, self.shape)?),
            None => Some(P::weight_gradient(dy, ProductOperand::Full(&self.values(x)?), to, self.shape)?),
        };
        Ok([dx, dw])
    }

    /// The gradients from `dy` quantized along its rows and its columns; `None` if an operand has no form that these
    /// products read.
    fn quantized(
        &self,
        training: &TrainingStep,
        x: &Tensor,
        dy: &Tensor,
        gradient: &QuantizedGradient<'_>,
        [needs_x, needs_w]: [bool; 2],
        to: Option<Tensor>,
    ) -> Result<Option<[Option<Tensor>; 2]>> {
        let &QuantizedGradient { quantizer, conversion, step } = gradient;
        let (operands, groups) = (&training.operands, self.shape.groups);
        let has_one_form = is_symmetric(quantizer.granularity, groups);
        let rows = if needs_x || has_one_form {
            match P::quantize(dy, conversion, groups, Some(&operands.gradients.buffer))? {
                None => return Ok(None),
                rows => rows,
            }
        } else {
            None
        };
        let dx = match &rows {
            Some(rows) if needs_x => {
                let weight = match &self.transposed_weight {
                    Some(weight) => ProductOperand::Transposed(weight),
                    None => ProductOperand::Quantized(&self.weight),
                };
                Some(P::input_gradient(ProductOperand::Quantized(rows), weight, self.shape)?)
            }
            _ => None,
        };
        if !needs_w {
            return Ok(Some([dx, None]));
        }
        let columns = match rows {
            Some(rows) if has_one_form => Form::Rows(rows),
            _ => match columns_of::<P>(quantizer, &operands.gradients, dy, step, groups)? {
                None => return Ok(None),
                Some(columns) => Form::Columns(columns),
            },
        };
        let values;
        let input = match (&training.recipe.activations, &self.input) {
            (Some(activations), Some(_)) if !is_symmetric(activations.granularity, groups) => {
                let full = self.values(x)?;
                match columns_of::<P>(activations, &operands.activations, &full, self.input_step, groups)? {
                    None => return Ok(None),
                    Some(columns) => Form::Columns(columns),
                }
            }
            (_, Some(input)) => Form::Rows(input.clone()),
            (_, None) => {
                values = self.values(x)?;
                let dw = P::weight_gradient(columns.operand(), ProductOperand::Full(&values), to, self.shape)?;
                return Ok(Some([dx, Some(dw)]));
            }
        };
        let dw = P::weight_gradient(columns.operand(), input.operand(), to, self.shape)?;
        Ok(Some([dx, Some(dw)]))
    }

    /// The same with fake-quantized values, for an operand that has no codes.
    fn to_values(&self) -> Result<Backward<Values>> {
        let Self { lowering, input_step, input_clip, weight_clip, shape, .. } = self;
        let dequantize = |matrix: &Option<P::Matrix>, shape: (usize, usize)| {
            matrix.as_ref().map(|matrix| P::dequantize(matrix, shape, self.shape.dtype)).transpose()
        };
        Ok(Backward {
            lowering: Arc::clone(lowering),
            input: dequantize(&self.input, shape.x())?,
            input_step: *input_step,
            weight: P::dequantize(&self.weight, shape.w(), shape.dtype)?,
            transposed_weight: dequantize(&self.transposed_weight, shape.transposed(shape.w()))?,
            input_clip: input_clip.clone(),
            weight_clip: weight_clip.clone(),
            training: None,
            shape: *shape,
        })
    }

    /// The input in full precision as a matrix.
    fn values(&self, x: &Tensor) -> Result<Tensor> {
        self.lowering.input(&x.detach())
    }

    /// The gradient of the weight as the layer has it.
    fn weight_gradient(&self, dw: &Tensor) -> Result<Tensor> {
        let dw = self.weight_clip.stop(dw)?;
        match &self.training {
            Some(training) if training.weight.len() != 2 => Ok(dw.reshape(&*training.weight)?),
            _ => Ok(dw),
        }
    }
}

/// A quantized operand of a weight's gradient: along its rows or along its columns.
enum Form<M> {
    Rows(M),
    Columns(M),
}

impl<M> Form<M> {
    fn operand(&self) -> ProductOperand<'_, M> {
        match self {
            Self::Rows(matrix) => ProductOperand::Quantized(matrix),
            Self::Columns(matrix) => ProductOperand::Transposed(matrix),
        }
    }
}

fn operand<'a, M>(quantized: Option<&'a M>, full: &'a Tensor) -> ProductOperand<'a, M> {
    quantized.map_or(ProductOperand::Full(full), ProductOperand::Quantized)
}

/// A matrix in full precision, quantized along its columns in a backward pass.
fn columns_of<P: Products>(
    quantizer: &Quantizer,
    operand: &quantizer::Operand,
    full: &Tensor,
    step: u64,
    groups: usize,
) -> Result<Option<P::Matrix>> {
    P::quantize_columns(full, quantizer, operand, step, groups, Some(&operand.transposed_buffer))
}

/// The gradient of a bias, if it needs one: the sum of the rows of `dy`, for each group separately.
fn bias_gradient(bias: Option<&Tensor>, dy: &Tensor, shape: ProductShape) -> Result<Option<Tensor>> {
    let Some(bias) = bias.filter(|bias| bias.track_op()) else { return Ok(None) };
    let of_group = |group: usize| sum_rows(&dy.narrow(0, group * shape.rows, shape.rows)?);
    let sums = match shape.groups {
        1 => sum_rows(dy)?,
        groups => Tensor::cat(&(0..groups).map(of_group).collect::<Result<Vec<_>>>()?, 0)?,
    };
    Ok(Some(sums.reshape(bias.shape())?))
}

/// The error for an operand that has no values; candle's operations read operands of every kind, so it does not
/// occur.
fn no_values() -> Error {
    candle_core::Error::Msg("an operand of a product without values".to_owned()).into()
}

/// The error for a number of arguments that a layer does not have; it does not occur.
fn not_of_a_layer(arguments: usize) -> Error {
    candle_core::Error::Msg(format!("a layer of {arguments} arguments")).into()
}
