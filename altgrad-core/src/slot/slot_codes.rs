//! How a `VarBuilder` hands a quantized weight to a slot.
//!
//! A slot is built by candle's own `VarBuilder`, which knows only tensors and may rename them on the way
//! (`rename_f`). So a slot asks once, for its weight, under the weight's own name and shape. The initialization that
//! it asks for marks it as a slot: it equals that of `candle_nn`'s layers, but is expressed differently. A backend
//! that has codes answers with one tensor of bytes that holds a description, scales and codes; a backend without
//! codes gives the weight. Every error names the layer.

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::init::{DEFAULT_KAIMING_NORMAL, FanInOut, NonLinearity, NormalOrUniform};
use candle_nn::{Init, VarBuilder};
use serde::{Deserialize, Serialize};

use super::{Frozen, Operation, Slot};
use crate::quantizer::{Fp8Tensor, Granularity, Quantizer, Ste};
use crate::{Error, Fp8, Result, TensorError};

/// The initialization by which a slot whose layer is a product asks for its weight: [`DEFAULT_KAIMING_NORMAL`], whose
/// gain is that of a `ReLU`, but with the gain as a number.
pub(super) const OF_PRODUCTS: Init = Init::Kaiming {
    dist: NormalOrUniform::Normal,
    fan: FanInOut::FanIn,
    non_linearity: NonLinearity::ExplicitGain(std::f64::consts::SQRT_2),
};

/// Whether an initialization is one by which slots ask.
pub(crate) fn is_of_slots(init: Init) -> bool {
    use std::f64::consts::SQRT_2;
    match init {
        Init::Kaiming { dist: NormalOrUniform::Normal, fan: FanInOut::FanIn, non_linearity } => {
            matches!(non_linearity, NonLinearity::ExplicitGain(SQRT_2))
        }
        // As numbers the two zeros are equal.
        Init::Randn { mean, stdev: 1.0 } => mean.to_bits() == f64::to_bits(-0.0),
        _ => false,
    }
}

/// The same initialization as `candle_nn` expresses it, for backends that do not know about slots.
pub(crate) fn of_candle(init: Init) -> Init {
    match init {
        _ if !is_of_slots(init) => init,
        Init::Randn { stdev, .. } => Init::Randn { mean: 0.0, stdev },
        _ => DEFAULT_KAIMING_NORMAL,
    }
}

/// What a slot has to know about a quantized weight besides its codes and scales.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SlotCodes {
    pub(crate) format: Fp8,
    pub(crate) granularity: Granularity,
    pub(crate) activations: Option<Quantizer>,
}

/// Number of bytes of the length that precedes the description.
const PREFIX: usize = size_of::<u32>();

impl SlotCodes {
    /// The one tensor: the length of the description, the description as JSON, the scales as `f32`, and the codes,
    /// which `read` writes to where they belong.
    pub(crate) fn to_tensor(
        &self,
        scales: &[f32],
        codes: usize,
        read: impl FnOnce(&mut [u8]) -> Result<()>,
        device: &Device,
    ) -> Result<Tensor> {
        let description = serde_json::to_vec(self).map_err(candle_core::Error::wrap)?;
        let before = (description.len() as u32).to_le_bytes().into_iter().chain(description);
        let before: Vec<u8> = before.chain(scales.iter().flat_map(|scale| scale.to_le_bytes())).collect();
        let length = before.len() + codes;
        let mut bytes = altgrad_kernels::zeroed(length);
        let (start, rest) = bytes.split_at_mut(before.len());
        start.copy_from_slice(&before);
        read(rest)?;
        Ok(Tensor::from_vec(bytes, length, device)?)
    }

