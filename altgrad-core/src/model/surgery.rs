//! Replaces what the slots hold: inspects, decides, builds, and replaces only when nothing can fail any more.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;

use super::Visit;
use super::config::QuantConfig;
use super::inspect::{self, Inspection, Slots, VisitedSlot};
use super::report::{Action, LayerReport, Measured, QuantReport, SkipReason};
use super::rulebook::{LayerFacts, Rulebook};
use crate::quantizer::{FixedWeight, Layout, Operand};
use crate::slot::{AnySlot, Compute, Recipe, SlotState, WeightId};
use crate::{Error, ModelError, Result};

/// One layer's share of an operation.
struct Step {
    /// What the slot will hold; `None` leaves it unchanged.
    replacement: Option<Box<dyn AnySlot>>,
    report: LayerReport,
}

impl Step {
    fn new(
        visited: &VisitedSlot<'_>,
        action: Action,
        replacement: Option<Box<dyn AnySlot>>,
        measured: Option<Measured>,
    ) -> Self {
        let after = replacement.as_deref().unwrap_or(visited.slot);
        let report = LayerReport {
            path: visited.path.clone(),
            kind: visited.slot.kind(),
            shape: visited.slot.weight_dims().to_vec(),
            action,
            format: after.format(),
            recipe: after.recipe().cloned(),
            activations: after.activations().map(|quantizer| quantizer.format),
            gradients: after.gradients().map(|quantizer| quantizer.format),
            distortion: measured.map(|measured| measured.distortion),
            bytes_frozen: measured.map(|measured| measured.bytes),
            bytes_before: visited.slot.weight_bytes(),
            bytes_after: after.weight_bytes(),
        };
        Self { replacement, report }
    }

    /// Leaves the layer unchanged.
    fn leave(visited: &VisitedSlot<'_>, action: Action) -> Self {
        Self::new(visited, action, None, None)
    }

    /// Puts the layer into full precision, unless it is frozen.
    fn skip(visited: &VisitedSlot<'_>, reason: SkipReason) -> Self {
        let is_quantized = visited.slot.state() == SlotState::Quantized;
        let replacement = if is_quantized { visited.slot.to_full(None) } else { None };
        Self::new(visited, Action::Skipped(reason), replacement, None)
    }
}

pub(super) fn quantize<M: Visit + ?Sized>(model: &mut M, config: QuantConfig) -> Result<QuantReport> {
    let steps = steps_of_quantizing(&Inspection::of(model)?, config)?;
    replace(model, steps)
}

// The functions that work on an inspection are not generic, so that they are compiled once and not for every model.

fn steps_of_quantizing(model: &Inspection<'_>, config: QuantConfig) -> Result<Vec<Step>> {
    if model.slots.is_empty() {
        return Err(Error::Model(ModelError::NoLayers));
    }
    let rulebook = Rulebook::new(config)?;
    rulebook.check_rules(model.slots.iter().map(|visited| visited.path.as_str()))?;
    let decide = |visited: &VisitedSlot<'_>| {
        let layer = LayerFacts {
            path: &visited.path,
            skipped: visited.skipped,
            recipe: visited.recipe.as_ref(),
            tied_to: model.tied_to(visited),
            dtype: visited.slot.master_weight().map(Tensor::dtype),
        };
        rulebook.decide(&layer).map(|recipe| visited.slot.adapt(recipe.clone()))
    };
    let mut decisions: Vec<Result<Recipe, SkipReason>> = model.slots.iter().map(decide).collect();
    let ties = quantize_ties_as_one(model, &mut decisions);
    let mut shared = HashMap::new();
    let step =
        |((visited, decision), tie): ((&VisitedSlot<'_>, Result<Recipe, SkipReason>), Option<usize>)| match decision {
            Ok(recipe) => quantize_layer(visited, recipe, tie, &mut shared),
            Err(reason) => Ok(Step::skip(visited, reason)),
        };
    model.slots.iter().zip(decisions).zip(ties).map(step).collect()
}

