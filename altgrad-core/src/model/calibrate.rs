//! Calibration: watching what goes into layers, and fixing the scales of activations.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use comfy_table::Table;
use serde::Serialize;

use super::Quantizable;
use super::inspect::Slots;
use super::report::style;
use crate::layer::{Calibration, Linear, QuantizedLinear};
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
    /// The magnitude that the scale maps to the format's largest value.
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
    for_each_quantized(model, |_, layer| {
        found |= can_be_calibrated(layer);
        Ok(())
    })?;
    if !found {
        return Err(Error::NothingToCalibrate);
    }
    for_each_quantized(model, |_, layer| {
        *layer.calibration_mut() = Some(Calibration::new(observer));
        Ok(())
    })?;
    // Whatever happens in the caller's code, layers must not go on watching instead of quantizing.
    let outcome = catch_unwind(AssertUnwindSafe(|| passes(model)));
    let mut observations = Vec::new();
    for_each_quantized(model, |path, layer| {
        let observation = layer.calibration_mut().take().map(Calibration::into_observation);
        observations.extend(observation.filter(|_| can_be_calibrated(layer)).map(|seen| (path.to_owned(), seen)));
        Ok(())
    })?;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
    if let Some((path, _)) = observations.iter().find(|(_, seen)| seen.count() == 0) {
        return Err(Error::NotCalibrated.at(path));
    }
    let mut observations = observations.into_iter();
    let mut layers = Vec::new();
    for_each_quantized(model, |path, layer| {
        if can_be_calibrated(layer)
            && let Some((_, seen)) = observations.next()
        {
            layers.push(fix_scale(path, layer, &seen));
        }
        Ok(())
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
        scale = quantizer.clone().scaling(Scaling::Current).scale(amax, &AmaxHistory::new(0));
        quantizer.scaling = Scaling::Static(scale);
    }
    // The past has no part in a static scale.
    layer.shared().activations.lock().history = AmaxHistory::new(0);
    LayerCalibration { path: path.to_owned(), values: seen.count(), amax, scale }
}

/// Calls `visit` with each quantized layer and its path.
pub(super) fn for_each_quantized<M: Quantizable + ?Sized>(
    model: &mut M,
    mut visit: impl FnMut(&str, &mut QuantizedLinear) -> Result<()>,
) -> Result<()> {
    for (path, layer) in Slots::of(model)?.0 {
        if let Linear::Quantized(layer) = layer {
            visit(&path, layer)?;
        }
    }
    Ok(())
}

impl fmt::Display for CalibrationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.set_header(["layer", "values", "amax", "scale"]);
        for LayerCalibration { path, values, amax, scale } in &self.layers {
            table.add_row([path.clone(), values.to_string(), format!("{amax:.4e}"), format!("{scale:.4e}")]);
        }
        style(&mut table, f, 1);
        write!(f, "{table}")
    }
}
