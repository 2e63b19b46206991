//! Linear layers: [`Linear`], the slot that a model declares, and what it can hold.

mod backward;
mod cache;
mod calibration;
mod compute;
mod frozen;
mod full;
mod fused;
pub(crate) mod handed_out;
mod mode;
mod named;
mod node;
mod product;
mod quantized;
mod recipe;
mod shared;
mod slot;
mod text;
mod weight;

pub(crate) use calibration::Calibration;
pub use compute::Compute;
pub use frozen::FrozenLinear;
pub use full::FullLinear;
pub use named::ParseRecipeError;
pub use quantized::QuantizedLinear;
pub use recipe::{OrFull, Recipe};
pub(crate) use shared::Role;
pub use slot::{Linear, linear, linear_b, linear_no_bias};

use std::sync::Arc;

use candle_core::{DType, Device, Module, Tensor};

use crate::{Error, Result};

/// The dotted path under which surgery found a layer, for its messages; a layer made by hand has none.
pub(crate) type LayerPath = Option<Arc<str>>;

/// Checks that `x` can be multiplied with a weight, with a word on what is wrong if it cannot.
fn check_input(x: &Tensor, weight: &[usize], dtype: DType, device: &Device) -> Result<()> {
    check_kind("the input", x, dtype, device)?;
    let inputs = weight.last().copied().unwrap_or_default();
    if x.rank() < 2 || x.dims().last() != Some(&inputs) {
        let expected = format!("(…, {inputs}) with at least two dimensions");
        return Err(Error::ShapeMismatch { what: "the input", expected, actual: x.dims().to_vec() });
    }
    Ok(())
}

/// `x · weightᵀ + bias` for an `x` of `(…, inputs)`.
///
/// Candle's own layer multiplies batches without making them contiguous, and its matrix product (0.11) then takes strides
/// for those of one matrix that are not: wrong results for a transposed input of three dimensions, an error for more.
fn forward(x: &Tensor, linear: &candle_nn::Linear) -> Result<Tensor> {
    if x.rank() <= 2 {
        return Ok(linear.forward(x)?);
    }
    let (outputs, inputs) = linear.weight().dims2()?;
    let (dims, tokens) = output_dims(x, outputs);
    Ok(linear.forward(&x.contiguous()?.reshape((tokens, inputs))?)?.reshape(dims)?)
}

/// The dimensions of the output for an input of `(…, inputs)`, and the number of rows of both.
fn output_dims(x: &Tensor, outputs: usize) -> (Vec<usize>, usize) {
    let mut dims = x.dims().to_vec();
    dims.pop();
    let tokens = dims.iter().product();
    dims.push(outputs);
    (dims, tokens)
}

/// Checks that a tensor is of the weight's dtype and on its device.
fn check_kind(what: &'static str, tensor: &Tensor, dtype: DType, device: &Device) -> Result<()> {
    if tensor.dtype() != dtype {
        return Err(Error::DTypeMismatch { what, expected: dtype, actual: tensor.dtype() });
    }
    if !tensor.device().same_device(device) {
        let [expected, actual] = [device, tensor.device()].map(Device::location);
        return Err(Error::DeviceMismatch { what, expected, actual });
    }
    Ok(())
}

/// Says of an error which layer it came from.
fn locate<T>(result: Result<T>, path: &LayerPath) -> Result<T> {
    match path {
        Some(path) => result.map_err(|error| error.at(path)),
        None => result,
    }
}

/// Checks that the tensors make a linear layer.
fn check_parts(weight: &[usize], dtype: DType, device: &Device, bias: Option<&Tensor>) -> Result<()> {
    let [outputs, _] = *weight else {
        let expected = "two dimensions, (outputs, inputs)".to_owned();
        return Err(Error::ShapeMismatch { what: "the weight", expected, actual: weight.to_vec() });
    };
    match bias {
        Some(bias) if bias.dims() != [outputs] => Err(Error::ShapeMismatch {
            what: "the bias",
            expected: format!("[{outputs}], one value an output"),
            actual: bias.dims().to_vec(),
        }),
        Some(bias) => check_kind("the bias", bias, dtype, device),
        None => Ok(()),
    }
}
