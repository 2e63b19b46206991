//! How a scale is made from the largest magnitude.

use altgrad_kernels::Scale;
use serde::{Deserialize, Serialize, Serializer};

use super::AmaxHistory;
use crate::{Error, FormatError, Fp8, QuantizerError, Result};

/// Which largest magnitude (amax) a scale is made from.
///
/// [`Window`](Self::Window), [`Delayed`](Self::Delayed) and [`Static`](Self::Static) require one scale per tensor,
/// since the rows and blocks of one step are not those of another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Scaling {
    /// The largest magnitude of the current tensor.
    Current,
    /// The largest of the last `len` steps, including the current tensor: the scale follows growth at once and
    /// forgets an outlier after `len` steps.
    Window {
        /// Number of steps, at least 1.
        len: usize,
    },
    /// The largest of the `len` steps before this one, so that the scale is known before the tensor is: Transformer
    /// Engine's `DelayedScaling` with `amax_compute_algo="max"`.
    ///
    /// The first scale is 1. A step whose amax is 0, ∞ or NaN does not change the scale. (Transformer Engine also
    /// records an infinity in its history, and keeps the scale unchanged until the infinity has left it.)
    Delayed {
        /// Number of steps, at least 1; Transformer Engine's default is 1024.
        len: usize,
        /// The largest of those steps is mapped to `2^-margin` times the format's largest value, which leaves room for
        /// growth.
        margin: i32,
    },
    /// A fixed scale, from a calibration pass ([`Quantizable::calibrate`](crate::Quantizable::calibrate)) or of your
    /// choice. Values are divided by it.
    Static(#[serde(serialize_with = "serialize_scale")] f32),
}

/// Writes a scale so that it survives being read as `f64` first, as TOML's floats are: with the digits of the `f32`
/// if they suffice, otherwise with those of the `f64` (7.038531e-26 would come back as its neighbour).
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn serialize_scale<S: Serializer>(scale: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    let short = scale.to_string().parse::<f64>().unwrap_or(f64::NAN);
    serializer.serialize_f64(if short as f32 == *scale { short } else { f64::from(*scale) })
}

impl Default for Scaling {
    fn default() -> Self {
        Self::Window { len: 16 }
    }
}

impl Scaling {
    /// An example of each variant, for messages.
    pub(crate) const EXAMPLES: [Self; 4] =
        [Self::Current, Self::Window { len: 16 }, Self::Delayed { len: 1024, margin: 0 }, Self::Static(0.05)];

    /// Whether scales come only from tensors that were measured in earlier steps, so that the first such scale is
    /// that of a later step.
    #[must_use]
    pub fn needs_measurement(self) -> bool {
        matches!(self, Self::Delayed { .. })
    }

    /// The scale, if it is the same in every step.
    #[must_use]
    pub fn static_scale(self) -> Option<f32> {
        match self {
            Self::Static(scale) => Some(scale),
            Self::Current | Self::Window { .. } | Self::Delayed { .. } => None,
        }
    }

    /// Whether scales do not depend on the current tensor alone, which requires one scale per tensor.
    pub(super) fn is_per_tensor(self) -> bool {
        !matches!(self, Self::Current)
    }

    /// Number of earlier steps that scales depend on. The current step is part of a window.
    pub(super) fn steps_before(self) -> usize {
        match self {
            Self::Current | Self::Static(_) => 0,
            Self::Window { len } => len.saturating_sub(1),
            Self::Delayed { len, .. } => len,
        }
    }

    /// What a scale is made from after earlier steps, for a tensor whose largest magnitude is `current`, if that is
    /// known.
    pub(super) fn source(self, current: Option<f32>, history: &AmaxHistory) -> Source {
        match self {
            Self::Current => Source::Tensor(current),
            Self::Window { .. } => Source::Tensor(history.largest().into_iter().chain(current).reduce(f32::max)),
            Self::Delayed { .. } => history.largest().map_or(Source::Nothing, Source::History),
            Self::Static(scale) => Source::Scale(scale),
        }
    }

