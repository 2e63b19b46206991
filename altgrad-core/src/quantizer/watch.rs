//! Watching an operand while a calibration pass runs.

use altgrad_kernels::lock::Lock;
use candle_core::Tensor;

use super::{Observation, Observer};
use crate::Result;

/// The calibration pass that watches an operand, and what an unfinished one has seen.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    running: Lock<Option<Observation>>,
    unfinished: Lock<Option<Observation>>,
}

impl Watch {
    /// Begins to watch, and continues an unfinished calibration by the same observer if there is one.
    pub(crate) fn begin(&self, observer: Observer) {
        let before = self.unfinished.get().filter(|before| before.observer() == observer);
        self.running.replace(Some(before.unwrap_or_else(|| Observation::new(observer))));
    }

    /// Adds the values of the operand, if they are watched.
    ///
    /// # Errors
    ///
    /// [`TensorError::NotFinite`](crate::TensorError::NotFinite) for a value that is not finite.
    pub(crate) fn see(&self, x: &Tensor, what: &'static str) -> Result<()> {
        let Some(observer) = self.running.with(|seen| seen.as_ref().map(Observation::observer)) else { return Ok(()) };
        let of_x = Observation::of(observer, x, what)?;
        self.running.with(|seen| {
            if let Some(seen) = seen {
                seen.merge(of_x);
            }
        });
        Ok(())
    }

    /// Ends watching, with what was seen.
    pub(crate) fn end(&self) -> Option<Observation> {
        self.running.replace(None)
    }

    /// Keeps what was seen for the next calibration, or drops what was kept.
    pub(crate) fn keep(&self, seen: Option<Observation>) {
        self.unfinished.replace(seen);
    }
}
