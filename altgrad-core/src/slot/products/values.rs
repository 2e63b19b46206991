//! Products of fake-quantized values, by candle's operations on any device.

use altgrad_kernels::Conversion;
use candle_core::{DType, Tensor};

use super::{ProductOperand, ProductShape, Products};
use crate::Result;
use crate::autograd::Computed;
use crate::quantizer::{
    CachedTranspose, CodeBuffer, FixedWeight, Operand, Quantizer, Ste, fake_quantize_with, transposed,
};
use crate::slot::Compute;

/// Products of fake-quantized values.
pub(super) struct Values;

impl Products for Values {
    type Matrix = Tensor;

    fn quantize(x: &Tensor, conversion: &Conversion, _: usize, _: Option<&CodeBuffer>) -> Result<Option<Tensor>> {
        fake_quantize_with(&x.detach(), conversion.clone(), Ste::PassThrough).map(Some)
    }

    fn quantize_columns(
        x: &Tensor,
        quantizer: &Quantizer,
        operand: &Operand,
        step: u64,
        groups: usize,
        _: Option<&CodeBuffer>,
    ) -> Result<Option<Tensor>> {
        let x = transposed(x, groups)?;
        let conversion = operand.transposed(quantizer, &x, step)?;
        fake_quantize_with(&x, conversion, Ste::PassThrough).map(Some)
    }

    fn fixed(codes: &FixedWeight, _: ProductShape) -> Result<Option<Tensor>> {
        codes.dequantize().map(Some)
    }

    fn fixed_transpose(codes: &CachedTranspose, shape: (usize, usize), dtype: DType) -> Result<Option<Tensor>> {
        match codes {
            CachedTranspose::Codes(codes) => codes.dequantize(&shape.into(), dtype).map(Some),
            CachedTranspose::Tensor(codes) => codes.dequantize().map(Some),
        }
    }

    fn dequantize(matrix: &Tensor, _: (usize, usize), _: DType) -> Result<Tensor> {
        Ok(matrix.clone())
    }

    fn forward(
        x: ProductOperand<'_, Tensor>,
        w: &Tensor,
        bias: Option<&Tensor>,
        _: Compute,
        shape: ProductShape,
    ) -> Result<Computed> {
        let w = grouped(w, shape.groups)?;
        let y = grouped(x.values(shape)?, shape.groups)?.matmul(&transpose(&w)?)?;
        let y = match bias {
            Some(bias) if shape.groups == 1 => y.broadcast_add(&bias.detach())?,
            Some(bias) => y.broadcast_add(&bias.detach().reshape((shape.groups, 1, shape.outputs))?)?,
            None => y,
        };
        Ok(Computed::Tensor(flat(&y, shape.y())?))
    }

    fn input_gradient(
        dy: ProductOperand<'_, Tensor>,
        w: ProductOperand<'_, Tensor>,
        shape: ProductShape,
    ) -> Result<Tensor> {
        let dy = grouped(dy.values(shape)?, shape.groups)?;
        let dx = match w {
            ProductOperand::Full(w) | ProductOperand::Quantized(w) => dy.matmul(&grouped(w, shape.groups)?)?,
            ProductOperand::Transposed(w) => dy.matmul(&transpose(&grouped(w, shape.groups)?)?)?,
        };
        flat(&dx, shape.x())
    }

    fn weight_gradient(
        dy: ProductOperand<'_, Tensor>,
        x: ProductOperand<'_, Tensor>,
        _: Option<Tensor>,
        shape: ProductShape,
    ) -> Result<Tensor> {
        let columns = match dy {
            ProductOperand::Full(dy) | ProductOperand::Quantized(dy) => transpose(&grouped(dy, shape.groups)?)?,
            ProductOperand::Transposed(dy) => grouped(dy, shape.groups)?,
        };
        let dw = match x {
            ProductOperand::Full(x) | ProductOperand::Quantized(x) => columns.matmul(&grouped(x, shape.groups)?)?,
            ProductOperand::Transposed(x) => columns.matmul(&transpose(&grouped(x, shape.groups)?)?)?,
        };
        flat(&dw, shape.w())
    }
}

impl<'a> ProductOperand<'a, Tensor> {
    /// The values of an operand that is not transposed.
    fn values(self, _: ProductShape) -> Result<&'a Tensor> {
        match self {
            Self::Full(values) | Self::Quantized(values) => Ok(values),
            Self::Transposed(_) => Err(super::not_transposed()),
        }
    }
}

/// A matrix as a batch of its groups of rows, or itself if it is one group.
fn grouped(matrix: &Tensor, groups: usize) -> Result<Tensor> {
    if groups == 1 {
        return Ok(matrix.clone());
    }
    let (rows, cols) = matrix.dims2()?;
    Ok(matrix.reshape((groups, rows / groups.max(1), cols))?)
}

/// The transposes of a matrix, or of a batch.
fn transpose(matrices: &Tensor) -> Result<Tensor> {
    let transposed = matrices.t()?;
    // candle multiplies a transposed view of one matrix, but needs contiguous batches.
    if transposed.rank() == 2 { Ok(transposed) } else { Ok(transposed.contiguous()?) }
}

/// A batch of matrices, stacked into one.
fn flat(matrices: &Tensor, shape: (usize, usize)) -> Result<Tensor> {
    if matrices.rank() == 2 { Ok(matrices.clone()) } else { Ok(matrices.reshape(shape)?) }
}
