//! Linear layers: the slot, and `candle_nn`'s constructors for it.

mod operation;

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use super::slot_codes::{self, OF_PRODUCTS};
use super::{Frozen, Full, Quantized, Slot};
use crate::Result;
use crate::quantizer::Fp8Tensor;

/// A linear layer that can be quantized in place: declare it instead of a `candle_nn::Linear`.
///
/// ```
/// use altgrad::{Linear, linear};
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let layer: Linear = linear(4, 3, vb.pp("fc"))?;
/// let y = layer.forward(&Tensor::zeros((2, 4), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(y.dims(), [2, 3]);
/// # Ok::<(), altgrad::Error>(())
/// ```
pub type Linear = Slot<candle_nn::Linear>;

/// A linear layer without any quantization.
pub type FullLinear = Full<candle_nn::Linear>;

/// A linear layer that computes with quantized tensors and trains its full-precision weight.
///
/// ```
/// use altgrad::{Fp8, QuantizedLinear};
/// use candle_core::{DType, Device, Module, Tensor, Var};
///
/// let weight = Var::randn(0f32, 1.0, (3, 4), &Device::Cpu)?;
/// let layer = QuantizedLinear::new(candle_nn::Linear::new(weight.as_tensor().clone(), None), Fp8::E4M3)?;
/// assert_eq!(layer.weight().id(), weight.id());
/// # Ok::<(), altgrad::Error>(())
/// ```
pub type QuantizedLinear = Quantized<candle_nn::Linear>;

/// A linear layer with a weight of one byte per element.
pub type FrozenLinear = Frozen<candle_nn::Linear>;

impl Linear {
    /// A full-precision layer with a weight of shape `(outputs, inputs)` and a bias of shape `(outputs,)`, as
    /// `candle_nn::Linear::new`.
    #[must_use]
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        candle_nn::Linear::new(weight, bias).into()
    }

    /// [`new`](Self::new) under the name that candle-transformers uses.
    #[must_use]
    pub fn from_weights(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self::new(weight, bias)
    }
}

impl FullLinear {
    /// Candle's layer, with the same tensors.
    #[must_use]
    pub fn into_linear(self) -> candle_nn::Linear {
        self.into_layer()
    }
}

impl QuantizedLinear {
    /// The wrapped layer: the same tensors, bit for bit.
    #[must_use]
    pub fn into_linear(self) -> candle_nn::Linear {
        self.into_layer()
    }
}

impl FrozenLinear {
    /// A layer from packed weights of shape `(outputs, inputs)` and a bias of shape `(outputs,)`.
    ///
    /// # Errors
    ///
    /// Shapes that do not fit.
    #[allow(clippy::needless_pass_by_value, reason = "the layer takes the codes over")]
    pub fn new(weight: Fp8Tensor, bias: Option<Tensor>) -> Result<Self> {
        Self::from_codes((), &weight, bias)
    }
}

/// [`candle_nn::linear()`] into a slot: weight `(out_dim, in_dim)` and bias `(out_dim,)` from `vb`. If `vb` is that
/// of an [FP8 checkpoint](crate::checkpoint::var_builder), a quantized weight makes the slot a frozen layer.
///
/// # Errors
///
/// Fails as candle's constructor does, for a tensor that is missing or has another shape, and for an invalid
/// quantized weight.
pub fn linear(in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> candle_core::Result<Linear> {
    linear_b(in_dim, out_dim, true, vb)
}

/// [`linear()`] without a bias, as [`candle_nn::linear_no_bias`]: weight `(out_dim, in_dim)` from `vb`.
///
/// # Errors
///
/// Fails as candle's constructor does, for a tensor that is missing or has another shape, and for an invalid
/// quantized weight.
pub fn linear_no_bias(in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> candle_core::Result<Linear> {
    linear_b(in_dim, out_dim, false, vb)
}

/// As [`linear()`] or [`linear_no_bias`], depending on `bias`; [`candle_nn::linear_b`] into a slot.
///
/// Codes reach the slot even through a builder that changes names on the way, as `VarBuilder::rename_f` does.
///
/// # Errors
///
/// Fails as candle's constructor does, for a tensor that is missing or has another shape, and for an invalid
/// quantized weight.
#[allow(clippy::needless_pass_by_value, reason = "the signature is candle's")]
pub fn linear_b(in_dim: usize, out_dim: usize, bias: bool, vb: VarBuilder<'_>) -> candle_core::Result<Linear> {
    // As `candle_nn::linear` initializes it.
    let bound = 1.0 / (in_dim as f64).sqrt();
    let bias = bias.then_some((out_dim, Init::Uniform { lo: -bound, up: bound }));
    Ok(slot_codes::slot((), (out_dim, in_dim), OF_PRODUCTS, bias, &vb)?)
}
