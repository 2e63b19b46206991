//! Operations of altgrad in candle's graph.

mod backward;
mod floats;
mod node;
mod sink;

pub use backward::{accumulate, backward, backward_into};
pub(crate) use floats::{computed, floats, tensor};
pub(crate) use node::{Computed, Gradients, Pass, attach};
pub(crate) use sink::{buffer, write};
