//! The LLaMA family over altgrad's layers: a configuration and a model, to be copied from.

mod config;
mod loss;
mod model;
mod rotary;

pub use config::{Config, Family, Rope, RopeScaling, TokenIds};
pub use loss::mean_loss;
pub use model::{Llama, Logits};
