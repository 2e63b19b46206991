//! What is wrong with a tensor that a layer or a quantizer was given.

use candle_core::{DType, DeviceLocation};

/// What is wrong with a tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A tensor holds NaN or an infinity where only finite values make sense.
    #[error(
        "{what} has a value that is not finite ({value} at index {index:?}), so no scale fits it; \
         find out where it came from, or leave the layer in full precision"
    )]
    NotFinite {
        /// The tensor's role, such as `the weight`.
        what: &'static str,
        /// The first such value.
        value: f64,
        /// Its index, one number for each dimension.
        index: Vec<usize>,
    },

    /// A finite `f64` tensor whose largest magnitude is out of the range of `f32`, in which scales are kept.
    #[error("{what} has a magnitude of {amax:e}, but scales are f32 and end at 3.4e38; rescale the tensor")]
    AmaxOutOfRange {
        /// The tensor's role.
        what: &'static str,
        /// The largest magnitude.
        amax: f64,
    },

    /// A tensor is not of a floating-point type that can be quantized.
    #[error("{what} has dtype {dtype:?}, but only f32, f64, f16 and bf16 tensors can be quantized")]
    UnsupportedDType {
        /// The tensor's role.
        what: &'static str,
        /// What it is.
        dtype: DType,
    },

    /// A tensor is on another device than the layer's weight.
    #[error("{what} is on {actual:?}, but the weight on {expected:?}; move one with `to_device`")]
    DeviceMismatch {
        /// The tensor's role.
        what: &'static str,
        /// The weight's device.
        expected: DeviceLocation,
        /// The tensor's.
        actual: DeviceLocation,
    },

    /// A tensor's dtype differs from the one that the operation needs.
    #[error("{what} has dtype {actual:?}, expected {expected:?}; convert it with `to_dtype`")]
    DTypeMismatch {
        /// The tensor's role.
        what: &'static str,
        /// The dtype needed.
        expected: DType,
        /// The dtype given.
        actual: DType,
    },

    /// A tensor's shape does not fit.
    #[error("{what} has shape {actual:?}, expected {expected}")]
    ShapeMismatch {
        /// The tensor's role.
        what: &'static str,
        /// The shape needed, in words.
        expected: String,
        /// The shape given.
        actual: Vec<usize>,
    },
}