    pub(super) fn validate(self) -> Result<()> {
        match self {
            Self::Window { len: 0 } => Err(QuantizerError::EmptyWindow.into()),
            Self::Delayed { len: 0, .. } => Err(QuantizerError::EmptyDelay.into()),
            Self::Delayed { margin, .. } if !(-32..=32).contains(&margin) => {
                Err(QuantizerError::MarginOutOfRange { margin }.into())
            }
            Self::Static(scale) => check_scale(scale),
            Self::Current | Self::Window { .. } | Self::Delayed { .. } => Ok(()),
        }
    }

    /// 2 to the power of the margin: the factor by which the range is left unused.
    fn headroom(self) -> f64 {
        match self {
            Self::Delayed { margin, .. } => 2f64.powi(margin),
            Self::Current | Self::Window { .. } | Self::Static(_) => 1.0,
        }
    }
}

/// What a scale is made from.
pub(super) enum Source {
    /// The largest magnitude of the current tensor, perhaps with earlier ones; `None` if no finite one is known.
    Tensor(Option<f32>),
    /// The largest magnitude of earlier steps.
    History(f32),
    /// This scale.
    Scale(f32),
    /// No step was measured yet.
    Nothing,
}

/// What kind of number a scale is, and how values are divided by it.
///
/// Here `amax` is the largest magnitude that the scale is for, or the quantizer's `amax_epsilon` if that is larger,
/// and `largest` is the largest finite value of the format. An `amax` of 0 gives the scale 1 except for
/// [`E8M0`](Self::E8M0), and `scale × largest` is never infinite. [`Infinity`](crate::Infinity) decides what ∞ and
/// NaN give: NaN, or 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ScaleEncoding {
    /// `amax / largest`, rounded to `f32`; values are divided by it. See [`compute_scale`](crate::compute_scale).
    #[default]
    F32,
    /// `1 / multiplier` with `multiplier = largest / amax`, both rounded to `f32`; values are multiplied by the
    /// multiplier. torchao and Transformer Engine compute in this way. It differs from [`F32`](Self::F32) in the last
    /// bit of a scale, and for values next to the midpoint between two codes. A multiplier beyond `f32` becomes the
    /// largest `f32`.
    F32Reciprocal,
    /// The smallest power of two with which nothing overflows, `2^⌈log2(amax / largest)⌉`, from 2⁻¹²⁷ to 2¹²⁷ and
    /// small enough to leave `scale × largest` finite. Quotients and products are exact except at the ends of the
    /// range of `f32`. This is torchao's `round_scales_to_power_of_2` and Transformer Engine's `power_2_scale`.
    PowerOfTwo,
    /// A power of two from 2⁻¹²⁷ to 2¹²⁷ that one byte holds (OCP Microscaling Formats specification 1.0, section
    /// 5.4.1); 2⁻¹²⁷ for an `amax` of 0.
    #[serde(rename = "e8m0")]
    E8M0(E8M0Rule),
}

/// Which power of two an E8M0 scale is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum E8M0Rule {
    /// `2^(⌊log2 amax⌋ - ⌊log2 largest⌋)`, the rule of the OCP Microscaling Formats specification 1.0, section 6.3:
    /// values between `largest` and the next power of two saturate.
    #[default]
    Floor,
    /// The smallest power of two with which nothing saturates, `2^⌈log2(amax / largest)⌉`, as with
    /// [`PowerOfTwo`](ScaleEncoding::PowerOfTwo). Blackwell GPUs and Transformer Engine do this, and torchao's
    /// `RCEIL`.
    RoundUp,
}

impl ScaleEncoding {
    /// An example of each variant, for messages.
    pub(crate) const EXAMPLES: [Self; 5] =
        [Self::F32, Self::F32Reciprocal, Self::PowerOfTwo, Self::E8M0(E8M0Rule::Floor), Self::E8M0(E8M0Rule::RoundUp)];

    /// The scale that is its own reciprocal: 1, or NaN.
    pub(super) fn of_one(self, one: f32) -> Scale {
        if self == Self::F32Reciprocal { Scale::with_multiplier(one, one) } else { Scale::new(one) }
    }

