//! The product of a linear layer whose backward pass computes with quantized gradients, in candle's operations.

use std::sync::Arc;

use altgrad_kernels::Conversion;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, MetalStorage, Shape, Tensor};

use super::shared::{Role, Shared};
use super::{LayerPath, Recipe, locate};
use crate::Result;
use crate::quantizer::{Quantizer, Ste, fake_quantize_with};

/// What the backward pass of a step needs to know beside its operands.
pub(super) struct Pass {
    pub(super) recipe: Recipe,
    /// That of the input, for the random draws of its transposed copy.
    pub(super) input_step: u64,
    pub(super) training: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) path: LayerPath,
}

/// The operands of the forward pass, `(tokens, inputs)` and `(outputs, inputs)`.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    /// As they were multiplied.
    pub(super) x: &'a Tensor,
    pub(super) w: &'a Tensor,
    /// The input in full precision, to be quantized along its other dimension.
    pub(super) input: &'a Tensor,
    /// The transpose of the weight, quantized along its rows; `None` where that is the transpose of `w`.
    pub(super) transposed_w: Option<&'a Tensor>,
}

impl Pass {
    /// The gradients of the two operands, of those that need one, from that of the result, which is quantized by
    /// `conversion` in `step`.
    pub(super) fn gradients(
        &self,
        operands: Operands<'_>,
        dy: &Tensor,
        quantizer: &Quantizer,
        (conversion, step): (Conversion, u64),
        [needs_x, needs_w]: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let Self { recipe, shared, .. } = self;
        let Operands { x, w, input, transposed_w } = operands;
        let rows = if needs_x || quantizer.granularity.is_symmetric() {
            fake_quantize_with(dy, conversion, Ste::PassThrough)?
        } else {
            dy.clone()
        };
        let dx = if needs_x {
            Some(match transposed_w {
                Some(weight) => rows.matmul(&weight.t()?)?,
                None => rows.matmul(w)?,
            })
        } else {
            None
        };
        let dw = if needs_w {
            let columns = match transposed(quantizer, &shared.gradients, dy, step)? {
                Some(columns) => columns,
                None => rows.t()?,
            };
            let activations = recipe.activations.as_ref();
            let of_input = |quantizer| transposed(quantizer, &shared.activations, input, self.input_step);
            let input = match activations.map(of_input).transpose()?.flatten() {
                Some(input) => input,
                None => x.t()?,
            };
            Some(columns.matmul(&input.t()?)?)
        } else {
            None
        };
        Ok([dx, dw])
    }
}

/// The product of a pass with quantized gradients.
pub(super) struct Product {
    pub(super) pass: Pass,
    pub(super) gradients: Quantizer,
    /// The input in full precision.
    pub(super) input: Tensor,
    /// As in [`Operands`].
    pub(super) transposed_w: Option<Tensor>,
}

impl Product {
    /// `x · wᵀ` of `x` `(tokens, inputs)` and `w` `(outputs, inputs)`, both quantized as the recipe says.
    pub(super) fn apply(self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        Ok(x.contiguous()?.apply_op2(&w.contiguous()?, self)?)
    }

    fn gradients(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let needs = [x, w].map(Tensor::track_op);
        let (x, w, dy) = (&x.detach(), &w.detach(), dy.detach().contiguous()?);
        let Self { pass, gradients, input, transposed_w } = self;
        let conversion = pass.shared.gradients.advance(gradients, &dy, pass.training)?;
        let operands = Operands { x, w, input, transposed_w: transposed_w.as_ref() };
        pass.gradients(operands, &dy, gradients, conversion, needs)
    }
}

/// The transpose of an operand, quantized along its rows from full precision; `None` where that is the transpose of the
/// tensor of the forward pass.
pub(super) fn transposed(quantizer: &Quantizer, role: &Role, full: &Tensor, step: u64) -> Result<Option<Tensor>> {
    if quantizer.granularity.is_symmetric() {
        return Ok(None);
    }
    let transposed = full.detach().t()?.contiguous()?;
    let conversion = role.transposed(quantizer, &transposed, step)?;
    fake_quantize_with(&transposed, conversion, Ste::PassThrough).map(Some)
}

/// The product on any device, from its storages.
fn multiply<S: BackendStorage>(x: (&S, &Layout), w: (&S, &Layout)) -> candle_core::Result<(S, Shape)> {
    let ((tokens, inputs), (outputs, _)) = (x.1.shape().dims2()?, w.1.shape().dims2()?);
    let transposed = w.1.transpose(0, 1)?;
    let product = x.0.matmul(w.0, (1, tokens, outputs, inputs), x.1, &transposed)?;
    Ok((product, Shape::from((tokens, outputs))))
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "fp8_linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        multiply((x, x_layout), (w, w_layout))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        multiply((x, x_layout), (w, w_layout))
    }

    fn metal_fwd(
        &self,
        x: &MetalStorage,
        x_layout: &Layout,
        w: &MetalStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(MetalStorage, Shape)> {
        multiply((x, x_layout), (w, w_layout))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dw] = locate(self.gradients(x, w, dy), &self.pass.path)?;
        Ok((dx, dw))
    }
}
