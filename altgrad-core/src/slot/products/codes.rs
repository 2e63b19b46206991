//! Products from codes on the CPU, without a copy of any quantized operand in full precision.

use std::ops::Range;
use std::sync::Arc;

use altgrad_kernels::{self as kernels, CodeMatrix, Conversion, FloatMatrix, Lhs, PackedCodes, Rhs};
use candle_core::{DType, Tensor};

use super::values::Values;
use super::{ProductOperand, ProductShape, Products, not_transposed};
use crate::autograd::{self, Computed, tensor};
use crate::quantizer::{CachedTranspose, CodeBuffer, Codes, FixedWeight, Operand, Quantizer, to_storage, with_floats};
use crate::slot::Compute;
use crate::{Error, Result};

/// Products by the kernels.
pub(super) struct FromCodes;

/// A matrix of codes.
#[derive(Clone, Debug)]
pub(super) enum Matrix {
    /// Codes of one pass.
    Codes(Codes),
    /// Kept codes, in groups of rows.
    Packed(Arc<[PackedCodes]>),
}

impl Products for FromCodes {
    type Matrix = Matrix;

    fn quantize(
        x: &Tensor,
        conversion: &Conversion,
        groups: usize,
        buffer: Option<&CodeBuffer>,
    ) -> Result<Option<Matrix>> {
        let blocks = conversion.blocks();
        let (rows, _) = blocks.shape();
        if groups != 1 && blocks.of_rows(0..rows / groups.max(1)).is_none() {
            return Ok(None);
        }
        // In a format without NaN, some values have no code.
        Ok(Codes::encode(x, conversion, buffer)?.map(Matrix::Codes))
    }

    fn quantize_columns(
        x: &Tensor,
        quantizer: &Quantizer,
        operand: &Operand,
        step: u64,
        groups: usize,
        buffer: Option<&CodeBuffer>,
    ) -> Result<Option<Matrix>> {
        let (rows, cols) = x.dims2()?;
        let groups = groups.max(1);
        let blocks = quantizer.granularity.blocks(&[groups * cols, rows / groups]);
        if groups != 1 && blocks.of_rows(0..cols).is_none() {
            return Ok(None);
        }
        Ok(operand.encode_transpose(quantizer, x, step, groups, buffer)?.map(Matrix::Codes))
    }

    fn fixed(codes: &FixedWeight, shape: ProductShape) -> Result<Option<Matrix>> {
        Ok(match codes {
            FixedWeight::Packed { groups, .. } if groups.len() == shape.groups => {
                Some(Matrix::Packed(Arc::clone(groups)))
            }
            FixedWeight::Packed { .. } | FixedWeight::Tensor(_) => None,
        })
    }

    fn fixed_transpose(codes: &CachedTranspose, _: (usize, usize), _: DType) -> Result<Option<Matrix>> {
        Ok(match codes {
            CachedTranspose::Codes(codes) => Some(Matrix::Codes(codes.clone())),
            CachedTranspose::Tensor(_) => None,
        })
    }

    fn dequantize(matrix: &Matrix, shape: (usize, usize), dtype: DType) -> Result<Tensor> {
        match matrix {
            Matrix::Codes(codes) => codes.dequantize(&shape.into(), dtype),
            Matrix::Packed(groups) => {
                let (rows, cols) = (shape.0 / groups.len().max(1), shape.1);
                let group = |packed| Codes::unpack(packed).dequantize(&(rows, cols).into(), dtype);
                match &**groups {
                    [packed] => group(packed),
                    groups => Ok(Tensor::cat(&groups.iter().map(group).collect::<Result<Vec<_>>>()?, 0)?),
                }
            }
        }
    }

