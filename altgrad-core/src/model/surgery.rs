//! Replacing what the slots hold: look, decide, build, and only when nothing can fail any more, replace.

use std::sync::Arc;

use candle_core::Tensor;

use super::Quantizable;
use super::config::QuantConfig;
use super::inspect::{Found, Inspection, Slots, check_same_paths};
use super::report::{Action, LayerReport, Measured, QuantReport, SkipReason};
use super::rulebook::{Rulebook, Undecided};
use crate::layer::{Compute, Linear, Recipe};
use crate::{Error, Result};

/// One layer's share of an operation.
struct Step {
    /// What the slot is to hold; `None` leaves it alone.
    replacement: Option<Linear>,
    report: LayerReport,
}

impl Step {
    fn new(found: &Found<'_>, action: Action, replacement: Option<Linear>, measured: Option<Measured>) -> Self {
        let after = replacement.as_ref().unwrap_or(found.layer);
        let report = LayerReport {
            path: found.path.clone(),
            shape: found.layer.weight_dims().to_vec(),
            action,
            format: after.format(),
            recipe: match after {
                Linear::Quantized(layer) => Some(layer.recipe().clone()),
                Linear::Full(_) | Linear::Frozen(_) => None,
            },
            activations: after.activations().map(|quantizer| quantizer.format),
            gradients: after.gradients().map(|quantizer| quantizer.format),
            distortion: measured.map(|measured| measured.distortion),
            bytes_frozen: measured.map(|measured| measured.bytes),
            bytes_before: found.layer.weight_bytes(),
            bytes_after: after.weight_bytes(),
        };
        Self { replacement, report }
    }

    /// The layer in full precision, as far as it still can be.
    fn skip(found: &Found<'_>, reason: SkipReason) -> Self {
        let replacement = match found.layer {
            Linear::Quantized(layer) => Some(found.layer.with_full(layer.wrapped().clone())),
            Linear::Full(_) | Linear::Frozen(_) => None,
        };
        Self::new(found, Action::Skipped(reason), replacement, None)
    }
}

pub(super) fn quantize<M: Quantizable + ?Sized>(model: &mut M, config: QuantConfig) -> Result<QuantReport> {
    let steps = {
        let model = Inspection::of(model)?;
        if model.layers.is_empty() {
            return Err(Error::NoLayers);
        }
        let rulebook = Rulebook::new(config)?;
        rulebook.check_rules(model.layers.iter().map(|found| found.path.as_str()))?;
        let step = |found: &Found<'_>| {
            let layer = Undecided {
                path: &found.path,
                skipped: found.skipped,
                recipe: found.recipe.as_ref(),
                tied_to: model.tied_to(found),
                dtype: found.layer.master_weight().map(Tensor::dtype),
            };
            match rulebook.decide(&layer) {
                Ok(recipe) => quantize_layer(found, recipe),
                Err(reason) => Ok(Step::skip(found, reason)),
            }
        };
        model.layers.iter().map(step).collect::<Result<Vec<_>>>()?
    };
    replace(model, steps)
}

fn quantize_layer(found: &Found<'_>, recipe: &Recipe) -> Result<Step> {
    let wrapped = match found.layer {
        Linear::Full(layer) => layer.clone().into_linear(),
        Linear::Quantized(layer) => layer.wrapped().clone(),
        Linear::Frozen(_) => return Err(Error::Frozen { path: found.path.clone() }.at(&found.path)),
    };
    let build = || {
        let layer = found.layer.with_quantized(wrapped, recipe.clone(), &found.path)?;
        let measured = Measured::of(layer.weight(), &layer.quantized_weight()?)?;
        Ok((layer, measured))
    };
    let (layer, measured) = build().map_err(|error: Error| error.at(&found.path))?;
    Ok(Step::new(found, Action::Quantized, Some(layer.into()), Some(measured)))
}

pub(super) fn freeze<M: Quantizable + ?Sized>(model: &mut M) -> Result<QuantReport> {
    let steps = {
        let model = Inspection::of(model)?;
        if model.layers.iter().all(|found| matches!(found.layer, Linear::Full(_))) {
            return Err(Error::NothingToFreeze);
        }
        model.layers.iter().map(|found| freeze_layer(&model, found)).collect::<Result<Vec<_>>>()?
    };
    replace(model, steps)
}

