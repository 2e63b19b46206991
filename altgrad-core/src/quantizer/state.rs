//! What a quantizer remembers from step to step, and the conversion that follows from it.

use candle_core::Tensor;

use super::{AmaxHistory, Quantizer, Rounding, Scaling, amax, tensor_ops};
use crate::Result;
use crate::kernels::{Conversion, Draws, Scale};

/// What a quantizer remembers from step to step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QuantizerState {
    /// The largest magnitudes that scales depend on.
    pub(crate) history: AmaxHistory,
    /// Number of steps so far, which random draws depend on.
    pub(crate) step: u64,
}

impl QuantizerState {
    /// The state of no quantizer.
    pub(crate) fn nothing() -> Self {
        Self { history: AmaxHistory::new(0), step: 0 }
    }
}

impl Quantizer {
    /// How things are before the first step.
    pub(crate) fn state(&self) -> QuantizerState {
        QuantizerState { history: self.history(), step: 0 }
    }

    /// How `x` is to be converted in the step at hand, and its largest magnitude if that goes into the history. Random
    /// draws come from `stream`.
    pub(crate) fn conversion(
        &self,
        x: &Tensor,
        what: &'static str,
        state: &QuantizerState,
        stream: u32,
    ) -> Result<(Conversion, Option<f32>)> {
        let blocks = self.granularity.blocks(x.dims());
        let (scales, recorded) = match self.scaling {
            Scaling::Static(scale) => (vec![Scale::new(scale); blocks.count()], None),
            Scaling::Current => {
                let amaxes = tensor_ops::block_amax(x, blocks, what)?;
                (amaxes.into_iter().map(|amax| self.scale_of(amax as f32, &state.history)).collect(), None)
            }
            Scaling::Window { .. } | Scaling::Delayed { .. } => {
                let amax = amax(x, what)? as f32;
                (vec![self.scale_of(amax, &state.history)], Some(amax))
            }
        };
        let draws = match self.rounding {
            Rounding::NearestEven => None,
            Rounding::Stochastic { seed } => Some(Draws { seed, stream, step: state.step }),
        };
        let conversion = Conversion { format: self.format, overflow: self.overflow, blocks, scales, draws };
        Ok((conversion, recorded))
    }

    /// The conversion of `x` alone, as in the first step.
    pub(super) fn first_conversion(&self, x: &Tensor, what: &'static str) -> Result<Conversion> {
        self.validate()?;
        tensor_ops::check_range(x, what)?;
        Ok(self.conversion(x, what, &self.state(), 0)?.0)
    }

    pub(super) fn scale_of(&self, amax: f32, history: &AmaxHistory) -> Scale {
        let current = amax.is_finite().then_some(amax.abs());
        let largest = match self.scaling {
            Scaling::Static(scale) => return Scale::new(scale),
            Scaling::Current => current,
            Scaling::Window { .. } => history.largest().into_iter().chain(current).reduce(f32::max),
            Scaling::Delayed { .. } => match history.largest() {
                None => return self.scale_encoding.one(),
                largest => largest,
            },
        };
        let largest = largest.map_or(f64::NAN, |largest| f64::from(largest).max(self.amax_epsilon));
        self.scale_encoding.scale(largest, self.format, self.scaling)
    }
}
