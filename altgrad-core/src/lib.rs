//! Formats, quantizers, layers and model surgery: everything behind the `altgrad` crate but its derive macro.
//!
//! Use the `altgrad` crate, which re-exports all of this together with `#[derive(Quantizable)]`.

pub mod checkpoint;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
mod error;
mod format;
pub mod kernels;
mod layer;
mod lock;
mod model;
mod quantizer;

pub use error::{Error, Result};
pub use format::{Fp8, Infinity, Overflow, ParseFp8Error, Specials};
pub use layer::{
    Compute, FrozenLinear, FullLinear, Linear, ParseRecipeError, QuantizedLinear, Recipe, linear, linear_b,
    linear_no_bias,
};
pub use model::{
    Action, CalibrationConfig, CalibrationReport, Constant, GroupedReport, IdleLayers, LayerCalibration, LayerReport,
    Path, QuantConfig, QuantReport, Quantizable, QuantizedVarBuilder, Rule, SkipReason, TiePolicy, Trainable, Visitor,
    VisitorMut,
};
pub use quantizer::{
    AmaxHistory, Distortion, E8M0Rule, Fp8Tensor, Granularity, Observer, Quantizer, Rounding, ScaleEncoding, Scaling,
    Ste, compute_scale, fake_quantize, fake_quantize_with_scale,
};
