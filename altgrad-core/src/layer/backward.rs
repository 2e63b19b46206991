//! The backward pass of a quantized layer on the CPU.

use altgrad_kernels::{CodeMatrix, Conversion, FloatMatrix, Left};
use candle_core::{Shape, Tensor};

use super::fused::{self, Weight, matrix_dims};
use super::node::{Arguments, Gradients};
use super::product::{Operands, Pass};
use super::shared::Role;
use crate::Result;
use crate::quantizer::{Clip, Codes, Quantizer, Spare, transposed, with_floats};

/// What the forward pass leaves to the backward pass: of the weight nothing that would change with it.
pub(super) struct Backward {
    pub(super) pass: Pass,
    /// The input's codes, if it was quantized.
    pub(super) input: Option<Codes>,
    pub(super) codes: Weight,
    /// The codes of the weight's transpose along its rows, where they are needed and not those of the weight.
    pub(super) transposed_codes: Option<Codes>,
    pub(super) weight_shape: Shape,
    /// Where gradients stop.
    pub(super) input_clip: Clip,
    pub(super) weight_clip: Clip,
}

/// Codes of the transpose of a matrix.
struct Transposed {
    codes: Codes,
    /// Whether the codes are those of the matrix itself.
    as_view: bool,
}

impl Transposed {
    fn view(&self) -> CodeMatrix<'_> {
        if self.as_view { self.codes.view().transposed() } else { self.codes.view() }
    }
}

impl Backward {
    pub(super) fn gradients(&self, arguments: Arguments<'_>, dy: &Tensor) -> Result<Gradients> {
        let Arguments { x: input, w, bias } = arguments;
        let needs = [input.track_op(), w.is_some_and(Tensor::track_op)];
        let (x, dy) = (&input.detach(), &dy.detach().contiguous()?);
        let [dx, dw] = match &self.pass.recipe.gradients {
            None => self.in_full_precision(x, dy, needs)?,
            Some(quantizer) => {
                let converted = self.pass.shared.gradients.advance(quantizer, dy, self.pass.training)?;
                match self.quantized(x, dy, quantizer, &converted, needs)? {
                    Some(gradients) => gradients,
                    None => self.dequantized(x, dy, quantizer, converted, needs)?,
                }
            }
        };
        if dw.is_some() {
            // An optimizer is about to move the weight.
            self.pass.shared.kept.disable();
        }
        Ok(Gradients {
            x: dx.map(|dx| self.input_clip.stop(&dx)).transpose()?,
            w: dw.map(|dw| self.weight_clip.stop(&dw)).transpose()?,
            bias: fused::bias_gradient(bias, dy)?,
        })
    }

    /// From `dy` as it is.
    fn in_full_precision(&self, x: &Tensor, dy: &Tensor, [needs_x, needs_w]: [bool; 2]) -> Result<[Option<Tensor>; 2]> {
        let (tokens, outputs) = matrix_dims(dy);
        let dx = if needs_x { Some(fused::input_gradient_in_full_precision(x, dy, &self.codes)?) } else { None };
        let dw = match &self.input {
            _ if !needs_w => None,
            Some(codes) => Some(with_floats(dy, |dy| {
                let dy = Left::Floats(FloatMatrix::new(dy, tokens, outputs).transposed());
                fused::weight_gradient(&dy, codes.view().transposed(), &self.weight_shape, x.dtype())
            })??),
            None => Some(dy.reshape((tokens, outputs))?.t()?.matmul(&x.reshape(matrix_dims(x))?)?),
        };
        Ok([dx, dw])
    }

