//! How one tensor is quantized: [`Quantizer`], its scale, fake quantization and packed codes.

mod cache;
mod codes;
mod cpu;
mod distortion;
mod fake_quantize;
mod fixed_weight;
mod fp8_tensor;
mod granularity;
mod history;
mod in_place;
mod observer;
mod operand;
mod portable;
mod rounding;
mod scaling;
mod state;
mod tensor_ops;
pub(crate) mod text;
mod watch;

pub(crate) use codes::{
    CodeBuffer, Codes, gather_windows, has_kernels, scatter_windows, sum_rows, to_storage, transposed, with_floats,
};
pub(crate) use cpu::is_supported;
pub use distortion::Distortion;
pub(crate) use distortion::{DistortionSums, sqnr_db};
pub(crate) use fake_quantize::{Clip, fake_quantize_with};
pub use fake_quantize::{Ste, fake_quantize, fake_quantize_with_scale};
pub(crate) use fixed_weight::{FixedWeight, Layout};
pub use fp8_tensor::Fp8Tensor;
pub use granularity::Granularity;
pub use history::AmaxHistory;
pub(crate) use in_place::InPlace;
pub(crate) use observer::Observation;
pub use observer::Observer;
pub(crate) use operand::{CachedCodes, CachedTranspose, Operand, Uses};
pub use rounding::Rounding;
pub(crate) use rounding::stream;
pub(crate) use scaling::is_power_of_two;
pub use scaling::{E8M0Rule, ScaleEncoding, Scaling, compute_scale};
pub(crate) use state::QuantizerState;
pub(crate) use tensor_ops::check_finite;
pub(crate) use watch::Watch;

use serde::Serialize;

use crate::{Fp8, Infinity, Overflow, QuantizerError, Result};

/// How one tensor is quantized.
///
/// By default, values are rounded to the nearest value of `format`, ties to even, and saturate. The whole tensor has
/// one `f32` scale, made from the largest magnitude of the last 16 steps.
///
/// ```
/// use altgrad::{Fp8, Granularity, Quantizer, Rounding, ScaleEncoding, Scaling};
///
/// // Nothing but a format.
/// assert_eq!(Quantizer::from(Fp8::E5M2).scaling, Scaling::Window { len: 16 });
///
/// // One power of two for each output channel, from the tensor at hand, rounded stochastically.
/// let quantizer = Quantizer::new(Fp8::E4M3)
///     .granularity(Granularity::PerRow)
///     .scale_encoding(ScaleEncoding::PowerOfTwo)
///     .rounding(Rounding::Stochastic { seed: 1 });
/// assert_eq!(quantizer.scaling, Scaling::Current);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Quantizer {
    /// The format of the codes.
    pub format: Fp8,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Which largest magnitude (amax) a scale is made from.
    pub scaling: Scaling,
    /// What kind of number a scale is.
    pub scale_encoding: ScaleEncoding,
    /// A lower bound on amax: a smaller amax is raised to it. 0 means no bound. torchao uses 1e-12; the name is
    /// Transformer Engine's.
    pub amax_epsilon: f64,
    /// An upper bound on amax: a larger amax is lowered to it, and values beyond it saturate. torchao calls it
    /// `hp_value_ub`, FBGEMM `scale_ub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amax_bound: Option<f64>,
    /// How values between two codes are rounded.
    pub rounding: Rounding,
    /// What becomes of values beyond the format's range.
    pub overflow: Overflow,
    /// What becomes of infinities, and of a tensor that is not finite.
    pub infinity: Infinity,
}

impl Quantizer {
    /// Quantizes to `format` with the defaults of everything else.
    #[must_use]
    pub fn new(format: Fp8) -> Self {
        Self {
            format,
            granularity: Granularity::default(),
            scaling: Scaling::default(),
            scale_encoding: ScaleEncoding::default(),
            amax_epsilon: 0.0,
            amax_bound: None,
            rounding: Rounding::default(),
            overflow: Overflow::default(),
            infinity: Infinity::default(),
        }
    }

    /// Sets the format.
    #[must_use]
    pub fn format(self, format: Fp8) -> Self {
        Self { format, ..self }
    }

    /// Sets the granularity. Anything finer than one scale per tensor also sets the scaling to [`Scaling::Current`],
    /// since the rows and blocks of one step are not those of another.
    #[must_use]
    pub fn granularity(self, granularity: Granularity) -> Self {
        let scaling = if granularity == Granularity::PerTensor { self.scaling } else { Scaling::Current };
        Self { granularity, scaling, ..self }
    }

    /// Sets the scaling.
    #[must_use]
    pub fn scaling(self, scaling: Scaling) -> Self {
        Self { scaling, ..self }
    }

    /// Sets the kind of scale.
    #[must_use]
    pub fn scale_encoding(self, scale_encoding: ScaleEncoding) -> Self {
        Self { scale_encoding, ..self }
    }

    /// Sets the lower bound on amax.
    #[must_use]
    pub fn amax_epsilon(self, amax_epsilon: f64) -> Self {
        Self { amax_epsilon, ..self }
    }

    /// Sets the upper bound on amax, or removes it.
    #[must_use]
    pub fn amax_bound(self, amax_bound: impl Into<Option<f64>>) -> Self {
        Self { amax_bound: amax_bound.into(), ..self }
    }

    /// Sets the rounding.
    #[must_use]
    pub fn rounding(self, rounding: Rounding) -> Self {
        Self { rounding, ..self }
    }

    /// Sets what becomes of values beyond the format's range.
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        Self { overflow, ..self }
    }

    /// Sets what becomes of infinities.
    #[must_use]
    pub fn infinity(self, infinity: Infinity) -> Self {
        Self { infinity, ..self }
    }

    /// Checks that all fields are valid and fit together.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidQuantizer`](crate::ConfigError::InvalidQuantizer) for a window or delay of 0 steps, a
    /// margin below -32 or above 32, a block without elements, a scaling other than [`Scaling::Current`] for more
    /// than one scale per tensor, an epsilon that is negative or not a finite `f32`, a bound that is not positive, is
    /// below the epsilon or is not a finite `f32`, or a static scale that its encoding cannot hold;
    /// [`FormatError::InvalidScale`](crate::FormatError::InvalidScale) for a static scale that is not a positive
    /// finite number.
    pub fn validate(&self) -> Result<()> {
        self.granularity.validate()?;
        self.scaling.validate()?;
        if self.granularity != Granularity::PerTensor && self.scaling.is_per_tensor() {
            let (scaling, granularity) = (format!("{:?}", self.scaling), format!("{:?}", self.granularity));
            return Err(QuantizerError::ScalingNotForBlocks { scaling, granularity }.into());
        }
        match (self.scaling.static_scale(), self.scale_encoding) {
            (Some(scale), ScaleEncoding::PowerOfTwo | ScaleEncoding::E8M0(_)) if !is_power_of_two(scale) => {
                return Err(QuantizerError::ScaleNotPowerOfTwo { scale }.into());
            }
            _ => {}
        }
        let epsilon = self.amax_epsilon;
        if !(epsilon >= 0.0 && epsilon <= f64::from(f32::MAX)) {
            return Err(QuantizerError::InvalidEpsilon { epsilon }.into());
        }
        match self.amax_bound {
            Some(bound) if !(bound > 0.0 && bound >= epsilon && bound <= f64::from(f32::MAX)) => {
                Err(QuantizerError::InvalidBound { bound }.into())
            }
            _ => Ok(()),
        }
    }
}

impl From<Fp8> for Quantizer {
    fn from(format: Fp8) -> Self {
        Self::new(format)
    }
}
