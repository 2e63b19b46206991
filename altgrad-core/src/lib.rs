//! Formats, quantizers, layers and model surgery: everything behind the `altgrad` crate but its derive macro.
//!
//! Use the `altgrad` crate, which re-exports all of this together with `#[derive(Quantizable)]`.

pub mod checkpoint;
mod error;
/// Conversions of slices: the largest magnitude, fake quantization, encoding and decoding, without tensors or layers.
///
/// The crate `altgrad-kernels` has them, without candle; it says how a slice is a matrix, and which bits are promised.
pub mod kernels {
    pub use altgrad_kernels::{
        Blocks, Conversion, Draws, Element, Level, Result, Scale, amax, decode, encode, fake_quantize,
    };
}
mod model;
pub mod nn;
mod quantizer;
mod slot;

pub use altgrad_kernels::{FormatError, ParseError};
pub use altgrad_kernels::{Fp8, Infinity, Overflow, Specials};
pub use error::{CheckpointError, ConfigError, Error, ModelError, Result, TensorError};
pub use model::{
    Action, CalibrationConfig, CalibrationReport, Constant, GroupedReport, IdleLayers, LayerCalibration, LayerReport,
    MapKey, Path, QuantConfig, QuantReport, Quantizable, QuantizedVarBuilder, Rule, SkipReason, TiePolicy, Trainable,
    Visit, Visitor, VisitorMut,
};
pub use quantizer::{
    AmaxHistory, Distortion, E8M0Rule, Fp8Tensor, Granularity, Observer, Quantizer, Rounding, ScaleEncoding, Scaling,
    Ste, compute_scale, fake_quantize, fake_quantize_with_scale,
};
pub use slot::{
    AnySlot, Compute, Evaluation, Frozen, FrozenLinear, Full, FullLinear, Linear, Lowering, Operation, OrFull,
    Quantized, QuantizedLinear, Recipe, Slot, SlotState, linear, linear_b, linear_no_bias,
};
