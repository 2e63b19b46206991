//! Replacements for the layers in candle-transformers' module `with_tracing`: slots and layers with the same
//! constructors, but without tracing spans.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;

pub use super::{Conv2d, LayerNorm, Linear, conv2d, layer_norm, linear, linear_b, linear_no_bias};
use crate::visit::{Path, Visit, Visitor, VisitorMut};

/// An embedding that can be quantized in place, like [`nn::Embedding`](super::Embedding), with the constructors of
/// `with_tracing`. It adds no segment to a path.
#[derive(Clone, Debug)]
pub struct Embedding(super::Embedding);

impl Embedding {
    /// A table `(in_size, out_size)` from `vb`: [`nn::embedding`](super::embedding()).
    ///
    /// # Errors
    ///
    /// Fails as candle's constructor does, for a tensor that is missing or has another shape, and for an invalid
    /// quantized table.
    pub fn new(in_size: usize, out_size: usize, vb: VarBuilder<'_>) -> Result<Self> {
        super::embedding(in_size, out_size, vb).map(Self)
    }

    /// A table of shape `(rows, hidden size)`.
    ///
    /// # Errors
    ///
    /// A tensor that does not have two dimensions.
    pub fn from_weights(weights: Tensor) -> Result<Self> {
        let (_, hidden_size) = weights.dims2()?;
        Ok(Self(super::Embedding::new(weights, hidden_size)))
    }

    /// The table; see [`nn::Embedding::embeddings`](super::Embedding::embeddings).
    #[must_use]
    pub fn embeddings(&self) -> &Tensor {
        self.0.embeddings()
    }

    /// The slot.
    #[must_use]
    pub fn slot(&self) -> &super::Embedding {
        &self.0
    }
}

impl Module for Embedding {
    fn forward(&self, indexes: &Tensor) -> Result<Tensor> {
        self.0.forward(indexes)
    }
}

/// [`nn::RmsNorm`](super::RmsNorm) with the constructor of `with_tracing`.
#[derive(Clone, Debug)]
pub struct RmsNorm(super::RmsNorm);

impl RmsNorm {
    /// A weight `(size,)` from `vb`: [`nn::rms_norm`](super::rms_norm()).
    ///
    /// # Errors
    ///
    /// Fails as candle's constructor does, for a tensor that is missing or has another shape.
    pub fn new(size: usize, eps: f64, vb: VarBuilder<'_>) -> Result<Self> {
        super::rms_norm(size, eps, vb).map(Self)
    }

    /// The output: the same as [`forward`](Module::forward), which has a backward pass, too.
    ///
    /// # Errors
    ///
    /// Those of candle.
    pub fn forward_diff(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward_diff(x)
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// Visitors see the layer inside a newtype, not the newtype.
macro_rules! transparent {
    ($($type:ty),+) => {$(
        impl Visit for $type {
            fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> crate::Result<()> {
                self.0.visit(&path.transparent(), visitor)
            }

            fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> crate::Result<()> {
                self.0.visit_mut(&path.transparent(), visitor)
            }
        }
    )+};
}

transparent!(Embedding, RmsNorm);