fn freeze_layer(model: &Inspection<'_>, found: &Found<'_>) -> Result<Step> {
    let layer = match found.layer {
        Linear::Full(_) => return Ok(Step::new(found, Action::Skipped(SkipReason::NotQuantized), None, None)),
        Linear::Frozen(_) => return Ok(Step::new(found, Action::Frozen, None, None)),
        Linear::Quantized(layer) => layer,
    };
    if let Some(other) = model.tied_to(found) {
        return Ok(Step::new(found, Action::Skipped(SkipReason::Tied(other.to_owned())), None, None));
    }
    let build = || {
        let frozen = layer.freeze()?.with_path(Some(Arc::from(found.path.as_str())));
        let measured = Measured::of(layer.weight(), &frozen.weight()?)?;
        Ok((frozen, measured))
    };
    let (frozen, measured) = build().map_err(|error: Error| error.at(&found.path))?;
    Ok(Step::new(found, Action::Frozen, Some(frozen.into()), Some(measured)))
}

pub(super) fn dequantize<M: Quantizable + ?Sized>(model: &mut M) -> Result<QuantReport> {
    let restore = |found: &Found<'_>| {
        let original = match found.layer {
            Linear::Full(_) => return Ok(Step::new(found, Action::Skipped(SkipReason::NotQuantized), None, None)),
            Linear::Quantized(layer) => layer.wrapped().clone(),
            Linear::Frozen(layer) => layer.dequantize().map_err(|error| error.at(&found.path))?,
        };
        Ok(Step::new(found, Action::Restored, Some(found.layer.with_full(original)), None))
    };
    let steps = Inspection::of(model)?.layers.iter().map(restore).collect::<Result<Vec<_>>>()?;
    replace(model, steps)
}

/// How things are, without changing them.
pub(super) fn report<M: Quantizable + ?Sized>(model: &M) -> Result<QuantReport> {
    let describe = |found: &Found<'_>| match found.layer {
        Linear::Full(_) => Ok(Step::new(found, Action::Skipped(SkipReason::NotQuantized), None, None)),
        Linear::Frozen(_) => Ok(Step::new(found, Action::Frozen, None, None)),
        Linear::Quantized(layer) => {
            let measured = layer.quantized_weight().and_then(|codes| Measured::of(layer.weight(), &codes));
            let measured = measured.map_err(|error| error.at(&found.path))?;
            Ok(Step::new(found, Action::Quantized, None, Some(measured)))
        }
    };
    let steps = Inspection::of(model)?.layers.iter().map(describe).collect::<Result<Vec<_>>>()?;
    Ok(QuantReport { layers: steps.into_iter().map(|step| step.report).collect(), warnings: Vec::new() })
}

pub(super) fn set_training<M: Quantizable + ?Sized>(model: &mut M, training: bool) -> Result<()> {
    Slots::of(model)?.0.into_iter().for_each(|(_, slot)| slot.switch_training(training));
    Ok(())
}

pub(super) fn set_compute<M: Quantizable + ?Sized>(model: &mut M, compute: Compute) -> Result<()> {
    Slots::of(model)?.0.into_iter().for_each(|(_, slot)| slot.switch_compute(compute));
    Ok(())
}

/// Puts the replacements in place, after making sure that each has its slot.
fn replace<M: Quantizable + ?Sized>(model: &mut M, steps: Vec<Step>) -> Result<QuantReport> {
    let slots = Slots::of(model)?.0;
    check_same_paths(steps.iter().map(|step| &step.report.path), slots.iter().map(|(path, _)| path))?;
    let mut layers = Vec::with_capacity(steps.len());
    for (step, (_, slot)) in steps.into_iter().zip(slots) {
        if let Some(replacement) = step.replacement {
            *slot = replacement;
        }
        layers.push(step.report);
    }
    Ok(QuantReport { layers, warnings: Vec::new() })
}