    /// The scale for `amax`.
    pub(super) fn scale(self, amax: f64, format: Fp8, scaling: Scaling) -> Scale {
        let finite = amax.is_finite();
        if !finite || (amax == 0.0 && !matches!(self, Self::E8M0(_))) {
            return self.of_one(1.0);
        }
        let largest = f64::from(format.largest_finite()) / scaling.headroom();
        match self {
            Self::F32 => Scale::new(limit((amax / largest) as f32, format)),
            Self::F32Reciprocal => {
                let multiplier = ((largest / amax) as f32).clamp(f32::from_bits(1), f32::MAX);
                Scale::with_multiplier(limit_above(1.0 / multiplier, format), multiplier)
            }
            Self::PowerOfTwo | Self::E8M0(E8M0Rule::RoundUp) => power_of_two(ceil_log2(amax, largest), format),
            Self::E8M0(E8M0Rule::Floor) => power_of_two(floor_log2(amax) - floor_log2(largest), format),
        }
    }
}

/// The scale that maps `amax` to the largest finite value of `format`: `amax / largest`, in `f32`.
///
/// An `amax` of 0, ∞ or NaN gives 1, as Transformer Engine's current scaling does. The scale is never smaller than the
/// smallest normal `f32` (2⁻¹²⁶), and `scale × largest` is never infinite.
///
/// ```
/// use altgrad::{Fp8, compute_scale};
///
/// assert_eq!(compute_scale(896.0, Fp8::E4M3), 2.0);
/// assert_eq!(compute_scale(0.0, Fp8::E4M3), 1.0);
/// ```
#[must_use]
pub fn compute_scale(amax: f32, format: Fp8) -> f32 {
    ScaleEncoding::F32.scale(f64::from(amax.abs()), format, Scaling::Current).value()
}

/// Limits a quotient that was rounded to `f32` to the range that can be divided by and multiplied with.
fn limit(scale: f32, format: Fp8) -> f32 {
    limit_above(scale.max(f32::MIN_POSITIVE), format)
}

/// Limits a scale from above: near `f32::MAX`, a quotient that was rounded up or has headroom would turn the largest
/// value into infinity on the way back.
fn limit_above(scale: f32, format: Fp8) -> f32 {
    let largest = format.largest_finite();
    let scale = scale.min((f32::MAX / largest).min(f32::MAX));
    if (scale * largest).is_infinite() { scale.next_down() } else { scale }
}

/// 2 to the power of `exponent`, or the nearest scale there is.
fn power_of_two(exponent: i32, format: Fp8) -> Scale {
    let highest = 127.min(127 - floor_log2(f64::from(format.largest_finite())));
    Scale::new(exp2(exponent.clamp(-127, highest)) as f32)
}

/// `⌊log2 x⌋` of a number that is not subnormal; 0 gives less than any other number.
fn floor_log2(x: f64) -> i32 {
    ((x.to_bits() >> (f64::MANTISSA_DIGITS - 1)) & 0x7FF) as i32 - (f64::MAX_EXP - 1)
}

/// `⌈log2(amax / largest)⌉`, exact: `largest` has few significant bits, so its multiples by powers of two are exact.
fn ceil_log2(amax: f64, largest: f64) -> i32 {
    let exponent = floor_log2(amax) - floor_log2(largest);
    if largest * exp2(exponent) >= amax { exponent } else { exponent + 1 }
}

/// 2 to the power of `exponent`, or the smallest normal number if that is larger. `powi` costs more than everything
/// else about a scale, and there is a scale for each block.
fn exp2(exponent: i32) -> f64 {
    f64::from_bits(((exponent.max(f64::MIN_EXP - 1) + f64::MAX_EXP - 1) as u64) << (f64::MANTISSA_DIGITS - 1))
}

/// Whether a power-of-two encoding could give this scale.
pub(crate) fn is_power_of_two(scale: f32) -> bool {
    let exponent = floor_log2(f64::from(scale));
    (-127..=127).contains(&exponent) && f64::from(scale) == exp2(exponent)
}

/// [`FormatError::InvalidScale`](crate::FormatError::InvalidScale) unless a scale is a positive finite number.
pub(super) fn check_scale(scale: f32) -> Result<()> {
    if scale.is_finite() && scale > 0.0 { Ok(()) } else { Err(Error::Format(FormatError::InvalidScale { scale })) }
}