    fn forward(
        x: ProductOperand<'_, Matrix>,
        w: &Matrix,
        bias: Option<&Tensor>,
        compute: Compute,
        shape: ProductShape,
    ) -> Result<Computed> {
        let (rows, cols) = (shape.rows, shape.outputs);
        let rhs = |group: usize, product: &mut dyn FnMut(&Rhs<'_>) -> Result<()>| match w {
            Matrix::Codes(codes) => product(&Rhs::Codes(group_of(codes, group, cols, shape)?)),
            Matrix::Packed(groups) => {
                groups.get(group).map_or_else(|| Err(no_group()), |packed| product(&Rhs::Packed(packed)))
            }
        };
        let bias = bias.map(|bias| with_floats(bias, <[f32]>::to_vec)).transpose()?;
        let add_bias = |group: usize, y: &mut [f32]| match &bias {
            Some(bias) => {
                kernels::add_bias(y, slice(bias, group, 1, cols)?);
                Ok(())
            }
            None => Ok(()),
        };
        let y = match x {
            ProductOperand::Full(x) => with_floats(x, |x| {
                per_group(shape.groups, rows * cols, |group, y| {
                    let x = FloatMatrix::new(slice(x, group, rows, shape.inputs)?, rows, shape.inputs);
                    let lhs = match compute {
                        Compute::Full => Lhs::Floats(x),
                        Compute::Bf16Activations => Lhs::RoundedFloats(x),
                    };
                    rhs(group, &mut |rhs| {
                        kernels::multiply(&lhs, rhs, y);
                        Ok(())
                    })?;
                    add_bias(group, y)
                })
            })??,
            ProductOperand::Quantized(Matrix::Codes(x)) => per_group(shape.groups, rows * cols, |group, y| {
                let lhs = Lhs::Codes(group_of(x, group, rows, shape)?);
                rhs(group, &mut |rhs| {
                    kernels::multiply(&lhs, rhs, y);
                    Ok(())
                })?;
                add_bias(group, y)
            })?,
            ProductOperand::Quantized(Matrix::Packed(_)) | ProductOperand::Transposed(_) => {
                return Err(not_transposed());
            }
        };
        Ok(Computed::Cpu(to_storage(y, shape.dtype)?))
    }

    fn input_gradient(
        dy: ProductOperand<'_, Matrix>,
        w: ProductOperand<'_, Matrix>,
        shape: ProductShape,
    ) -> Result<Tensor> {
        let (rows, cols) = (shape.rows, shape.inputs);
        let (w, is_transposed) = match w {
            ProductOperand::Quantized(w) => (w, false),
            ProductOperand::Transposed(w) => (w, true),
            ProductOperand::Full(_) => return Err(not_transposed()),
        };
        let w = Unpacked::new(w);
        let rhs = |group| {
            let codes = w.group(group, if is_transposed { shape.inputs } else { shape.outputs }, shape)?;
            Ok::<_, Error>(Rhs::Codes(if is_transposed { codes } else { codes.transposed() }))
        };
        let dx = match dy {
            ProductOperand::Full(dy) => with_floats(dy, |dy| {
                per_group(shape.groups, rows * cols, |group, dx| {
                    let dy = slice(dy, group, rows, shape.outputs)?;
                    let lhs = Lhs::Floats(FloatMatrix::new(dy, rows, shape.outputs));
                    kernels::multiply(&lhs, &rhs(group)?, dx);
                    Ok(())
                })
            })??,
            ProductOperand::Quantized(Matrix::Codes(dy)) => per_group(shape.groups, rows * cols, |group, dx| {
                kernels::multiply(&Lhs::Codes(group_of(dy, group, rows, shape)?), &rhs(group)?, dx);
                Ok(())
            })?,
            ProductOperand::Quantized(Matrix::Packed(_)) | ProductOperand::Transposed(_) => {
                return Err(not_transposed());
            }
        };
        tensor(dx, shape.x(), shape.dtype)
    }

    fn weight_gradient(
        dy: ProductOperand<'_, Matrix>,
        x: ProductOperand<'_, Matrix>,
        to: Option<Tensor>,
        shape: ProductShape,
    ) -> Result<Tensor> {
        let ProductShape { rows, inputs, outputs, .. } = shape;
        match (codes_of(dy)?, codes_of(x)?) {
            (Side::Full(dy), Side::Full(x)) => {
                Values::weight_gradient(ProductOperand::Full(dy), ProductOperand::Full(x), to, shape)
            }
            (Side::Full(dy), Side::Codes(x, x_is_transposed)) => with_floats(dy, |dy| {
                weights(to, shape, |group, dw| {
                    let dy = FloatMatrix::new(slice(dy, group, rows, outputs)?, rows, outputs).transposed();
                    let x = columns(x, x_is_transposed, group, inputs, shape)?;
                    kernels::multiply(&Lhs::Floats(dy), &Rhs::Codes(x), dw);
                    Ok(())
                })
            })?,
            (Side::Codes(dy, dy_is_transposed), Side::Codes(x, x_is_transposed)) => weights(to, shape, |group, dw| {
                let dy = columns(dy, dy_is_transposed, group, outputs, shape)?;
                let x = columns(x, x_is_transposed, group, inputs, shape)?;
                kernels::multiply(&Lhs::Codes(dy), &Rhs::Codes(x), dw);
                Ok(())
            }),
            (Side::Codes(dy, dy_is_transposed), Side::Full(x)) => with_floats(x, |x| {
                let mut transposed = kernels::zeroed(inputs * outputs);
                weights(to, shape, |group, dw| {
                    // Only the left operand can be floats, so the transpose is computed.
                    let x = FloatMatrix::new(slice(x, group, rows, inputs)?, rows, inputs).transposed();
                    let dy = columns(dy, dy_is_transposed, group, outputs, shape)?;
                    kernels::multiply(&Lhs::Floats(x), &Rhs::Codes(dy), &mut transposed);
                    kernels::transpose(&transposed, dw, outputs);
                    Ok(())
                })
            })?,
        }
    }
}

