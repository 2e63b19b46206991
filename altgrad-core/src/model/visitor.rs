//! What walks through a model: one method for each kind of part.

use candle_core::Tensor;

use super::Path;
use crate::Result;
use crate::layer::Linear;

/// Sees the parts of a model, in the order in which the model declares them.
///
/// `'m` is how long the model is borrowed, so a visitor may keep what it sees.
pub trait Visitor<'m> {
    /// A linear layer.
    fn linear(&mut self, path: &Path<'_>, layer: &'m Linear) -> Result<()> {
        let _ = (path, layer);
        Ok(())
    }

    /// A tensor that is part of the model and of no layer that altgrad replaces: an embedding's table, for example.
    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()> {
        let _ = (path, tensor);
        Ok(())
    }
}

/// As [`Visitor`], with the layers open to replacement.
pub trait VisitorMut<'m> {
    /// A linear layer.
    fn linear(&mut self, path: &Path<'_>, layer: &'m mut Linear) -> Result<()> {
        let _ = (path, layer);
        Ok(())
    }

    /// A tensor that is part of the model and of no layer that altgrad replaces. Candle's layers show theirs only by
    /// shared reference.
    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()> {
        let _ = (path, tensor);
        Ok(())
    }
}
