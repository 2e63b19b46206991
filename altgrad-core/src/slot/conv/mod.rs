//! Convolutions: the slots, and `candle_nn`'s constructors for them.

mod lowering;
mod operation;

use candle_core::Tensor;
use candle_nn::{BatchNorm, Conv1dConfig, Conv2dConfig, Init, VarBuilder};

use super::Slot;
use super::slot_codes::{self, OF_PRODUCTS};

/// A convolution over one dimension that can be quantized in place: declare it instead of a `candle_nn::Conv1d`.
///
/// It is computed as the product of its windows (im2col) and its weight, as a matrix `(outputs, inputs × kernel)`,
/// and quantized like a [linear layer](crate::Linear) with that matrix: one scale per row means one per output
/// channel of the weight, and one per window of the activations. The windows of all groups are one operand.
pub type Conv1d = Slot<candle_nn::Conv1d>;

/// A convolution over two dimensions that can be quantized in place: declare it instead of a `candle_nn::Conv2d`. See
/// [`Conv1d`] for how it is quantized.
///
/// ```
/// use altgrad::{Quantizable, Recipe, nn};
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{Conv2dConfig, VarBuilder, VarMap};
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let config = Conv2dConfig { padding: 1, stride: 2, ..Conv2dConfig::default() };
/// let mut conv = nn::conv2d(3, 8, 3, config, vb)?;
/// conv.quantize(Recipe::rowwise())?;
/// let y = conv.forward(&Tensor::ones((1, 3, 32, 32), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(y.dims(), [1, 8, 16, 16]);
/// # Ok::<(), altgrad::Error>(())
/// ```
pub type Conv2d = Slot<candle_nn::Conv2d>;

impl Conv1d {
    /// A convolution in full precision with a weight of shape `(outputs, inputs / groups, kernel)` and a bias of shape
    /// `(outputs,)`, as `candle_nn::Conv1d::new`.
    #[must_use]
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv1dConfig) -> Self {
        candle_nn::Conv1d::new(weight, bias, config).into()
    }
}

impl Conv2d {
    /// A convolution in full precision with a weight of shape `(outputs, inputs / groups, height, width)` and a bias of
    /// shape `(outputs,)`, as `candle_nn::Conv2d::new`.
    #[must_use]
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv2dConfig) -> Self {
        candle_nn::Conv2d::new(weight, bias, config).into()
    }

    /// Merges the batch normalization that follows the convolution in inference into it, as
    /// `candle_nn::Conv2d::absorb_bn` does.
    ///
    /// # Errors
    ///
    /// A convolution that is already quantized or frozen, since absorbing changes its weight; or an error of
    /// candle's.
    pub fn absorb_bn(&self, bn: &BatchNorm) -> candle_core::Result<Self> {
        match self {
            Self::Full(layer) => Ok(layer.layer().absorb_bn(bn)?.into()),
            Self::Quantized(_) | Self::Frozen(_) => {
                candle_core::bail!(
                    "a quantized convolution cannot absorb a batch normalization; call `quantize` after it"
                )
            }
        }
    }
}

/// [`candle_nn::conv1d()`] into a slot: weight `(out_channels, in_channels / groups, kernel_size)` and bias from `vb`.
///
/// # Errors
///
/// Fails as candle's constructor does, for a tensor that is missing or has another shape, and for an invalid
/// quantized weight.
#[allow(clippy::needless_pass_by_value, reason = "the signature is candle's")]
pub fn conv1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv1dConfig,
    vb: VarBuilder<'_>,
) -> candle_core::Result<Conv1d> {
    let dims = (out_channels, in_channels / cfg.groups.max(1), kernel_size);
    Ok(slot_codes::slot(cfg, dims, OF_PRODUCTS, Some((out_channels, bias_init(in_channels))), &vb)?)
}

/// [`conv1d()`] without a bias, as [`candle_nn::conv1d_no_bias`].
///
/// # Errors
///
/// As [`conv1d`].
#[allow(clippy::needless_pass_by_value, reason = "the signature is candle's")]
pub fn conv1d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv1dConfig,
    vb: VarBuilder<'_>,
) -> candle_core::Result<Conv1d> {
    let dims = (out_channels, in_channels / cfg.groups.max(1), kernel_size);
    Ok(slot_codes::slot(cfg, dims, OF_PRODUCTS, None, &vb)?)
}

/// [`candle_nn::conv2d()`] into a slot: weight `(out_channels, in_channels / groups, kernel_size, kernel_size)` and
/// bias from `vb`.
///
/// # Errors
///
/// Fails as candle's constructor does, for a tensor that is missing or has another shape, and for an invalid
/// quantized weight.
#[allow(clippy::needless_pass_by_value, reason = "the signature is candle's")]
pub fn conv2d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv2dConfig,
    vb: VarBuilder<'_>,
) -> candle_core::Result<Conv2d> {
    let dims = (out_channels, in_channels / cfg.groups.max(1), kernel_size, kernel_size);
    Ok(slot_codes::slot(cfg, dims, OF_PRODUCTS, Some((out_channels, bias_init(in_channels))), &vb)?)
}

/// [`conv2d()`] without a bias, as [`candle_nn::conv2d_no_bias`].
///
/// # Errors
///
/// As [`conv2d`].
#[allow(clippy::needless_pass_by_value, reason = "the signature is candle's")]
pub fn conv2d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv2dConfig,
    vb: VarBuilder<'_>,
) -> candle_core::Result<Conv2d> {
    let dims = (out_channels, in_channels / cfg.groups.max(1), kernel_size, kernel_size);
    Ok(slot_codes::slot(cfg, dims, OF_PRODUCTS, None, &vb)?)
}

/// The initialization that `candle_nn` has for the bias of a convolution.
fn bias_init(in_channels: usize) -> Init {
    let bound = 1.0 / (in_channels as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}
