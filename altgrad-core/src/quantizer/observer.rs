//! Finding the magnitude from which to make a static scale.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::check_finite;
use crate::{ConfigError, Error, Result};

/// How the magnitude for a static scale is chosen from the values that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Observer {
    /// The largest magnitude: no value that was seen is clipped.
    #[default]
    MinMax,
    /// This percentile, above 0 and up to 100, of the magnitudes of the values that are not 0: the few larger ones
    /// are clipped, and the others get finer steps. Magnitudes are counted in bins with a relative width of 2⁻⁸; the
    /// result is the upper end of a bin, or the largest magnitude if that is smaller.
    Percentile(f64),
}

impl Observer {
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Percentile(percentage) if !(percentage > 0.0 && percentage <= 100.0) => {
                Err(Error::Config(ConfigError::InvalidObserver { percentage }))
            }
            Self::MinMax | Self::Percentile(_) => Ok(()),
        }
    }
}

/// Number of low bits of an `f32` magnitude that do not affect its bin.
const IGNORED_BITS: u32 = 15;

/// The values that an observer has seen.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    observer: Observer,
    largest: f32,
    count: u64,
    /// Number of values other than 0 in each bin; empty before the first value, and for an observer that needs no
    /// bins.
    bins: Vec<u64>,
}

impl Observation {
    /// An observation of no values yet.
    pub(crate) fn new(observer: Observer) -> Self {
        Self { observer, largest: 0.0, count: 0, bins: Vec::new() }
    }

    /// The observation of the values of `x`, a tensor in the role of `what`.
    ///
    /// # Errors
    ///
    /// [`TensorError::NotFinite`](crate::TensorError::NotFinite) for a value that is not finite.
    pub(crate) fn of(observer: Observer, x: &Tensor, what: &'static str) -> Result<Self> {
        let (largest, count) = (check_finite(x, what)?, x.elem_count() as u64);
        let mut bins = Vec::new();
        if let Observer::Percentile(_) = observer {
            bins.resize(1 << (31 - IGNORED_BITS), 0);
            let values = x.detach().flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            for value in values.into_iter().filter(|value| *value != 0.0) {
                bins[(value.abs().to_bits() >> IGNORED_BITS) as usize] += 1;
            }
        }
        Ok(Self { observer, largest, count, bins })
    }

    /// Adds the observation of other values by the same observer.
    pub(crate) fn merge(&mut self, other: Self) {
        self.largest = self.largest.max(other.largest);
        self.count += other.count;
        if self.bins.is_empty() {
            self.bins = other.bins;
        } else {
            self.bins.iter_mut().zip(other.bins).for_each(|(count, other)| *count += other);
        }
    }

    /// How the magnitude is found.
    pub(crate) fn observer(&self) -> Observer {
        self.observer
    }

    /// Number of values seen.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The magnitude to make the scale from; 0 if there were only zeros.
    pub(crate) fn amax(&self) -> f32 {
        let Observer::Percentile(percentage) = self.observer else { return self.largest };
        let count: u64 = self.bins.iter().sum();
        let rank = ((percentage / 100.0 * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen >= rank
        };
        let bin = self.bins.iter().position(reached).unwrap_or_default() as u32;
        f32::from_bits(((bin + 1) << IGNORED_BITS) - 1).min(self.largest)
    }
}
