//! How a `VarBuilder` hands a quantized weight to a slot: as tensors under names that no model asks for.
//!
//! A slot is built by candle's own `VarBuilder`, which knows tensors and nothing else. A backend that has codes answers to
//! three more names below that of a weight; one that has none is asked in vain, and the slot gets its weight as ever.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::FrozenLinear;
use crate::format::Fp8;
use crate::quantizer::{Fp8Tensor, Granularity, Quantizer, Ste};
use crate::{Error, Result};

/// A part of a quantized weight.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// A [`HandedOut`] as JSON, `U8`.
    Description,
    /// `U8`, in the shape of the weight.
    Codes,
    /// `F32`, as [`Fp8Tensor::from_parts`] wants them.
    Scales,
}

/// What a slot has to know of a quantized weight besides its codes and scales.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedOut {
    pub(crate) format: Fp8,
    pub(crate) granularity: Granularity,
    pub(crate) activations: Option<Quantizer>,
}

impl Part {
    const ALL: [Self; 3] = [Self::Description, Self::Codes, Self::Scales];

    /// What follows the name of the weight.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Description => "::altgrad::description",
            Self::Codes => "::altgrad::codes",
            Self::Scales => "::altgrad::scales",
        }
    }

    /// The weight and the part that a name asks for, if it is that of one.
    pub(crate) fn split(name: &str) -> Option<(&str, Self)> {
        Self::ALL.into_iter().find_map(|part| Some((name.strip_suffix(part.suffix())?, part)))
    }
}

impl HandedOut {
    /// The description as the tensor that is handed out.
    pub(crate) fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let text = serde_json::to_vec(self).map_err(candle_core::Error::wrap)?;
        Ok(Tensor::from_slice(&text, text.len(), device)?)
    }
}

/// The weight of `(outputs, inputs)` in `vb` as codes, if it has them.
pub(super) fn frozen(inputs: usize, outputs: usize, bias: bool, vb: &VarBuilder<'_>) -> Result<Option<FrozenLinear>> {
    let name = |part: Part| format!("weight{}", part.suffix());
    let part = |part: Part, dtype: DType| vb.get_unchecked_dtype(&name(part), dtype);
    if !vb.contains_tensor(&name(Part::Description)) {
        return Ok(None);
    }
    // A builder of zeros claims to have every tensor, but hands none out without its shape.
    let Ok(description) = part(Part::Description, DType::U8) else { return Ok(None) };
    let description: HandedOut =
        serde_json::from_slice(&description.to_vec1::<u8>()?).map_err(candle_core::Error::wrap)?;
    let codes = part(Part::Codes, DType::U8)?;
    if codes.dims() != [outputs, inputs] {
        return Err(Error::ShapeMismatch {
            what: "the weight in the checkpoint",
            expected: format!("[{outputs}, {inputs}], outputs and inputs"),
            actual: codes.dims().to_vec(),
        });
    }
    let HandedOut { format, granularity, activations } = description;
    let weight = Fp8Tensor::from_parts(codes, part(Part::Scales, DType::F32)?, granularity, format, vb.dtype())?;
    let bias = if bias { Some(vb.get(outputs, "bias")?) } else { None };
    let layer = FrozenLinear::new(weight, bias)?.with_path(Some(vb.prefix().into()));
    match activations {
        Some(activations) => layer.with_activations(activations, Ste::default()).map(Some),
        None => Ok(Some(layer)),
    }
}
