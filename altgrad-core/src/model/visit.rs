//! The trait that a model derives, through which a visitor reaches its parts.

use std::borrow::Cow;

use super::{Path, Visitor, VisitorMut};
use crate::Result;

/// A model, or a part of one, that shows its slots to visitors.
///
/// `#[derive(Quantizable)]` implements it, which makes the type [`Quantizable`](crate::Quantizable). A hand-written
/// implementation shows each of its parts to the visitor under the path of the field, in the same order in both
/// methods:
///
/// ```
/// use altgrad::{Linear, Result};
/// use altgrad::visit::{Path, Visit, Visitor, VisitorMut};
///
/// struct Mlp {
///     c_fc: Linear,
///     c_proj: Linear,
/// }
///
/// impl Visit for Mlp {
///     fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
///         self.c_fc.visit(&path.field("c_fc"), visitor)?;
///         self.c_proj.visit(&path.field("c_proj"), visitor)
///     }
///
///     fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
///         self.c_fc.visit_mut(&path.field("c_fc"), visitor)?;
///         self.c_proj.visit_mut(&path.field("c_proj"), visitor)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "altgrad cannot look for layers inside `{Self}`",
    label = "`{Self}` does not show its layers",
    note = "a type of your own: add `#[derive(Quantizable)]` to it",
    note = "`candle_nn::Linear`: declare it as `altgrad::Linear`, whose constructors have the same signatures",
    note = "`candle_nn::Sequential` or `dyn Module`, which hide their layers: use a `Vec`, a struct or \
            `Box<dyn Visit>`",
    note = "`Arc`, `Mutex` or a reference, behind which no layer can be replaced: hold the part itself, or a `Box` of \
            it; if it holds no layers, as a rotary embedding, put `#[quant(ignore)]` on the field",
    note = "anything that holds no layers, such as a configuration or an enum of activations: put `#[quant(ignore)]` \
            on the field, or derive `Quantizable` for the type"
)]
pub trait Visit {
    /// Shows every part of the model to `visitor`.
    ///
    /// # Errors
    ///
    /// Only those that `visitor` returns.
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()>;

    /// Shows the same parts in the same order as [`visit`](Self::visit), with the slots open to replacement.
    ///
    /// # Errors
    ///
    /// Only those that `visitor` returns.
    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()>;
}

/// A key of a map that a model holds, as a segment of a path. Maps are visited in the order of their keys.
///
/// ```
/// use std::collections::HashMap;
///
/// use altgrad::{Linear, Quantizable};
///
/// #[derive(Quantizable)]
/// struct Experts {
///     by_number: HashMap<usize, Linear>,
///     by_name: HashMap<String, Linear>,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a segment of a path",
    label = "a map with such keys does not show its layers",
    note = "keys that are: strings, integers and pairs of these; a type of your own: implement \
            `altgrad::visit::MapKey` for it",
    note = "a map that holds no layers: put `#[quant(ignore)]` on the field"
)]
pub trait MapKey: Ord {
    /// The segment; different keys of a map must give different segments.
    fn segment(&self) -> Cow<'_, str>;
}
