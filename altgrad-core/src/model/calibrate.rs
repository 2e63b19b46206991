//! Calibration: watching what goes into layers, and fixing the scales of activations.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use serde::Serialize;

use super::Quantizable;
use super::inspect::for_each_quantized;
use super::table::{Column, write_table};
use crate::layer::{Calibration, QuantizedLinear};
use crate::quantizer::{AmaxHistory, Granularity, Observation, Observer, Scaling};
use crate::{Error, Result};

/// What [`calibrate`](crate::Quantizable::calibrate) found, layer by layer in the order of declaration.
///
/// `Display` prints a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CalibrationReport {
    /// One entry for each layer whose input has a static scale now.
    pub layers: Vec<LayerCalibration>,
}

/// What was found at one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerCalibration {
    /// Dotted path.
    pub path: String,
    /// Number of input values that were seen.
    pub values: u64,
    /// The magnitude that the scale maps to the format's largest value; 0 if there were only zeros, and then the scale
    /// is 1.
    pub amax: f32,
    /// The scale.
    pub scale: f32,
}

pub(super) fn calibrate<M: Quantizable>(
    model: &mut M,
    observer: Observer,
    passes: impl FnOnce(&M) -> Result<()>,
) -> Result<CalibrationReport> {
    observer.validate()?;
    let mut found = false;
    for_each_quantized(model, |_, layer| found |= can_be_calibrated(layer))?;
    if !found {
        return Err(Error::NothingToCalibrate);
    }
    for_each_quantized(model, |_, layer| {
        let observer = can_be_calibrated(layer).then_some(observer);
        *layer.calibration_mut() = Some(Calibration::new(observer));
    })?;
    // Whatever happens in the caller's code, layers must not go on watching instead of quantizing.
    let outcome = catch_unwind(AssertUnwindSafe(|| passes(model)));
    let mut observations = HashMap::new();
    for_each_quantized(model, |path, layer| {
        let seen = layer.calibration_mut().take().and_then(Calibration::into_observation);
        observations.extend(seen.map(|seen| (path.to_owned(), seen)));
    })?;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
    let idle = observations.iter().filter(|(_, seen)| seen.count() == 0).map(|(path, _)| path).min();
    if let Some(path) = idle {
        return Err(Error::NotCalibrated.at(path));
    }
    let mut layers = Vec::new();
    for_each_quantized(model, |path, layer| {
        layers.extend(observations.get(path).map(|seen| fix_scale(path, layer, seen)));
    })?;
    Ok(CalibrationReport { layers })
}

/// Whether the layer's input has one scale, which can be fixed: rows and blocks are not the same from input to input.
fn can_be_calibrated(layer: &QuantizedLinear) -> bool {
    let activations = layer.recipe().activations.as_ref();
    activations.is_some_and(|quantizer| quantizer.granularity == Granularity::PerTensor)
}

fn fix_scale(path: &str, layer: &mut QuantizedLinear, seen: &Observation) -> LayerCalibration {
    let amax = seen.amax();
    let mut scale = 1.0;
    if let Some(quantizer) = &mut layer.recipe_mut().activations {
        scale = quantizer.static_scale(amax);
        quantizer.scaling = Scaling::Static(scale);
    }
    // The past has no part in a static scale.
    layer.shared().activations.lock().history = AmaxHistory::new(0);
    LayerCalibration { path: path.to_owned(), values: seen.count(), amax, scale }
}

impl CalibrationReport {
    /// The entry of the layer at `path`.
    #[must_use]
    pub fn layer(&self, path: &str) -> Option<&LayerCalibration> {
        self.layers.iter().find(|layer| layer.path == path)
    }
}

const COLUMNS: [Column; 4] =
    [Column::text("layer"), Column::number("values").dispensable(0), Column::number("amax"), Column::number("scale")];

impl fmt::Display for CalibrationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |layer: &LayerCalibration| {
            let LayerCalibration { path, values, amax, scale } = layer;
            vec![path.clone(), values.to_string(), format!("{amax:.4e}"), format!("{scale:.4e}")]
        };
        write_table(f, &COLUMNS, &self.layers.iter().map(row).collect::<Vec<_>>())
    }
}
