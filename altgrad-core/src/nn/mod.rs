//! The names that a candle model imports from `candle_nn`, with slots for the layers that can be quantized: changing
//! one `use` ports a model.
//!
//! ```
//! // Instead of `use candle_nn::{Conv2d, Embedding, LayerNorm, Linear, VarBuilder, embedding, layer_norm, linear};`
//! use altgrad::nn::{Conv2d, Embedding, LayerNorm, Linear, VarBuilder, embedding, layer_norm, linear};
//! ```
//!
//! [`Linear`], [`Embedding`], [`Conv1d`] and [`Conv2d`] are slots, with `candle_nn`'s constructors; everything else
//! is re-exported from `candle_nn`. Models of candle-transformers import some of their layers from its module
//! `with_tracing`; for those, use [`with_tracing`].

pub use candle_nn::{
    Activation, AdamW, BatchNorm, BatchNormConfig, Conv1dConfig, Conv2dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig, Dropout, Func, FuncT, GRU, GRUConfig, GroupNorm, Init, LSTM, LSTMConfig,
    LayerNorm, LayerNormConfig, Module, ModuleT, Optimizer, PReLU, ParamsAdamW, RNN, RmsNorm, SGD, Sequential,
    VarBuilder, VarMap, batch_norm, conv_transpose1d, conv_transpose1d_no_bias, conv_transpose2d,
    conv_transpose2d_no_bias, func, func_t, group_norm, gru, layer_norm, layer_norm_no_bias, lstm, prelu, rms_norm,
    seq,
};
pub use candle_nn::{
    activation, attention, cpu_flash_attention, encoding, init, kv_cache, loss, moe, ops, optim, rnn, rotary_emb,
    sampling, var_builder, var_map, varlen_attention,
};

pub use crate::slot::{
    Conv1d, Conv2d, Embedding, Linear, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias, embedding, linear, linear_b,
    linear_no_bias,
};

pub mod with_tracing;
