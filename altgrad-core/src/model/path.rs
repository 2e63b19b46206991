//! Where in a model a visitor is: a list linked through the stack, rendered only when somebody needs the text.

use std::fmt;

use crate::layer::Recipe;

/// The dotted path of a part of a model, equal to its `VarBuilder` prefix and its checkpoint key: `h.0.attn.c_attn`.
///
/// Also carries what the attributes of the enclosing fields said.
///
/// ```
/// use altgrad::Path;
///
/// let root = Path::root();
/// let blocks = root.field("h");
/// let block = blocks.index(0);
/// assert_eq!(block.field("attn").to_string(), "h.0.attn");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
    skipped: bool,
    recipe: Option<&'a Recipe>,
}

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    Transparent,
    Name(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// The model itself: the empty path.
    #[must_use]
    pub const fn root() -> Self {
        Self { parent: None, segment: Segment::Transparent, skipped: false, recipe: None }
    }

    /// A field or entry of this part.
    #[must_use]
    pub fn field(&'a self, name: &'a str) -> Self {
        self.child(Segment::Name(name))
    }

    /// An element of this part.
    #[must_use]
    pub fn index(&'a self, index: usize) -> Self {
        self.child(Segment::Index(index))
    }

    /// A part that adds no segment.
    #[must_use]
    pub fn transparent(&'a self) -> Self {
        self.child(Segment::Transparent)
    }

    fn child(&'a self, segment: Segment<'a>) -> Self {
        Self { parent: Some(self), segment, ..*self }
    }

    /// The same path, with everything below it kept in full precision: `#[quant(skip)]`.
    #[must_use]
    pub fn skipped(self) -> Self {
        Self { skipped: true, ..self }
    }

    /// The same path, with a recipe of its own for everything below it: `#[quant(recipe = …)]`.
    #[must_use]
    pub fn with_recipe(self, recipe: &'a Recipe) -> Self {
        Self { recipe: Some(recipe), ..self }
    }

    /// Whether this part or one that encloses it is marked `#[quant(skip)]`.
    #[must_use]
    pub const fn is_skipped(&self) -> bool {
        self.skipped
    }

    /// The recipe of the nearest `#[quant(recipe = …)]`, this part's own first.
    #[must_use]
    pub const fn recipe(&self) -> Option<&'a Recipe> {
        self.recipe
    }

    /// Writes the path; returns whether there was anything to write.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error> {
        let follows = match self.parent {
            Some(parent) => parent.write(f)?,
            None => false,
        };
        let separator = if follows { "." } else { "" };
        match self.segment {
            Segment::Transparent => return Ok(follows),
            Segment::Name(name) => write!(f, "{separator}{name}")?,
            Segment::Index(index) => write!(f, "{separator}{index}")?,
        }
        Ok(true)
    }
}

impl Default for Path<'_> {
    fn default() -> Self {
        Self::root()
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f).map(|_| ())
    }
}
