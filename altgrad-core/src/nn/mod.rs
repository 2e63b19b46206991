//! What a candle model imports for its layers, with slots where `candle_nn` has layers that can be quantized: changing one
//! `use` ports a model.
//!
//! ```
//! // Instead of `use candle_nn::{Conv2d, Embedding, LayerNorm, Linear, VarBuilder, embedding, layer_norm, linear};`
//! use altgrad::nn::{Conv2d, Embedding, LayerNorm, Linear, VarBuilder, embedding, layer_norm, linear};
//! ```
//!
//! [`Linear`], [`Embedding`], [`Conv1d`] and [`Conv2d`] are slots, with `candle_nn`'s constructors; all else is `candle_nn`'s
//! own. Models of candle-transformers import some of their layers from its module `with_tracing`: for those there is
//! [`with_tracing`].

pub use candle_nn::*;

pub use crate::slot::{
    Conv1d, Conv2d, Embedding, Linear, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias, embedding, linear, linear_b,
    linear_no_bias,
};

pub mod with_tracing;
