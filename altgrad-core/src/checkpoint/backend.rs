//! A checkpoint as what a `VarBuilder` asks.

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use super::reader::Checkpoint;
use crate::slot::slot_codes::{SlotCodes, is_of_slots};

/// Hands out dequantized tensors, and to slots the codes and scales of quantized matrices.
pub(super) struct CheckpointBackend(pub(super) Checkpoint);

impl CheckpointBackend {
    /// A quantized matrix as a slot takes it; `None` if the tensor is anything else.
    fn for_slot(&self, name: &str, device: &Device) -> crate::Result<Option<Tensor>> {
        let Some(stored) = self.0.stored(name)?.filter(|stored| stored.is_of_one_layer()) else { return Ok(None) };
        let shards = self.0.shards();
        let (format, granularity) = (stored.format, stored.granularity);
        let slot_codes = SlotCodes { format, granularity, activations: self.0.activations_of(stored)? };
        slot_codes.to_tensor(&stored.scale_values(shards)?, &shards.read(&stored.codes)?, device).map(Some)
    }
}

impl SimpleBackend for CheckpointBackend {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        match self.0.dims(name)? {
            Some(dims) if dims == shape.dims() => {}
            Some(dims) => {
                return Err(candle_core::Error::UnexpectedShape {
                    msg: format!("shape mismatch for {name} in {}", self.0.shards().file_of(name).display()),
                    expected: shape,
                    got: Shape::from(dims),
                });
            }
            None => return Err(self.0.not_there(name).into()),
        }
        if is_of_slots(init)
            && dtype.is_float()
            && let Some(codes) = self.for_slot(name, device)?
        {
            return Ok(codes);
        }
        self.get_unchecked(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        match self.0.dims(name)? {
            Some(_) => Ok(self.0.tensor(name, dtype, device)?),
            None => Err(self.0.not_there(name).into()),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        // What cannot be read is there all the same, so that asking for it says why.
        self.0.dims(name).is_err() || matches!(self.0.dims(name), Ok(Some(_)))
    }
}
