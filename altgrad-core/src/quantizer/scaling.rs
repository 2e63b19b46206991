//! From the largest magnitude to the scale.

use serde::Serialize;

use crate::format::Fp8;
use crate::{Error, Result};

/// Which largest magnitude (amax) a scale is made from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub enum Scaling {
    /// That of the tensor at hand.
    Current,
    /// The largest of the last `len` steps, the tensor at hand included: the scale follows growth at once and
    /// forgets an outlier after `len` steps.
    Window {
        /// Number of steps, at least 1.
        len: usize,
    },
}

impl Default for Scaling {
    fn default() -> Self {
        Self::Window { len: 16 }
    }
}

/// The scale that maps `amax` to the largest finite value of `format`: `amax / largest`, in `f32`.
///
/// An `amax` of 0, ∞ or NaN gives 1, as Transformer Engine's current scaling does. The scale is never smaller than the
/// smallest normal `f32` (2⁻¹²⁶), and `scale × largest` is never infinite.
///
/// ```
/// use altgrad_core::{Fp8, compute_scale};
///
/// assert_eq!(compute_scale(896.0, Fp8::E4M3), 2.0);
/// assert_eq!(compute_scale(0.0, Fp8::E4M3), 1.0);
/// ```
#[must_use]
pub fn compute_scale(amax: f32, format: Fp8) -> f32 {
    let amax = amax.abs();
    if amax == 0.0 || !amax.is_finite() {
        return 1.0;
    }
    let largest = format.largest_finite();
    let scale = (amax / largest).clamp(f32::MIN_POSITIVE, f32::MAX);
    // Near `f32::MAX` a quotient that was rounded up would bring the largest value back as infinity.
    if (scale * largest).is_infinite() { scale.next_down() } else { scale }
}

/// [`Error::InvalidScale`] unless a scale is a positive finite number.
pub(super) fn check_scale(scale: f32) -> Result<()> {
    if scale.is_finite() && scale > 0.0 { Ok(()) } else { Err(Error::InvalidScale { scale }) }
}
