//! The products of a linear layer on the CPU: from codes, without a copy of any operand in full precision.

use std::sync::Arc;

use altgrad_kernels::{self as kernels, CodeMatrix, FloatMatrix, Left, PackedCodes, Right};
use candle_core::{CpuStorage, DType, Shape, Storage, Tensor};

use super::Compute;
use crate::Result;
use crate::quantizer::{Codes, to_storage, with_floats};

/// The weight of a layer's products.
#[derive(Clone, Debug)]
pub(super) enum Weight {
    /// That of one step.
    Codes(Codes),
    /// One that stays.
    Packed(Arc<PackedCodes>),
}

impl Weight {
    /// The codes row by row.
    pub(super) fn codes(&self) -> Codes {
        match self {
            Self::Codes(codes) => codes.clone(),
            Self::Packed(packed) => Codes::unpack(packed),
        }
    }

    fn right(&self) -> Right<'_> {
        match self {
            Self::Codes(codes) => Right::Codes(codes.view()),
            Self::Packed(packed) => Right::Packed(packed),
        }
    }
}

/// The input of a layer's products.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'a> {
    Codes(&'a Codes),
    Floats(Compute),
}

/// Rows and columns of a tensor as a matrix of its rows.
pub(super) fn matrix_dims(x: &Tensor) -> (usize, usize) {
    let dims = x.dims();
    let cols = dims.last().copied().unwrap_or(1);
    (dims.iter().rev().skip(1).product(), cols)
}

/// `x · wᵀ + bias` of `x` `(…, inputs)` and `outputs` rows of weights.
pub(super) fn forward(
    x: &Tensor,
    input: Input<'_>,
    weight: &Weight,
    outputs: usize,
    bias: Option<&Tensor>,
) -> Result<CpuStorage> {
    let (tokens, inputs) = matrix_dims(x);
    let mut y = match input {
        Input::Codes(codes) => multiply(&Left::Codes(codes.view()), &weight.right(), tokens, outputs),
        Input::Floats(compute) => with_floats(x, |x| {
            let x = FloatMatrix::new(x, tokens, inputs);
            let left = match compute {
                Compute::Full => Left::Floats(x),
                Compute::Bf16Activations => Left::RoundedFloats(x),
            };
            multiply(&left, &weight.right(), tokens, outputs)
        })?,
    };
    if let Some(bias) = bias {
        with_floats(bias, |bias| kernels::add_bias(&mut y, bias))?;
    }
    to_storage(y, x.dtype())
}

/// The gradient of an input of this shape, `dy · w`, from codes of `wᵀ`.
pub(super) fn input_gradient(dy: &Left<'_>, weight: CodeMatrix<'_>, shape: &Shape, dtype: DType) -> Result<Tensor> {
    let inputs = shape.dims().last().copied().unwrap_or(1);
    let tokens = shape.dims().iter().rev().skip(1).product();
    tensor(multiply(dy, &Right::Codes(weight), tokens, inputs), shape.clone(), dtype)
}

/// The gradient of `x`, `dy · w`, from `dy` as it is.
pub(super) fn input_gradient_in_full_precision(x: &Tensor, dy: &Tensor, weight: &Weight) -> Result<Tensor> {
    let (tokens, outputs) = matrix_dims(dy);
    let codes = weight.codes();
    with_floats(dy, |dy| {
        let dy = Left::Floats(FloatMatrix::new(dy, tokens, outputs));
        input_gradient(&dy, codes.view().transposed(), x.shape(), x.dtype())
    })?
}

/// The gradient of a weight of this shape, `dyᵀ · x`, from `dyᵀ` and codes of `xᵀ`.
pub(super) fn weight_gradient(dy: &Left<'_>, x: CodeMatrix<'_>, shape: &Shape, dtype: DType) -> Result<Tensor> {
    let (outputs, inputs) = shape.dims2()?;
    tensor(multiply(dy, &Right::Codes(x), outputs, inputs), shape.clone(), dtype)
}

/// The gradient of a weight of this shape, `dyᵀ · x`, from codes of `dyᵀ` and `xᵀ` in full precision.
pub(super) fn weight_gradient_of_floats(
    dy: CodeMatrix<'_>,
    x: FloatMatrix<'_>,
    shape: &Shape,
    dtype: DType,
) -> Result<Tensor> {
    let (outputs, inputs) = shape.dims2()?;
    // Only the left operand can be floats, so it is the transpose that is computed.
    let product = multiply(&Left::Floats(x), &Right::Codes(dy), inputs, outputs);
    let mut gradient = kernels::zeroed(product.len());
    kernels::transpose(&product, &mut gradient, outputs);
    tensor(gradient, shape.clone(), dtype)
}

/// The gradient of a bias, if it needs one: the sum of the rows of `dy`.
pub(super) fn bias_gradient(bias: Option<&Tensor>, dy: &Tensor) -> Result<Option<Tensor>> {
    let Some(bias) = bias.filter(|bias| bias.track_op()) else { return Ok(None) };
    let sums = with_floats(dy, |dy| kernels::sum_rows(dy, bias.elem_count()))?;
    tensor(sums, bias.shape().clone(), bias.dtype()).map(Some)
}

fn multiply(left: &Left<'_>, right: &Right<'_>, rows: usize, cols: usize) -> Vec<f32> {
    let mut product = kernels::zeroed(rows * cols);
    kernels::multiply(left, right, &mut product);
    product
}

fn tensor(values: Vec<f32>, shape: Shape, dtype: DType) -> Result<Tensor> {
    let storage = Storage::Cpu(to_storage(values, dtype)?);
    Ok(Tensor::from_storage(storage, shape, candle_core::op::BackpropOp::none(), false))
}
