//! What a layer does with its input while a calibration pass runs.

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use crate::Result;
use crate::quantizer::{Observation, Observer};

/// What a layer does with its input while a calibration pass runs: it computes in full precision, and it watches the
/// input if its scale is to be found.
#[derive(Debug)]
pub(crate) struct Calibration(Option<Mutex<Observation>>);

impl Calibration {
    /// Watches the input if there is an observer.
    pub(crate) fn new(observer: Option<Observer>) -> Self {
        Self(observer.map(|observer| Mutex::new(Observation::new(observer))))
    }

    pub(super) fn observe(&self, x: &Tensor) -> Result<()> {
        match &self.0 {
            Some(seen) => seen.lock().unwrap_or_else(PoisonError::into_inner).observe(x, "the input"),
            None => Ok(()),
        }
    }

    pub(crate) fn into_observation(self) -> Option<Observation> {
        self.0.map(|seen| seen.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
