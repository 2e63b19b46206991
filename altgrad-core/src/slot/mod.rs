//! Slots: the layers that a model declares and altgrad replaces, of any kind.
//!
//! This folder has what the kinds have in common: [`Slot`] and what it can hold, [`Full`], [`Quantized`] and
//! [`Frozen`]. Each kind is an [`Operation`] in a subfolder.

mod any;
mod compute;
mod conv;
mod embedding;
mod frozen;
mod full;
mod linear;
mod lookup;
mod lowering;
mod mode;
mod operands;
mod operation;
mod presets;
mod products;
mod quantization;
mod quantized;
mod recipe;
#[allow(clippy::module_inception, reason = "the module is named after its main item")]
mod slot;
pub(crate) mod slot_codes;
mod text;

pub use any::AnySlot;
pub(crate) use any::WeightId;
pub use compute::Compute;
pub use conv::{Conv1d, Conv2d, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias};
pub use embedding::{Embedding, embedding};
pub use frozen::Frozen;
pub(crate) use frozen::FrozenCodes;
pub use full::Full;
pub use linear::{FrozenLinear, FullLinear, Linear, QuantizedLinear, linear, linear_b, linear_no_bias};
pub use lowering::Lowering;
pub use operation::{Evaluation, Operation};
pub(crate) use quantization::Quantization;
pub use quantized::Quantized;
pub use recipe::{OrFull, Recipe};
pub use slot::{Slot, SlotState};

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result, TensorError};

/// The dotted path under which surgery found a layer, for its messages; a layer made by hand has none.
pub(crate) type LayerPath = Option<Arc<str>>;

/// Checks that a tensor is of the weight's dtype and on its device.
fn check_kind(what: &'static str, tensor: &Tensor, dtype: DType, device: &Device) -> Result<()> {
    if tensor.dtype() != dtype {
        return Err(Error::Tensor(TensorError::DTypeMismatch { what, expected: dtype, actual: tensor.dtype() }));
    }
    if !tensor.device().same_device(device) {
        let [expected, actual] = [device, tensor.device()].map(Device::location);
        return Err(Error::Tensor(TensorError::DeviceMismatch { what, expected, actual }));
    }
    Ok(())
}

/// Adds to an error the path of the layer that it came from.
fn locate<T>(result: Result<T>, path: &LayerPath) -> Result<T> {
    match path {
        Some(path) => result.map_err(|error| error.at(path)),
        None => result,
    }
}