    /// From the codes of `dy`; `None` if there are no codes for one of the operands.
    fn quantized(
        &self,
        x: &Tensor,
        dy: &Tensor,
        quantizer: &Quantizer,
        (conversion, step): &(Conversion, u64),
        [needs_x, needs_w]: [bool; 2],
    ) -> Result<Option<[Option<Tensor>; 2]>> {
        let Pass { recipe, shared, .. } = &self.pass;
        let (weight_shape, dtype) = (&self.weight_shape, x.dtype());
        let rows = if needs_x || quantizer.granularity.is_symmetric() {
            let codes = Codes::encode(dy, conversion, Some(&shared.gradients.spare))?;
            let Some(codes) = codes else { return Ok(None) };
            Some(codes)
        } else {
            None
        };
        let dx = match &rows {
            Some(rows) if needs_x => {
                let weight = match &self.transposed_codes {
                    Some(codes) => Transposed { codes: codes.clone(), as_view: false },
                    None => Transposed { codes: self.codes.codes(), as_view: true },
                };
                Some(fused::input_gradient(&Left::Codes(rows.view()), weight.view(), x.shape(), dtype)?)
            }
            _ => None,
        };
        if !needs_w {
            return Ok(Some([dx, None]));
        }
        let columns = transpose(|| rows, dy, (quantizer, &shared.gradients, *step))?;
        let Some(columns) = columns else { return Ok(None) };
        let dw = if let Some(activations) = &recipe.activations {
            let role = (activations, &shared.activations, self.pass.input_step);
            let Some(input) = transpose(|| self.input.clone(), x, role)? else { return Ok(None) };
            fused::weight_gradient(&Left::Codes(columns.view()), input.view(), weight_shape, dtype)?
        } else {
            let (tokens, inputs) = matrix_dims(x);
            with_floats(x, |x| {
                let x = FloatMatrix::new(x, tokens, inputs).transposed();
                fused::weight_gradient_of_floats(columns.view(), x, weight_shape, dtype)
            })??
        };
        Ok(Some([dx, Some(dw)]))
    }

    /// As candle's operations do it, which need no codes.
    fn dequantized(
        &self,
        x: &Tensor,
        dy: &Tensor,
        quantizer: &Quantizer,
        converted: (Conversion, u64),
        needs: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let dtype = x.dtype();
        let input = &x.reshape(matrix_dims(x))?;
        let multiplied = match &self.input {
            Some(codes) => codes.dequantize(input.shape(), dtype)?,
            None => input.clone(),
        };
        let w = &self.codes.codes().dequantize(&self.weight_shape, dtype)?;
        let (outputs, inputs) = self.weight_shape.dims2()?;
        let transposed_w = self.transposed_codes.as_ref();
        let transposed_w = transposed_w.map(|codes| codes.dequantize(&(inputs, outputs).into(), dtype)).transpose()?;
        let operands = Operands { x: &multiplied, w, input, transposed_w: transposed_w.as_ref() };
        let dy = dy.reshape(matrix_dims(dy))?;
        let [dx, dw] = self.pass.gradients(operands, &dy, quantizer, converted, needs)?;
        Ok([dx.map(|dx| dx.reshape(x.shape())).transpose()?, dw])
    }
}

/// Codes of the transpose of a matrix, quantized along its rows: those that there are already where transposition changes
/// nothing, else from full precision. `None` if it holds NaN and the format does not.
fn transpose(
    codes: impl FnOnce() -> Option<Codes>,
    full: &Tensor,
    (quantizer, role, step): (&Quantizer, &Role, u64),
) -> Result<Option<Transposed>> {
    if quantizer.granularity.is_symmetric() {
        return Ok(codes().map(|codes| Transposed { codes, as_view: true }));
    }
    let codes = transposed_codes(full, quantizer, role, step, Some(&role.transposed_spare))?;
    Ok(codes.map(|codes| Transposed { codes, as_view: false }))
}

/// Codes of the transpose of a matrix, quantized along its rows from full precision. `None` if it holds NaN and the format
/// does not.
pub(super) fn transposed_codes(
    full: &Tensor,
    quantizer: &Quantizer,
    role: &Role,
    step: u64,
    spare: Option<&Spare>,
) -> Result<Option<Codes>> {
    let full = transposed(full, matrix_dims(full))?;
    Codes::encode(&full, &role.transposed(quantizer, &full, step)?, spare)
}
