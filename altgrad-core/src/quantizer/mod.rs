//! How one tensor is quantized: [`Quantizer`], its scale, fake quantization and packed codes.

mod cpu;
mod distortion;
mod fake_quantize;
mod fp8_tensor;
mod history;
mod scaling;

pub(crate) use cpu::{amax, check_finite, dispatch_float, is_supported, with_values};
pub use distortion::Distortion;
pub(crate) use fake_quantize::fake_quantize_cached;
pub use fake_quantize::{Ste, fake_quantize, fake_quantize_with_scale};
pub use fp8_tensor::Fp8Tensor;
pub use history::AmaxHistory;
pub use scaling::{Scaling, compute_scale};

use candle_core::Tensor;
use serde::Serialize;

use crate::format::Fp8;
use crate::{Error, Result};

/// How one tensor is quantized: to the nearest value of `format`, ties to even, under one scale for the whole tensor.
///
/// ```
/// use altgrad_core::{Fp8, Quantizer, Scaling};
///
/// let quantizer = Quantizer::new(Fp8::E4M3).scaling(Scaling::Current);
/// assert_eq!(quantizer.format, Fp8::E4M3);
/// // A bare format takes the largest magnitude of the last 16 steps.
/// assert_eq!(Quantizer::from(Fp8::E5M2).scaling, Scaling::Window { len: 16 });
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Quantizer {
    /// The format of the codes.
    pub format: Fp8,
    /// Which largest magnitude the scale is made from.
    pub scaling: Scaling,
}

impl Quantizer {
    /// Quantizes to `format` with the default scaling, [`Scaling::Window`] over 16 steps.
    #[must_use]
    pub fn new(format: Fp8) -> Self {
        Self { format, scaling: Scaling::default() }
    }

    /// The same with another scaling.
    #[must_use]
    pub fn scaling(self, scaling: Scaling) -> Self {
        Self { scaling, ..self }
    }

    /// The scale for a tensor whose largest magnitude is `amax`, after the steps recorded in `history`.
    ///
    /// A non-finite `amax` says nothing about the size of the other values, so the history alone decides; see
    /// [`compute_scale`].
    #[must_use]
    pub fn scale(&self, amax: f32, history: &AmaxHistory) -> f32 {
        let current = amax.is_finite().then_some(amax);
        let largest = match self.scaling {
            Scaling::Current => current,
            Scaling::Window { .. } => history.largest().into_iter().chain(current).reduce(f32::max),
        };
        compute_scale(largest.unwrap_or(amax), self.format)
    }

    /// An empty history of the length that the scaling looks back over.
    #[must_use]
    pub fn history(&self) -> AmaxHistory {
        AmaxHistory::new(match self.scaling {
            Scaling::Current => 0,
            // The step at hand is part of the window, so the history holds those before it.
            Scaling::Window { len } => len.saturating_sub(1),
        })
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidQuantizer`] for a window of length 0.
    pub fn validate(&self) -> Result<()> {
        match self.scaling {
            Scaling::Window { len: 0 } => Err(Error::InvalidQuantizer {
                why: "a window of length 0 has no amax to scale by; use `Scaling::Window { len: 1 }` or more, \
                      or `Scaling::Current`"
                    .to_owned(),
            }),
            Scaling::Current | Scaling::Window { .. } => Ok(()),
        }
    }

    /// The scale for `x` alone, as on the first step.
    pub(crate) fn first_scale(&self, x: &Tensor, what: &'static str) -> Result<f32> {
        self.validate()?;
        let amax = amax(x, what)?;
        if amax.is_finite() && (amax as f32).is_infinite() {
            return Err(Error::AmaxOutOfRange { what, amax });
        }
        Ok(self.scale(amax as f32, &AmaxHistory::new(0)))
    }
}

impl From<Fp8> for Quantizer {
    fn from(format: Fp8) -> Self {
        Self::new(format)
    }
}
