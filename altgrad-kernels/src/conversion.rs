//! Everything that the conversion of one tensor to a format depends on.

use super::blocks::Blocks;
use super::draws::Draws;
use crate::format::{Fp8, Infinity, Overflow};
use crate::{FormatError, Result};

/// The scale of a block, and how values are divided by it.
///
/// ```
/// use altgrad::kernels::Scale;
///
/// assert_eq!(Scale::from(0.5), Scale::new(0.5));
/// assert_eq!(Scale::with_multiplier(0.1, 10.0).multiplier(), Some(10.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    value: f32,
    multiplier: Option<f32>,
}

impl Scale {
    /// Values are divided by `value` on the way into the format and multiplied by it on the way back.
    #[must_use]
    pub const fn new(value: f32) -> Self {
        Self { value, multiplier: None }
    }

    /// Values are multiplied by `multiplier` on the way into the format and by `value` on the way back, as in
    /// `ScaleEncoding::F32Reciprocal`.
    #[must_use]
    pub const fn with_multiplier(value: f32, multiplier: f32) -> Self {
        Self { value, multiplier: Some(multiplier) }
    }

    /// What decoded codes are multiplied by.
    #[must_use]
    pub const fn value(self) -> f32 {
        self.value
    }

    /// What values are multiplied by instead of being divided by [`value`](Self::value).
    #[must_use]
    pub const fn multiplier(self) -> Option<f32> {
        self.multiplier
    }

    fn validate(self) -> Result<()> {
        let is_valid = |scale: &f32| scale.is_finite() && *scale > 0.0;
        match [self.value, self.multiplier.unwrap_or(1.0)].into_iter().find(|scale| !is_valid(scale)) {
            Some(scale) => Err(FormatError::InvalidScale { scale }),
            None => Ok(()),
        }
    }
}

impl From<f32> for Scale {
    fn from(value: f32) -> Self {
        Self::new(value)
    }
}

/// How the elements of one tensor become codes: a format, the [`Blocks`] that share scales, the scales, and how to
/// round. By default, values are rounded to the nearest value of the format and saturate, as do infinities.
///
/// ```
/// use altgrad::kernels::{Blocks, Conversion, Draws};
/// use altgrad::{FormatError, Fp8, Overflow};
///
/// let blocks = Blocks::per_row(2, 100);
/// let conversion = Conversion::new(Fp8::E5M2, blocks, [0.5, 0.25])?
///     .overflow(Overflow::Special)
///     .draws(Draws { seed: 42, stream: 0, step: 0 });
/// assert_eq!(conversion.blocks(), blocks);
///
/// let error = Conversion::new(Fp8::E5M2, blocks, [0.5]);
/// assert!(matches!(error, Err(FormatError::LengthMismatch { expected: 2, actual: 1, .. })));
/// # Ok::<(), FormatError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Conversion {
    pub(crate) format: Fp8,
    pub(crate) overflow: Overflow,
    pub(crate) infinity: Infinity,
    pub(crate) blocks: Blocks,
    /// One for each block: either all have a multiplier, or none has.
    pub(crate) scales: Vec<Scale>,
    /// The random numbers that decide between two neighbours; without them the nearest one wins.
    pub(crate) draws: Option<Draws>,
}

impl Conversion {
    /// To `format` under one scale for each block, in the order of the blocks: row by row.
    ///
    /// # Errors
    ///
    /// [`FormatError::LengthMismatch`] if there are not as many scales as blocks; [`FormatError::InvalidScale`] for a
    /// scale, or the multiplier of one, that is not a positive finite number; [`FormatError::MixedScales`] if some
    /// scales have a multiplier and others do not.
    pub fn new<S: Into<Scale>>(format: Fp8, blocks: Blocks, scales: impl IntoIterator<Item = S>) -> Result<Self> {
        let scales: Vec<Scale> = scales.into_iter().map(Into::into).collect();
        super::check_len("the list of scales", blocks.count(), scales.len())?;
        scales.iter().try_for_each(|scale| scale.validate())?;
        let with_multiplier = scales.iter().filter(|scale| scale.multiplier.is_some()).count();
        if with_multiplier != 0 && with_multiplier != scales.len() {
            return Err(FormatError::MixedScales);
        }
        Ok(Self::saturating(format, blocks, scales))
    }

    /// To the nearest value of `format`, saturated, under scales that are known to be valid, one for each block.
    #[must_use]
    #[doc(hidden)]
    pub fn saturating(format: Fp8, blocks: Blocks, scales: Vec<Scale>) -> Self {
        let (overflow, infinity) = (Overflow::Saturate, Infinity::Saturate);
        Self { format, overflow, infinity, blocks, scales, draws: None }
    }

    /// What becomes of values beyond the format's range.
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        Self { overflow, ..self }
    }

    /// What becomes of infinities. Only a format with NaN or infinities can propagate them.
    #[must_use]
    pub fn infinity(self, infinity: Infinity) -> Self {
        Self { infinity, ..self }
    }

    /// Rounds to one of the two neighbours at random instead of to the nearest. The probability of the one away from
    /// zero is the distance from the other, divided by the distance between the two. The random numbers are a
    /// function of `draws` and the number of the element, so results are the same on any number of threads.
    #[must_use]
    pub fn draws(self, draws: Draws) -> Self {
        Self { draws: Some(draws), ..self }
    }

    /// The format of the codes.
    #[must_use]
    pub fn format(&self) -> Fp8 {
        self.format
    }

    /// What becomes of values beyond the format's range.
    #[must_use]
    pub fn on_overflow(&self) -> Overflow {
        self.overflow
    }

    /// What becomes of infinities.
    #[must_use]
    pub fn on_infinity(&self) -> Infinity {
        self.infinity
    }

    /// The random numbers that decide between two neighbours, if rounding is stochastic.
    #[must_use]
    pub fn random_draws(&self) -> Option<&Draws> {
        self.draws.as_ref()
    }

    /// The blocks that share scales, and with them the shape of the tensor as a matrix.
    #[must_use]
    pub fn blocks(&self) -> Blocks {
        self.blocks
    }

    /// The scales in the order of the blocks.
    #[must_use]
    pub fn scales(&self) -> &[Scale] {
        &self.scales
    }
}
