//! What walks through a model: slots, and the tensors that belong to none.

use candle_core::Tensor;

use super::Path;
use crate::Result;
use crate::slot::AnySlot;

/// Sees the parts of a model, in the order in which the model declares them.
///
/// `'m` is how long the model is borrowed, so a visitor may keep what it sees.
pub trait Visitor<'m> {
    /// A slot of any kind.
    fn slot(&mut self, path: &Path<'_>, slot: &'m dyn AnySlot) -> Result<()>;

    /// A tensor that is part of the model and of no slot: that of a layer norm, for example.
    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()>;
}

/// As [`Visitor`], with the slots open to replacement.
pub trait VisitorMut<'m> {
    /// A slot of any kind.
    fn slot(&mut self, path: &Path<'_>, slot: &'m mut dyn AnySlot) -> Result<()>;

    /// A tensor that is part of the model and of no slot. Candle's layers show theirs only by shared reference.
    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()>;
}
