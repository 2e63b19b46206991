//! What a quantizer remembers from step to step, and the conversion that follows from it.

use altgrad_kernels::{self as kernels, Blocks, Conversion, Draws, Scale};
use candle_core::Tensor;

use super::scaling::Source;
use super::{AmaxHistory, Quantizer, Rounding, tensor_ops};
use crate::{Infinity, Result};

/// What a quantizer remembers from step to step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QuantizerState {
    /// The largest magnitudes that scales depend on.
    pub(crate) history: AmaxHistory,
    /// Number of steps so far, which random draws depend on.
    pub(crate) step: u64,
}

impl QuantizerState {
    /// The state of a tensor without a quantizer.
    pub(crate) fn nothing() -> Self {
        Self { history: AmaxHistory::new(0), step: 0 }
    }
}

impl Quantizer {
    /// The scale for a tensor, row or block whose largest magnitude is `amax`, after the steps recorded in `history`.
    ///
    /// An `amax` of ∞ or NaN says nothing about the size of the other values. A scale made from it is NaN, so that
    /// everything under that scale becomes NaN. If infinities [saturate](crate::Infinity::Saturate) instead, the
    /// scale is made from the history alone, or is 1 if the history is empty.
    #[must_use]
    pub fn scale(&self, amax: f32, history: &AmaxHistory) -> f32 {
        self.scale_of(amax, history).value()
    }

    /// Adds a step with the largest magnitude `amax` to `history`, unless the scaling ignores it: ∞ and NaN, and 0 in
    /// delayed scaling.
    pub fn record(&self, amax: f32, history: &mut AmaxHistory) {
        if !(self.scaling.needs_measurement() && amax == 0.0) {
            history.record(amax);
        }
    }

    /// An empty history of the length that the scaling looks back over.
    #[must_use]
    pub fn history(&self) -> AmaxHistory {
        AmaxHistory::new(self.scaling.steps_before())
    }

    /// The state before the first step.
    pub(crate) fn state(&self) -> QuantizerState {
        QuantizerState { history: self.history(), step: 0 }
    }

    /// How `x` is converted in the current step, and its largest magnitude if that goes into the history. Random
    /// draws come from `stream`.
    pub(crate) fn conversion(
        &self,
        x: &Tensor,
        what: &'static str,
        state: &QuantizerState,
        stream: u32,
    ) -> Result<(Conversion, Option<f32>)> {
        let blocks = self.granularity.blocks(x.dims());
        let (scales, recorded) = if let Some(scale) = self.scaling.static_scale() {
            (vec![Scale::new(scale); blocks.count()], None)
        } else {
            let amaxes = tensor_ops::block_amax(x, blocks, what)?;
            let scales = kernels::map(&amaxes, |amax| self.scale_of(amax as f32, &state.history));
            // Scaling that looks back has one scale, and so one largest magnitude.
            let recorded = if self.scaling.is_per_tensor() { amaxes.first() } else { None };
            (scales, recorded.map(|amax| *amax as f32))
        };
        let draws = match self.rounding {
            Rounding::NearestEven => None,
            Rounding::Stochastic { seed } => Some(Draws { seed, stream, step: state.step }),
        };
        let conversion = self.under(blocks, scales, draws);
        Ok((conversion, recorded))
    }

    /// The conversion of these blocks under these scales.
    fn under(&self, blocks: Blocks, scales: Vec<Scale>, draws: Option<Draws>) -> Conversion {
        let nearest =
            Conversion::saturating(self.format, blocks, scales).overflow(self.overflow).infinity(self.infinity);
        match draws {
            Some(draws) => nearest.draws(draws),
            None => nearest,
        }
    }

    /// How a weight is converted in the first step, with random draws from `stream`.
    pub(crate) fn first_step(&self, weight: &Tensor, stream: u32) -> Result<Conversion> {
        Ok(self.conversion(weight, "the weight", &self.state(), stream)?.0)
    }

    /// How a part of a weight is converted in the first step, if the weight as a whole has one scale and the largest
    /// magnitude `amax`, and rounding is not stochastic.
    pub(crate) fn conversion_under(&self, part: &Tensor, amax: f32) -> Conversion {
        let (blocks, scales) = (self.granularity.blocks(part.dims()), vec![self.scale_of(amax, &self.history())]);
        self.under(blocks, scales, None)
    }

    /// The conversion of `x` alone, as in the first step.
    pub(super) fn first_conversion(&self, x: &Tensor, what: &'static str) -> Result<Conversion> {
        self.validate()?;
        tensor_ops::check_range(x, what)?;
        Ok(self.conversion(x, what, &self.state(), 0)?.0)
    }

    /// The static scale for a tensor whose largest magnitude will be about `amax`; 1 if that is 0, which says
    /// nothing.
    pub(crate) fn static_scale(&self, amax: f32) -> f32 {
        if amax == 0.0 {
            return 1.0;
        }
        self.scale_encoding.scale(self.within_bounds(amax), self.format, self.scaling).value()
    }

    /// This magnitude within the quantizer's bounds, from which the scale is made.
    fn within_bounds(&self, amax: f32) -> f64 {
        f64::from(amax).max(self.amax_epsilon).min(self.amax_bound.unwrap_or(f64::INFINITY))
    }

    fn scale_of(&self, amax: f32, history: &AmaxHistory) -> Scale {
        let current = amax.is_finite().then_some(amax.abs());
        let largest = match self.scaling.source(current, history) {
            Source::Tensor(_) if current.is_none() && self.infinity == Infinity::Propagate => {
                return self.scale_encoding.of_one(f32::NAN);
            }
            Source::Tensor(None) | Source::Nothing => return self.scale_encoding.of_one(1.0),
            Source::Tensor(Some(largest)) | Source::History(largest) => largest,
            Source::Scale(scale) => return Scale::new(scale),
        };
        self.scale_encoding.scale(self.within_bounds(largest), self.format, self.scaling)
    }
}