    /// The weight of `dims` in a tensor from [`to_tensor`](Self::to_tensor), and how the layer's input is quantized.
    fn from_tensor(bytes: &Tensor, dims: &[usize], dtype: DType) -> Result<(Fp8Tensor, Option<Quantizer>)> {
        let (device, all) = (bytes.device(), bytes.elem_count());
        let damaged = || {
            Error::Tensor(TensorError::ShapeMismatch {
                what: "the weight as codes",
                expected: format!("the codes of a weight of shape {dims:?}"),
                actual: bytes.dims().to_vec(),
            })
        };
        let part = |start: usize, length: usize| -> Result<Vec<u8>> {
            let end = start.checked_add(length).filter(|end| *end <= all);
            end.ok_or_else(damaged)?;
            Ok(bytes.narrow(0, start, length)?.to_device(&Device::Cpu)?.to_vec1()?)
        };
        let length = part(0, PREFIX)?.try_into().map_or(0, u32::from_le_bytes) as usize;
        let Self { format, granularity, activations } =
            serde_json::from_slice(&part(PREFIX, length)?).map_err(candle_core::Error::wrap)?;
        let (count, codes) = (granularity.blocks(dims).count(), dims.iter().product());
        let scales = part(PREFIX + length, count * size_of::<f32>())?;
        let scales: Vec<f32> = scales.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let start = PREFIX + length + size_of_val(&*scales);
        if start + codes != all {
            return Err(damaged());
        }
        let codes = bytes.narrow(0, start, codes)?.reshape(dims)?;
        let scales = Tensor::from_vec(scales, granularity.scale_dims(dims), device)?;
        Ok((Fp8Tensor::from_parts(codes, scales, granularity, format, dtype)?, activations))
    }
}

/// The slot of a layer with this configuration: a weight of these dimensions from `vb`, and a bias with this number
/// of elements, if any.
pub(super) fn slot<O: Operation>(
    config: O::Config,
    weight: impl Into<Shape>,
    init: Init,
    bias: Option<(usize, Init)>,
    vb: &VarBuilder<'_>,
) -> Result<Slot<O>> {
    let dims = weight.into().into_dims();
    let layer = || {
        let weight = vb.get_with_hints(dims.as_slice(), "weight", init)?;
        let bias = bias.map(|(outputs, init)| vb.get_with_hints(outputs, "bias", init)).transpose()?;
        if weight.dtype() != DType::U8 || vb.dtype() == DType::U8 {
            return Ok(Slot::from(O::from_parts(config, weight, bias)));
        }
        let (weight, activations) = SlotCodes::from_tensor(&weight, &dims, vb.dtype())?;
        let layer = Frozen::from_codes(config, &weight, bias)?.at(Some(vb.prefix().into()));
        Ok(Slot::from(match activations {
            Some(activations) => layer.with_activations(activations, Ste::default())?,
            None => layer,
        }))
    };
    layer().map_err(|error: Error| error.at(&vb.prefix()))
}

impl<O: Operation> Slot<O> {
    /// The layer with this configuration from `vb`, whose weight has these dimensions and whose bias, if it has one,
    /// this number of elements. If `vb` is that of an [FP8 checkpoint](crate::checkpoint::var_builder), a quantized
    /// weight makes the slot a frozen layer. A new weight is initialized like that of a linear layer, a new bias with
    /// zeros.
    ///
    /// The constructors of [`nn`](crate::nn) do the same with the dimensions and initializations of `candle_nn`.
    ///
    /// # Errors
    ///
    /// Fails as candle's constructor does, for a tensor that is missing or has another shape, and for an invalid
    /// quantized weight.
    #[allow(clippy::needless_pass_by_value, reason = "layers take their builder by value")]
    pub fn from_var_builder(
        config: O::Config,
        weight: impl Into<Shape>,
        bias: Option<usize>,
        vb: VarBuilder<'_>,
    ) -> candle_core::Result<Self> {
        let bias = bias.map(|elements| (elements, candle_nn::init::ZERO));
        Ok(slot(config, weight, OF_PRODUCTS, bias, &vb)?)
    }
}
