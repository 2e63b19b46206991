//! The visitors that walk through a model and see its slots, and the tensors that belong to no slot.

use candle_core::Tensor;

use super::Path;
use crate::Result;
use crate::slot::AnySlot;

/// Sees the parts of a model, in the order in which the model declares them.
///
/// The model is borrowed for `'m`, so a visitor may keep what it sees.
pub trait Visitor<'m> {
    /// A slot of any kind.
    fn slot(&mut self, path: &Path<'_>, slot: &'m dyn AnySlot) -> Result<()>;

    /// A tensor of the model that belongs to no slot: the weight of a layer norm, for example.
    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()>;
}

/// As [`Visitor`], with the slots open to replacement.
pub trait VisitorMut<'m> {
    /// A slot of any kind.
    fn slot(&mut self, path: &Path<'_>, slot: &'m mut dyn AnySlot) -> Result<()>;

    /// A tensor of the model that belongs to no slot. Candle's layers give access to theirs only by shared reference.
    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()>;
}
