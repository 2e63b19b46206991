//! A checkpoint as what a `VarBuilder` asks.

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use super::reader::Checkpoint;
use crate::layer::handed_out::{HandedOut, Part};

/// Hands out dequantized tensors, and to those who ask for them by their special names the parts of quantized ones.
pub(super) struct Backend(pub(super) Checkpoint);

impl Backend {
    /// One part of a quantized matrix.
    fn part(&self, weight: &str, part: Part, device: &Device) -> crate::Result<Option<Tensor>> {
        let Some(stored) = self.0.stored(weight).filter(|stored| stored.shape.len() == 2) else { return Ok(None) };
        let shards = self.0.shards();
        Ok(Some(match part {
            Part::Description => {
                let (format, granularity) = (stored.format, stored.granularity);
                HandedOut { format, granularity, activations: self.0.activations_of(stored)? }.to_tensor(device)?
            }
            Part::Codes => stored.codes(shards, device)?,
            Part::Scales => stored.scales(shards, device)?,
        }))
    }
}

impl SimpleBackend for Backend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        match self.0.dims(name) {
            Some(dims) if dims == shape.dims() => self.get_unchecked(name, dtype, device),
            Some(dims) => Err(candle_core::Error::UnexpectedShape {
                msg: format!("shape mismatch for {name} in {}", self.0.shards().file_of(name).display()),
                expected: shape,
                got: Shape::from(dims),
            }),
            None => Err(self.0.not_there(name).into()),
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        if let Some((weight, part)) = Part::split(name)
            && let Some(tensor) = self.part(weight, part, device)?
        {
            return Ok(tensor);
        }
        match self.0.dims(name) {
            Some(_) => Ok(self.0.tensor(name, dtype, device)?),
            None => Err(self.0.not_there(name).into()),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        match Part::split(name) {
            Some((weight, _)) => self.0.stored(weight).is_some_and(|stored| stored.shape.len() == 2),
            None => self.0.dims(name).is_some(),
        }
    }
}