/// Gives layers that share a weight one quantizer of it, if their decisions about it agree after each kind of layer has
/// adapted them: the rows of an embedding are the rows of the head that is tied to it. Returns for each layer the first
/// of the layers that are quantized as one with it.
fn quantize_ties_as_one(model: &Inspection<'_>, decisions: &mut [Result<Recipe, SkipReason>]) -> Vec<Option<usize>> {
    let mut ties = vec![None; decisions.len()];
    for first in 0..decisions.len() {
        if ties[first].is_some() || decisions[first].is_err() {
            continue;
        }
        let is_quantized = |number: &usize| decisions[*number].is_ok();
        let group: Vec<usize> = model.tied_slots(model.slots[first].slot.weight_id()).filter(is_quantized).collect();
        if group.len() < 2 {
            continue;
        }
        // The quantizer after every kind of layer in the group has adapted it.
        let adapt = |recipe: &Recipe| {
            let adapted = group.iter().fold(Recipe::weight_only(recipe.weights.clone()), |recipe, number| {
                model.slots[*number].slot.adapt(recipe)
            });
            (adapted.weights, recipe.ste)
        };
        // A lookup and a product can share one order of codes, but products with different numbers of groups cannot.
        let kind = |number: &usize| {
            let groups = model.slots[*number].slot.layout().map(Layout::groups);
            Some((adapt(decisions[*number].as_ref().ok()?), groups.ok()))
        };
        let adapted: Vec<_> = group.iter().filter_map(kind).collect();
        let Some((one, others)) = adapted.split_first() else { continue };
        if others.iter().any(|other| other != one) {
            continue;
        }
        for number in group {
            if let Ok(recipe) = &mut decisions[number] {
                recipe.weights = one.0.0.clone();
            }
            ties[number] = Some(first);
        }
    }
    ties
}

fn quantize_layer(
    visited: &VisitedSlot<'_>,
    recipe: Recipe,
    tie: Option<usize>,
    shared: &mut HashMap<usize, Arc<Operand>>,
) -> Result<Step> {
    let build = || {
        let weights = tie.and_then(|tie| shared.get(&tie).cloned());
        let Some(slot) = visited.slot.to_quantized(recipe, &visited.path, weights)? else {
            return Err(Error::Model(ModelError::Frozen { path: visited.path.clone() }));
        };
        if let (Some(tie), Some(quantization)) = (tie, slot.quantization()) {
            shared.entry(tie).or_insert_with(|| Arc::clone(&quantization.operands.weights));
        }
        let measured = measure(&*slot)?;
        Ok((slot, measured))
    };
    let (slot, measured) = build().map_err(|error: Error| error.at(&visited.path))?;
    Ok(Step::new(visited, Action::Quantized, Some(slot), measured))
}

/// How far the weight of a quantized layer is from the values that the layer computes with.
fn measure(slot: &dyn AnySlot) -> Result<Option<Measured>> {
    let (Some(quantization), Some(weight)) = (slot.quantization(), slot.master_weight()) else { return Ok(None) };
    let codes = quantization.quantized_weight(weight)?;
    Measured::of(weight, &codes, slot.layout()?).map(Some)
}

pub(super) fn freeze<M: Visit + ?Sized>(model: &mut M) -> Result<QuantReport> {
    let steps = steps_of_freezing(&Inspection::of(model)?)?;
    replace(model, steps)
}

fn steps_of_freezing(model: &Inspection<'_>) -> Result<Vec<Step>> {
    if model.slots.iter().all(|visited| visited.slot.state() == SlotState::Full) {
        return Err(Error::Model(ModelError::NothingToFreeze));
    }
    let mut shared = HashMap::new();
    model.slots.iter().map(|visited| freeze_layer(model, visited, &mut shared)).collect()
}

