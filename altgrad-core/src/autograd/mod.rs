//! Operations of altgrad in candle's graph.

mod backward;
mod floats;
mod graph;
mod link;
mod node;
mod sink;

pub use backward::{accumulate, backward, backward_into};
pub(crate) use floats::{computed, floats, owned, tensor};
pub(crate) use graph::{Computed, Gradients};
pub(crate) use node::{Pass, attach, attach_all};
pub(crate) use sink::{buffer, write};
