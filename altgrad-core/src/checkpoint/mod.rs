//! FP8 checkpoints of other ecosystems: reading them as a `VarBuilder` or tensor by tensor, and writing them.

mod backend;
mod config;
mod dialect;
mod file;
mod outline;
mod reader;
mod save;
mod shards;
mod stored;
mod writer;

pub use dialect::Dialect;
pub use reader::{Checkpoint, StoredWeight, var_builder};
pub use save::{Writer, save};