fn freeze_layer(
    model: &Inspection<'_>,
    visited: &VisitedSlot<'_>,
    shared: &mut HashMap<WeightId, Arc<FixedWeight>>,
) -> Result<Step> {
    let (Some(quantization), Some(weight)) = (visited.slot.quantization(), visited.slot.master_weight()) else {
        let is_frozen = visited.slot.state() == SlotState::Frozen;
        let action = if is_frozen { Action::Frozen } else { Action::Skipped(SkipReason::NotQuantized) };
        return Ok(Step::leave(visited, action));
    };
    let id = visited.slot.weight_id();
    let tied: Vec<&VisitedSlot<'_>> = model.tied_slots(id).map(|number| &model.slots[number]).collect();
    let has_same_codes =
        |other: &&&VisitedSlot<'_>| other.slot.quantization().is_some_and(|other| other.has_codes_of(quantization));
    let as_one: Vec<String> =
        tied.iter().filter(has_same_codes).map(|other| inspect::below(&other.path, "weight")).collect();
    if let Some(other) = model.use_outside_of(weight, &as_one) {
        return Ok(Step::leave(visited, Action::Skipped(SkipReason::Tied(other.to_owned()))));
    }
    let mut build = || {
        let codes = match shared.get(&id) {
            Some(codes) => Some(Arc::clone(codes)),
            None if tied.len() > 1 => {
                let layout = quantization.operands.weights.layout();
                Some(Arc::new(FixedWeight::new(quantization.pack(weight)?, layout)?))
            }
            None => None,
        };
        let Some(slot) = visited.slot.to_frozen(&visited.path, codes)? else { return Ok(None) };
        let Some(frozen) = slot.frozen() else { return Ok(None) };
        shared.insert(id, Arc::clone(&frozen.weight));
        let measured = Measured::of(weight, &frozen.weight.to_tensor()?, slot.layout()?)?;
        Ok(Some((slot, measured)))
    };
    Ok(match build().map_err(|error: Error| error.at(&visited.path))? {
        Some((slot, measured)) => Step::new(visited, Action::Frozen, Some(slot), Some(measured)),
        None => Step::leave(visited, Action::Skipped(SkipReason::NotQuantized)),
    })
}

pub(super) fn dequantize<M: Visit + ?Sized>(model: &mut M) -> Result<QuantReport> {
    let steps = steps_of_dequantizing(&Inspection::of(model)?)?;
    replace(model, steps)
}

fn steps_of_dequantizing(model: &Inspection<'_>) -> Result<Vec<Step>> {
    // Layers that share codes share the tensor as well.
    let mut values: HashMap<WeightId, Tensor> = HashMap::new();
    let restore = |visited: &VisitedSlot<'_>| {
        if visited.slot.state() == SlotState::Full {
            return Ok(Step::leave(visited, Action::Skipped(SkipReason::NotQuantized)));
        }
        let weight = match (visited.slot.frozen(), values.get(&visited.slot.weight_id())) {
            (None, _) => None,
            (Some(_), Some(weight)) => Some(weight.clone()),
            (Some(codes), None) => {
                let weight = codes.values().map_err(|error| error.at(&visited.path))?;
                values.insert(visited.slot.weight_id(), weight.clone());
                Some(weight)
            }
        };
        Ok(Step::new(visited, Action::Restored, visited.slot.to_full(weight), None))
    };
    model.slots.iter().map(restore).collect()
}

/// Reports how each layer is quantized now; changes nothing.
pub(super) fn report<M: Visit + ?Sized>(model: &M) -> Result<QuantReport> {
    report_of(&Inspection::of(model)?)
}

fn report_of(model: &Inspection<'_>) -> Result<QuantReport> {
    let describe = |visited: &VisitedSlot<'_>| {
        let action = match visited.slot.state() {
            SlotState::Full => Action::Skipped(SkipReason::NotQuantized),
            SlotState::Quantized => Action::Quantized,
            SlotState::Frozen => Action::Frozen,
        };
        let measured = measure(visited.slot).map_err(|error| error.at(&visited.path))?;
        Ok(Step::new(visited, action, None, measured).report)
    };
    let layers = model.slots.iter().map(describe).collect::<Result<Vec<_>>>()?;
    Ok(QuantReport { layers, warnings: Vec::new() })
}

pub(super) fn set_training<M: Visit + ?Sized>(model: &mut M, training: bool) -> Result<()> {
    Slots::of(model)?.0.into_iter().for_each(|(_, slot)| slot.set_training(training));
    Ok(())
}

pub(super) fn set_compute<M: Visit + ?Sized>(model: &mut M, compute: Compute) -> Result<()> {
    Slots::of(model)?.0.into_iter().for_each(|(_, slot)| slot.mode_mut().compute = compute);
    Ok(())
}

/// Puts the replacements in place.
fn replace<M: Visit + ?Sized>(model: &mut M, steps: Vec<Step>) -> Result<QuantReport> {
    let (replacements, layers): (Vec<_>, Vec<_>) =
        steps.into_iter().map(|step| (step.replacement, step.report)).unzip();
    let paths = layers.iter().map(|report: &LayerReport| report.path.as_str());
    inspect::replace(Slots::of(model)?, paths.zip(replacements).collect())?;
    Ok(QuantReport { layers, warnings: Vec::new() })
}
