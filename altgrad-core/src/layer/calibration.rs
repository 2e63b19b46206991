//! What a layer sees of its input while a calibration pass runs.

use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;

use crate::Result;
use crate::quantizer::{Observation, Observer};

/// What a layer has seen of its input so far.
#[derive(Debug)]
pub(crate) struct Calibration(Mutex<Observation>);

impl Calibration {
    pub(crate) fn new(observer: Observer) -> Self {
        Self(Mutex::new(Observation::new(observer)))
    }

    pub(super) fn observe(&self, x: &Tensor) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).observe(x, "the input")
    }

    pub(crate) fn into_observation(self) -> Observation {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Calibration {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}
