//! Errors of formats and kernels.

/// The result of the fallible functions of formats and kernels.
pub type Result<T, E = FormatError> = std::result::Result<T, E>;

/// An error of a format or a kernel, with what to do about it.
///
/// `?` converts it to an `altgrad::Error`. Functions that return candle's error convert it to that type first:
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
    /// [`Fp8::new`](crate::Fp8::new) was given numbers that do not make a format.
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
        /// Which slice or list it is.
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

/// A text that could not be parsed as what was expected: a format, a recipe or a dialect of checkpoints. The message
/// says what there is, and what the text most likely meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is {why}")]
pub struct ParseError {
    text: String,
    why: String,
}

impl ParseError {
    /// An error for a text, where `why` completes the sentence "`text` is …".
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
