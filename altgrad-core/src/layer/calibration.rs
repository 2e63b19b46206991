//! What a layer does with its input while a calibration pass runs.

use altgrad_kernels::lock::Lock;
use candle_core::Tensor;

use crate::Result;
use crate::quantizer::{Observation, Observer};

/// What a layer does with its input while a calibration pass runs: it computes in full precision, and it watches the
/// input if its scale is to be found.
#[derive(Debug)]
pub(crate) struct Calibration(Option<Watching>);

#[derive(Debug)]
struct Watching {
    observer: Observer,
    seen: Lock<Observation>,
}

impl Calibration {
    /// Computes in full precision and does not watch.
    pub(crate) const IDLE: Self = Self(None);

    /// Goes on watching the input where `seen` ended.
    pub(crate) fn watch(observer: Observer, seen: Observation) -> Self {
        Self(Some(Watching { observer, seen: Lock::new(seen) }))
    }

    pub(super) fn observe(&self, x: &Tensor) -> Result<()> {
        let Some(Watching { observer, seen }) = &self.0 else { return Ok(()) };
        let of_x = Observation::of(*observer, x, "the input")?;
        seen.with(|seen| seen.merge(of_x));
        Ok(())
    }

    pub(crate) fn into_observation(self) -> Option<Observation> {
        self.0.map(|watching| watching.seen.into_inner())
    }
}
