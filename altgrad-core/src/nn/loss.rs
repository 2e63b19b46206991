//! The functions of [`candle_nn::loss`], of which the one that language models train with takes one pass over memory
//! each way.

use altgrad_kernels::transformer as kernels;
use altgrad_kernels::zeroed;
use candle_core::{DType, Result, Tensor};
pub use candle_nn::loss::*;

use super::check_shape;
use crate::autograd::{Pass, attach, computed, floats, tensor};
use crate::quantizer::has_kernels;

/// The mean cross-entropy, in nats, of logits `(rows, classes)` and the numbers of the right classes `(rows,)`, as
/// [`candle_nn::loss::cross_entropy`].
///
/// A target whose logit is -∞ costs ∞. The mean of no row is NaN.
///
/// # Errors
///
/// Tensors whose shapes do not fit; targets that are not integers, or not below the number of classes.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    check_shape("the list of targets", targets, &[rows])?;
    if !has_kernels(logits.dtype(), logits.device()) {
        return candle_nn::loss::cross_entropy(logits, targets);
    }
    let targets = indexes(targets, classes)?;
    let (mean, log_sums) = kernels::cross_entropy(&floats(logits)?, classes, &targets);
    attach(computed(vec![mean], logits.dtype())?, (), &[logits], move |pass: Pass<'_>| {
        let logits = pass.arguments[0];
        let dy = pass.dy.to_dtype(DType::F32)?.to_scalar::<f32>()?;
        let mut to = zeroed(logits.elem_count());
        kernels::cross_entropy_gradient(&floats(logits)?, classes, &targets, &log_sums, dy, &mut to);
        Ok([Some(tensor(to, logits.shape(), logits.dtype())?), None, None])
    })
}

/// The numbers of classes.
fn indexes(targets: &Tensor, classes: usize) -> Result<Vec<u32>> {
    if !targets.dtype().is_int() {
        candle_core::bail!("targets are numbers of classes, which are integers, but they are {:?}", targets.dtype());
    }
    let targets: Vec<i64> = targets.to_dtype(DType::I64)?.to_vec1()?;
    let index = |(row, target): (usize, &i64)| match u32::try_from(*target) {
        Ok(index) if (index as usize) < classes => Ok(index),
        _ => candle_core::bail!("target {target} of row {row} is not one of {classes} classes"),
    };
    targets.iter().enumerate().map(index).collect()
}
