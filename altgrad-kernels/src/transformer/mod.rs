//! What a transformer computes beside its products, forward and backward, in one pass over memory each: norms,
//! activations, rotary embedding, heads, softmax and cross-entropy. Values and gradients are `f32`.

mod activation;
mod cross_entropy;
mod exponential;
mod heads;
mod lanes;
mod norm;
mod rotary;
pub(crate) mod softmax;

pub use activation::{Activation, activate, activation_gradient, gate, gate_gradients};
pub use cross_entropy::{cross_entropy, cross_entropy_gradient};
pub use heads::{TokenRows, merge_heads, split_heads};
pub use norm::{Norm, NormGradients, norm, norm_gradients};
pub use rotary::{Positions, Rotation, rotate};
pub use softmax::{softmax_gradient, softmax_rows};

/// Elements that a thread takes at a time: their values, gradients and results fit into the second-level cache.
const PART: usize = 1 << 14;

/// Rows that a thread takes at a time.
fn rows_of_part(cols: usize) -> usize {
    (PART / cols.max(1)).max(1)
}

#[cfg(test)]
mod tests;
