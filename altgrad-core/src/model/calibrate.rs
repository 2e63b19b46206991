//! Calibration: observes the inputs of layers and fixes the scales of activations.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use serde::Serialize;

use super::Visit;
use super::inspect::for_each_quantized;
use super::table::{Column, write_table};
use crate::quantizer::{AmaxHistory, Granularity, Observation, Observer, QuantizerState, Scaling};
use crate::slot::Quantization;
use crate::{Error, ModelError, Result};

/// What [`calibrate`](crate::Quantizable::calibrate) found, layer by layer in the order of declaration.
///
/// `Display` prints a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CalibrationReport {
    /// One entry for each layer whose input has a static scale now.
    pub layers: Vec<LayerCalibration>,
    /// The paths of layers that no input reached, and whose scales stay as they were: see [`IdleLayers::LeaveAsIs`].
    pub idle: Vec<String>,
}

/// How to calibrate: [`calibrate_with`](crate::Quantizable::calibrate_with) takes it, or an [`Observer`] alone.
///
/// ```
/// use altgrad::{CalibrationConfig, IdleLayers, Observer};
///
/// let config = CalibrationConfig::new(Observer::Percentile(99.9)).idle_layers(IdleLayers::LeaveAsIs);
/// assert_eq!(CalibrationConfig::from(Observer::MinMax).idle_layers, IdleLayers::Error);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CalibrationConfig {
    /// How a scale is computed from the observed values.
    pub observer: Observer,
    /// What to do with layers that no input reached.
    pub idle_layers: IdleLayers,
}

/// What to do with layers that no input reached in calibration, such as experts that no token was routed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdleLayers {
    /// Fail with their names. What the other layers saw is kept: calibrate again with inputs that reach the rest, or
    /// with [`LeaveAsIs`](Self::LeaveAsIs) and no inputs at all.
    #[default]
    Error,
    /// Leave their scales as they are (dynamic, unless the layers were calibrated before), and name the layers in the
    /// report.
    LeaveAsIs,
}

impl CalibrationConfig {
    /// With this observer, and defaults for everything else.
    #[must_use]
    pub fn new(observer: Observer) -> Self {
        Self { observer, ..Self::default() }
    }

    /// The same with another way to treat layers that no input reached.
    #[must_use]
    pub fn idle_layers(self, idle_layers: IdleLayers) -> Self {
        Self { idle_layers, ..self }
    }
}

impl From<Observer> for CalibrationConfig {
    fn from(observer: Observer) -> Self {
        Self::new(observer)
    }
}

/// What was found at one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerCalibration {
    /// Dotted path.
    pub path: String,
    /// Number of observed input values.
    pub values: u64,
    /// The magnitude that the scale maps to the format's largest value; 0 if there were only zeros, and then the scale
    /// is 1.
    pub amax: f32,
    /// The scale.
    pub scale: f32,
}

pub(super) fn calibrate<M: Visit + ?Sized>(
    model: &mut M,
    config: CalibrationConfig,
    passes: impl FnOnce(&M) -> Result<()>,
) -> Result<CalibrationReport> {
    let CalibrationConfig { observer, idle_layers } = config;
    observer.validate()?;
    let mut found = false;
    for_each_quantized(model, |_, layer| found |= can_be_calibrated(layer))?;
    if !found {
        return Err(Error::Model(ModelError::NothingToCalibrate));
    }
    for_each_quantized(model, |_, layer| {
        layer.is_calibrating = true;
        if can_be_calibrated(layer) {
            layer.operands.activations.watch.begin(observer);
        }
    })?;
    // Even if the caller's code fails or panics, layers must stop observing and quantize again.
    let outcome = catch_unwind(AssertUnwindSafe(|| passes(model)));
    let mut observations = Vec::new();
    for_each_quantized(model, |path, layer| {
        layer.is_calibrating = false;
        observations.extend(layer.operands.activations.watch.end().map(|seen| (path.to_owned(), seen)));
    })?;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
    let is_idle = |seen: &Observation| seen.count() == 0;
    let idle = observations.iter().filter(|(_, seen)| is_idle(seen)).map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let fails = idle.len() == observations.len() || !idle.is_empty() && idle_layers == IdleLayers::Error;
    let mut observations = observations.into_iter();
    let mut layers = Vec::new();
    for_each_quantized(model, |path, layer| {
        let seen = if can_be_calibrated(layer) { observations.next().map(|(_, seen)| seen) } else { None };
        let watch = &layer.operands.activations.watch;
        if fails {
            watch.keep(seen);
        } else {
            watch.keep(None);
            layers.extend(seen.filter(|seen| !is_idle(seen)).map(|seen| fix_scale(path, layer, &seen)));
        }
    })?;
    if fails {
        Err(Error::Model(ModelError::NotCalibrated { layers: idle }))
    } else {
        Ok(CalibrationReport { layers, idle })
    }
}

/// Whether the layer's input has a single scale, which can be fixed; rows and blocks differ from input to input.
fn can_be_calibrated(layer: &Quantization) -> bool {
    let activations = layer.recipe.activations.as_ref();
    activations.is_some_and(|quantizer| quantizer.granularity == Granularity::PerTensor)
}

fn fix_scale(path: &str, layer: &mut Quantization, seen: &Observation) -> LayerCalibration {
    let amax = seen.amax();
    let mut scale = 1.0;
    if let Some(quantizer) = &mut layer.recipe.activations {
        scale = quantizer.static_scale(amax);
        quantizer.scaling = Scaling::Static(scale);
    }
    // A static scale does not depend on a history.
    let input = &layer.operands.activations;
    input.set_state(QuantizerState { history: AmaxHistory::new(0), ..input.state() });
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
        write_table(f, &COLUMNS, &self.layers.iter().map(row).collect::<Vec<_>>())?;
        if self.idle.is_empty() {
            return Ok(());
        }
        write!(f, "\nno input reached, so scaled as before: {}", self.idle.join(", "))
    }
}