/// The transpose of a group of a matrix; it has `cols` rows.
fn columns(
    codes: &Codes,
    is_transposed: bool,
    group: usize,
    cols: usize,
    shape: ProductShape,
) -> Result<CodeMatrix<'_>> {
    Ok(if is_transposed {
        group_of(codes, group, cols, shape)?
    } else {
        group_of(codes, group, shape.rows, shape)?.transposed()
    })
}

/// An operand of a weight's gradient.
enum Side<'a> {
    Full(&'a Tensor),
    /// Codes, and whether they are those of the transpose.
    Codes(&'a Codes, bool),
}

fn codes_of(operand: ProductOperand<'_, Matrix>) -> Result<Side<'_>> {
    match operand {
        ProductOperand::Full(values) => Ok(Side::Full(values)),
        ProductOperand::Quantized(Matrix::Codes(codes)) => Ok(Side::Codes(codes, false)),
        ProductOperand::Transposed(Matrix::Codes(codes)) => Ok(Side::Codes(codes, true)),
        ProductOperand::Quantized(Matrix::Packed(_)) | ProductOperand::Transposed(Matrix::Packed(_)) => {
            Err(not_transposed())
        }
    }
}

/// A weight's codes row by row.
enum Unpacked<'a> {
    Whole(&'a Codes),
    Groups(Vec<Codes>),
}

impl<'a> Unpacked<'a> {
    fn new(matrix: &'a Matrix) -> Self {
        match matrix {
            Matrix::Codes(codes) => Self::Whole(codes),
            Matrix::Packed(groups) => Self::Groups(groups.iter().map(Codes::unpack).collect()),
        }
    }

    fn group(&self, group: usize, rows: usize, shape: ProductShape) -> Result<CodeMatrix<'_>> {
        match self {
            Self::Whole(codes) => group_of(codes, group, rows, shape),
            Self::Groups(groups) => groups.get(group).map(Codes::view).ok_or_else(no_group),
        }
    }
}

/// The rows of a group.
fn group_of(codes: &Codes, group: usize, rows: usize, shape: ProductShape) -> Result<CodeMatrix<'_>> {
    if shape.groups == 1 {
        return Ok(codes.view());
    }
    codes.view().rows(range(group, rows)).ok_or_else(no_group)
}

fn range(group: usize, len: usize) -> Range<usize> {
    group * len..(group + 1) * len
}

/// The values of a group of `rows` by `cols`.
fn slice(values: &[f32], group: usize, rows: usize, cols: usize) -> Result<&[f32]> {
    values.get(range(group, rows * cols)).ok_or_else(no_group)
}

/// The results of all groups, one after another, each with this number of elements.
fn per_group(
    groups: usize,
    elements: usize,
    mut compute: impl FnMut(usize, &mut [f32]) -> Result<()>,
) -> Result<Vec<f32>> {
    let mut results = kernels::zeroed(groups * elements);
    for (group, result) in results.chunks_exact_mut(elements.max(1)).enumerate() {
        compute(group, result)?;
    }
    Ok(results)
}

/// The gradient of a weight, group by group, in the memory of a tensor if there is one.
fn weights(
    to: Option<Tensor>,
    shape: ProductShape,
    mut compute: impl FnMut(usize, &mut [f32]) -> Result<()>,
) -> Result<Tensor> {
    let elements = shape.outputs * shape.inputs;
    let Some(to) = to.filter(|_| shape.dtype == DType::F32) else {
        return tensor(per_group(shape.groups, elements, compute)?, shape.w(), shape.dtype);
    };
    autograd::write(&to, |dw| {
        let groups = dw.chunks_exact_mut(elements.max(1)).enumerate();
        groups.into_iter().try_for_each(|(group, dw)| compute(group, dw))
    })?;
    Ok(to.reshape(shape.w())?)
}

fn no_group() -> Error {
    candle_core::Error::Msg("an operand of a product with other groups than the product".to_owned()).into()
}
