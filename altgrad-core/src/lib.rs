//! Formats, quantizers, layers and model surgery: everything behind the `altgrad` crate except its derive macro.
//!
//! Use the `altgrad` crate, which re-exports all of this together with `#[derive(Quantizable)]`.

mod autograd;
pub mod checkpoint;
mod error;
/// Conversions of slices: the largest magnitude (amax), fake quantization, encoding and decoding, without tensors or
/// layers.
///
/// They come from the crate `altgrad-kernels`, which works without candle. Its documentation says how a slice stands
/// for a matrix, and which results are exact bit for bit.
pub mod kernels {
    pub use altgrad_kernels::{
        Blocks, Conversion, Draws, Element, Level, Result, Scale, amax, decode, encode, fake_quantize,
    };
}
mod kv_cache;
mod model;
pub mod nn;
pub mod optim;
mod quantizer;
/// Reports on what was done to, or found in, each layer of a model: a table for people and JSON for programs.
pub mod report {
    pub use crate::model::{
        Action, CalibrationReport, GroupedReport, LayerCalibration, LayerReport, QuantReport, SkipReason,
    };
}
mod slot;
/// Walking through a model: the trait that a type implements, by derive or by hand, and the visitors that see its
/// parts.
pub mod visit {
    pub use crate::model::{MapKey, Path, Visit, Visitor, VisitorMut};
}

pub use altgrad_kernels::{FormatError, ParseError};
pub use altgrad_kernels::{Fp8, Infinity, Overflow, Specials};
pub use autograd::{accumulate, backward, backward_into};
pub use error::{CheckpointError, ConfigError, Error, ModelError, OptimError, QuantizerError, Result, TensorError};
pub use kv_cache::{KvCache, Mask};
pub use model::{
    CalibrationConfig, Constant, IdleLayers, QuantConfig, Quantizable, QuantizedVarBuilder, Rule, TiePolicy, Trainable,
};
pub use quantizer::{
    AmaxHistory, Distortion, E8M0Rule, Fp8Tensor, Granularity, Observer, Quantizer, Rounding, ScaleEncoding, Scaling,
    Ste, compute_scale, fake_quantize, fake_quantize_with_scale,
};
pub use slot::{
    AnySlot, Compute, Evaluation, Frozen, FrozenLinear, Full, FullLinear, Linear, Lowering, Operation, OrFull,
    Quantized, QuantizedLinear, Recipe, Slot, SlotState, linear, linear_b, linear_no_bias,
};
