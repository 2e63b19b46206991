//! Finding the magnitude that a static scale is to be made from.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::check_finite;
use crate::{Error, Result};

/// How the magnitude that a static scale is made from follows from the values that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Observer {
    /// The largest: nothing that was seen is clipped.
    #[default]
    MinMax,
    /// The magnitude that this percentage of the values that are not 0 does not exceed, above 0 and up to 100: the few
    /// largest are clipped, and the others get finer steps. Magnitudes are counted in bins of 2⁻⁸ of their size, and the
    /// upper end of the bin counts.
    Percentile(f64),
}

impl Observer {
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Percentile(percentage) if !(percentage > 0.0 && percentage <= 100.0) => {
                Err(Error::InvalidObserver { percentage })
            }
            Self::MinMax | Self::Percentile(_) => Ok(()),
        }
    }
}

/// Bits of an `f32` magnitude that do not choose its bin.
const IGNORED_BITS: u32 = 15;

/// The values that an observer has seen.
#[derive(Debug)]
pub(crate) struct Observation {
    observer: Observer,
    largest: f32,
    count: u64,
    /// Number of values other than 0 in each bin; empty for an observer that needs none.
    bins: Vec<u64>,
}

impl Observation {
    pub(crate) fn new(observer: Observer) -> Self {
        let bins = match observer {
            Observer::MinMax => Vec::new(),
            Observer::Percentile(_) => vec![0; 1 << (31 - IGNORED_BITS)],
        };
        Self { observer, largest: 0.0, count: 0, bins }
    }

    /// Adds the values of `x`, a tensor in the role of `what`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] for a value that is not finite.
    pub(crate) fn observe(&mut self, x: &Tensor, what: &'static str) -> Result<()> {
        self.largest = self.largest.max(check_finite(x, what)?);
        self.count += x.elem_count() as u64;
        if !self.bins.is_empty() {
            let values = x.detach().flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            for value in values.into_iter().filter(|value| *value != 0.0) {
                self.bins[(value.abs().to_bits() >> IGNORED_BITS) as usize] += 1;
            }
        }
        Ok(())
    }

    /// Number of values seen.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The magnitude to make the scale from; 0 if there was nothing but zeros.
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
