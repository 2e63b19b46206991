//! The names that a candle model imports from `candle_nn`, with slots for the layers that can be quantized: changing
//! one `use` ports a model.
//!
//! ```
//! // Instead of `use candle_nn::{Conv2d, Embedding, LayerNorm, Linear, VarBuilder, embedding, layer_norm, linear};`
//! use altgrad::nn::{Conv2d, Embedding, LayerNorm, Linear, VarBuilder, embedding, layer_norm, linear};
//! ```
//!
//! [`Linear`], [`Embedding`], [`Conv1d`] and [`Conv2d`] are slots, with `candle_nn`'s constructors. What else a
//! transformer is made of trains, and takes one pass over memory each way: [`LayerNorm`], [`RmsNorm`], and functions of
//! [`ops`], [`rotary_emb`], [`loss`] and [`attention`]. The fused operations of `candle_nn` that they stand for have no
//! backward pass. Everything else is re-exported from `candle_nn`. Models of candle-transformers import some of their
//! layers from its module `with_tracing`; for those, use [`with_tracing`].

pub use candle_nn::{
    Activation, AdamW, BatchNorm, BatchNormConfig, Conv1dConfig, Conv2dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig, Dropout, Func, FuncT, GRU, GRUConfig, GroupNorm, Init, LSTM, LSTMConfig,
    LayerNormConfig, Module, ModuleT, Optimizer, PReLU, ParamsAdamW, RNN, SGD, Sequential, VarBuilder, VarMap,
    batch_norm, conv_transpose1d, conv_transpose1d_no_bias, conv_transpose2d, conv_transpose2d_no_bias, func, func_t,
    group_norm, gru, lstm, prelu, seq,
};
pub use candle_nn::{
    activation, cpu_flash_attention, encoding, init, kv_cache, moe, optim, rnn, sampling, var_builder, var_map,
    varlen_attention,
};

pub use crate::slot::{
    Conv1d, Conv2d, Embedding, Linear, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias, embedding, linear, linear_b,
    linear_no_bias,
};

pub mod attention;
pub mod loss;
mod norm;
pub mod ops;
pub mod rotary_emb;
pub mod with_tracing;

pub use norm::{LayerNorm, RmsNorm, layer_norm, layer_norm_no_bias, rms_norm};

use candle_core::{DType, Result, Tensor};

use crate::{Error, TensorError};

/// Checks the shape of an argument.
fn check_shape(what: &'static str, tensor: &Tensor, dims: &[usize]) -> Result<()> {
    if tensor.dims() == dims {
        return Ok(());
    }
    let (expected, actual) = (format!("{dims:?}"), tensor.dims().to_vec());
    Err(Error::from(TensorError::ShapeMismatch { what, expected, actual }).into())
}

/// Checks the dtype of an argument.
fn check_dtype(what: &'static str, tensor: &Tensor, expected: DType) -> Result<()> {
    let actual = tensor.dtype();
    if actual == expected {
        return Ok(());
    }
    Err(Error::from(TensorError::DTypeMismatch { what, expected, actual }).into())
}
