//! What formats and kernels refuse.

/// What the fallible functions of formats and kernels return.
pub type Result<T, E = FormatError> = std::result::Result<T, E>;

/// What a format or a kernel refuses, and what to do about it.
///
/// `?` turns it into an `altgrad::Error`. Functions that return candle's error get there by way of
/// that:
///
/// ```
/// fn format(bias: i16) -> candle_core::Result<altgrad::Fp8> {
///     let format = altgrad::Fp8::new(4, 3, bias, altgrad::Specials::NanOnly);
///     Ok(format.map_err(altgrad::Error::from)?)
/// }
/// assert!(format(7).is_ok() && format(500).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// [`Fp8::new`] was given numbers that make no format.
    #[error("not a format: {why}")]
    InvalidFormat {
        /// The rule that was broken.
        why: String,
    },

    /// A scale is zero, negative, infinite or NaN.
    #[error("a scale must be a positive finite number, this one is {scale}")]
    InvalidScale {
        /// The scale.
        scale: f32,
    },

    /// Some scales of a conversion have a multiplier and others do not.
    #[error("some scales have a multiplier and others have none; give all of them one, or none")]
    MixedScales,

    /// A slice or list does not have the length that goes with the others.
    #[error("{what} has {actual} elements, expected {expected}")]
    LengthMismatch {
        /// What it holds.
        what: &'static str,
        /// The length needed.
        expected: usize,
        /// The length given.
        actual: usize,
    },

    /// A value that is NaN, or an infinity that is to [propagate](crate::Infinity), was to be encoded into a format
    /// that has no code for it.
    #[error(
        "{format} has no code for NaN, and the tensor holds a value that is not finite; \
         use a format with NaN such as E4M3 or E5M2, or remove it first"
    )]
    NanNotRepresentable {
        /// The format's name.
        format: String,
    },

    /// A byte is not a code of a format of 6 or 4 bits.
    #[error(
        "the codes have bytes that are not codes of {format}: a code of {} bits is in the upper bits of its byte, and \
         the others are 0; shift codes that are in the lower bits",
        .bits
    )]
    NotACode {
        /// The format's name.
        format: String,
        /// Its number of bits.
        bits: u8,
    },
}

/// A text that names nothing of what it was to be parsed as: a format, a recipe or a dialect of checkpoints. The
/// message says what there is, and what the text was most likely to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is {why}")]
pub struct ParseError {
    text: String,
    why: String,
}

impl ParseError {
    /// Says of a text what it is not, in words that follow "is".
    #[must_use]
    pub fn new(text: impl Into<String>, why: impl Into<String>) -> Self {
        Self { text: text.into(), why: why.into() }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}
