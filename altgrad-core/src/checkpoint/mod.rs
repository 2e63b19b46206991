//! FP8 checkpoints of other ecosystems: reads them as a `VarBuilder` or tensor by tensor, and writes them.

mod backend;
mod companions;
mod compare;
mod config;
mod convert;
mod dequantize;
mod dialect;
mod file;
mod inspect;
mod json;
mod kv;
mod kv_names;
mod layer_spec;
mod reader;
mod save;
mod shards;
mod source;
mod stored;
mod writer;

pub use backend::var_builder;
pub use compare::{Comparison, TensorComparison, compare};
pub use convert::Progress;
pub use dialect::Dialect;
pub use inspect::{Contents, QuantizedContents, TensorContents};
pub use kv::KvScales;
pub use reader::{Checkpoint, StoredWeight};
pub use save::{Writer, save};
