//! The position of a visitor in a model: a list that is linked through the stack and rendered only when its text is
//! needed.

use std::fmt;

use crate::slot::Recipe;

/// The dotted path of a part of a model, equal to its `VarBuilder` prefix and its checkpoint key: `h.0.attn.c_attn`.
///
/// Also carries the attributes of the enclosing fields.
///
/// ```
/// use altgrad::visit::Path;
///
/// let root = Path::root();
/// let blocks = root.field("h");
/// let block = blocks.index(0);
/// assert_eq!(block.field("attn").to_string(), "h.0.attn");
/// assert!(block.field("attn") == *"h.0.attn");
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

    /// Writes the path; returns whether it is not empty.
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

/// Whether the path reads like this text; compared without rendering the path.
impl PartialEq<str> for Path<'_> {
    fn eq(&self, text: &str) -> bool {
        let mut rest = text;
        let mut is_last = true;
        let mut part = Some(self);
        // From the end, since the list is linked from there.
        while let Some(Path { parent, segment, .. }) = part {
            let before = match segment {
                Segment::Transparent => Some(rest),
                _ if !is_last && !rest.ends_with('.') => None,
                Segment::Name(name) => rest[..rest.len() - usize::from(!is_last)].strip_suffix(name),
                Segment::Index(index) => strip_index(&rest[..rest.len() - usize::from(!is_last)], *index),
            };
            let Some(before) = before else { return false };
            is_last &= matches!(segment, Segment::Transparent);
            (rest, part) = (before, *parent);
        }
        rest.is_empty()
    }
}

/// `text` without the number `index` at its end; `None` if it does not end with that.
fn strip_index(text: &str, mut index: usize) -> Option<&str> {
    let mut rest = text;
    loop {
        let digit = char::from_digit((index % 10) as u32, 10)?;
        rest = rest.strip_suffix(digit)?;
        index /= 10;
        if index == 0 {
            return Some(rest);
        }
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

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn a_path_equals_its_text_and_no_other() {
        let root = Path::root();
        let (h, layers) = (root.field("h"), root.field("layers"));
        let (ten, zero, inner) = (h.index(10), h.index(0), layers.transparent());
        let (attn, dotted, deep) = (ten.field("attn"), zero.field("a.b"), inner.index(1203));
        let (empty, below_empty) = (zero.field(""), layers.field(""));
        let below_empty = below_empty.field("");
        let transparent = attn.transparent();
        let paths = [root, h, layers, ten, zero, inner, attn, dotted, deep, empty, below_empty, transparent];
        let mut texts: Vec<String> = paths.iter().map(Path::to_string).collect();
        texts.extend(
            ["h.1", "h.100", "h.010", ".h", "h.", "10.attn", "h.10.attn.", "h10", "h.10attn", "layers.203", "x"]
                .map(String::from),
        );
        for path in paths {
            for text in &texts {
                assert_eq!(path == **text, path.to_string() == *text, "{path} == {text}");
            }
        }
    }
}
