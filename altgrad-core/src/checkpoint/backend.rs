//! A checkpoint as the backend of a `VarBuilder`.

use std::path::Path;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::reader::Checkpoint;
use crate::Result;
use crate::slot::slot_codes::{SlotCodes, is_of_slots};

/// A `VarBuilder` over an FP8 checkpoint, given as a folder, an index, or files.
///
/// Any candle model gets its weights dequantized, in `dtype`. A model that asks through [`linear`](crate::linear()),
/// [`linear_no_bias`](crate::linear_no_bias) or [`linear_b`](crate::linear_b) gets a slot that holds a
/// [`FrozenLinear`](crate::FrozenLinear) with the codes of the checkpoint, which quantizes its input if the checkpoint
/// says so. Short for [`Checkpoint::open`] and [`Checkpoint::var_builder`].
///
/// ```no_run
/// use altgrad::{Linear, checkpoint, linear};
/// use candle_core::{DType, Device};
///
/// let vb = checkpoint::var_builder(&["Qwen3-8B-FP8"], DType::BF16, &Device::Cpu)?;
/// let up_proj = linear(4096, 12288, vb.pp("model.layers.0.mlp.up_proj"))?;
/// assert!(matches!(up_proj, Linear::Frozen(_)));
/// # Ok::<(), altgrad::Error>(())
/// ```
///
/// # Errors
///
/// As [`Checkpoint::open`]; a fault of one tensor is an error only when a model asks for that tensor.
pub fn var_builder<P: AsRef<Path>>(paths: &[P], dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
    Ok(Checkpoint::open(paths)?.var_builder(dtype, device))
}

impl Checkpoint {
    /// A `VarBuilder` over the checkpoint; see [`var_builder`].
    #[must_use]
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(CheckpointBackend(self.clone())), dtype, device.clone())
    }
}

/// Gives models dequantized tensors, and slots the codes and scales of quantized matrices.
struct CheckpointBackend(Checkpoint);

impl CheckpointBackend {
    /// A quantized weight in the form that a slot takes; `None` if the tensor is anything else.
    fn for_slot(&self, name: &str, device: &Device) -> Result<Option<Tensor>> {
        let Some(stored) = self.0.stored(name)?.filter(|stored| stored.is_of_one_layer()) else { return Ok(None) };
        let shards = self.0.shards();
        let (format, granularity) = (stored.format, stored.granularity);
        let slot_codes = SlotCodes { format, granularity, activations: self.0.activations_of(stored)? };
        let read = |codes: &mut [u8]| shards.read_into(&stored.codes, codes);
        let codes = stored.shape.iter().product();
        slot_codes.to_tensor(&stored.scale_values(shards)?, codes, read, device).map(Some)
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
        // A tensor that cannot be read counts as present, so that asking for it reports why.
        self.0.dims(name).is_err() || matches!(self.0.dims(name), Ok(Some(_)))
    }
}
