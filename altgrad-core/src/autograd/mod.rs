//! Operations of altgrad in candle's graph.

mod floats;
mod node;

pub(crate) use floats::{computed, floats, tensor};
pub(crate) use node::{Computed, Gradients, Pass, attach};
