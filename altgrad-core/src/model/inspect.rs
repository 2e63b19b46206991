//! Inspects a model: which slots it has, and which of them share a tensor with another part.

use std::any::Any;
use std::collections::{HashMap, HashSet};

use candle_core::{Tensor, TensorId};

use super::{Path, Visit, Visitor, VisitorMut};
use crate::slot::{AnySlot, Linear, Quantization, Recipe, WeightId};
use crate::{Error, ModelError, Result};

/// A slot as the model shows it.
pub(super) struct VisitedSlot<'m> {
    pub(super) path: String,
    pub(super) slot: &'m dyn AnySlot,
    /// Whether `#[quant(skip)]` is on it or on a field that encloses it.
    pub(super) skipped: bool,
    /// The nearest `#[quant(recipe = …)]`.
    pub(super) recipe: Option<Recipe>,
}

/// What a walk through a model saw.
pub(super) struct Inspection<'m> {
    pub(super) slots: Vec<VisitedSlot<'m>>,
    /// Where each tensor is used, in the order of declaration.
    uses: HashMap<TensorId, Vec<String>>,
    /// Where each tensor is first used by a part that is not a slot.
    others: HashMap<TensorId, String>,
}

impl<'m> Inspection<'m> {
    pub(super) fn of<M: Visit + ?Sized>(model: &'m M) -> Result<Self> {
        let mut inspection = Self { slots: Vec::new(), uses: HashMap::new(), others: HashMap::new() };
        model.visit(&Path::root(), &mut inspection)?;
        let mut paths = HashSet::new();
        match inspection.slots.iter().find(|visited| !paths.insert(&visited.path)) {
            Some(visited) => Err(Error::Model(ModelError::DuplicatePath { path: visited.path.clone() })),
            None => Ok(inspection),
        }
    }

    /// Where else the model uses the layer's weight, if it does.
    pub(super) fn tied_to(&self, visited: &VisitedSlot<'_>) -> Option<&str> {
        let places = self.uses.get(&visited.slot.master_weight()?.id())?;
        let own = below(&visited.path, "weight");
        places.iter().find(|place| **place != own).map(String::as_str)
    }

    /// The numbers of the slots that have the same weight as this one, itself among them, in the order of declaration.
    pub(super) fn tied_slots(&self, weight: WeightId) -> impl Iterator<Item = usize> {
        let is_tied = move |(_, visited): &(usize, &VisitedSlot<'_>)| visited.slot.weight_id() == weight;
        self.slots.iter().enumerate().filter(is_tied).map(|(number, _)| number)
    }

    /// The first place outside of `places` where the model uses a tensor, if there is one.
    pub(super) fn use_outside_of(&self, tensor: &Tensor, places: &[String]) -> Option<&str> {
        self.uses.get(&tensor.id())?.iter().find(|place| !places.contains(place)).map(String::as_str)
    }

    /// Where a part of the model that is not a slot uses a tensor, if one does.
    pub(super) fn use_by_another_part(&self, tensor: &Tensor) -> Option<&str> {
        self.others.get(&tensor.id()).map(String::as_str)
    }

    fn record(&mut self, path: &Path<'_>, tensor: &Tensor) {
        self.uses.entry(tensor.id()).or_default().push(path.to_string());
    }
}

impl<'m> Visitor<'m> for Inspection<'m> {
    fn slot(&mut self, path: &Path<'_>, slot: &'m dyn AnySlot) -> Result<()> {
        for (name, tensor) in [("weight", slot.master_weight()), ("bias", slot.bias())] {
            if let Some(tensor) = tensor {
                self.record(&path.field(name), tensor);
            }
        }
        self.slots.push(VisitedSlot {
            path: path.to_string(),
            slot,
            skipped: path.is_skipped(),
            recipe: path.recipe().cloned(),
        });
        Ok(())
    }

    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()> {
        self.record(path, tensor);
        self.others.entry(tensor.id()).or_insert_with(|| path.to_string());
        Ok(())
    }
}

/// The slots themselves, to be replaced.
#[derive(Default)]
pub(super) struct Slots<'m>(pub(super) Vec<(String, &'m mut dyn AnySlot)>);

impl<'m> Slots<'m> {
    pub(super) fn of<M: Visit + ?Sized>(model: &'m mut M) -> Result<Self> {
        let mut slots = Self::default();
        model.visit_mut(&Path::root(), &mut slots)?;
        Ok(slots)
    }
}

impl<'m> VisitorMut<'m> for Slots<'m> {
    fn slot(&mut self, path: &Path<'_>, slot: &'m mut dyn AnySlot) -> Result<()> {
        self.0.push((path.to_string(), slot));
        Ok(())
    }

    fn tensor(&mut self, _: &Path<'_>, _: &'m Tensor) -> Result<()> {
        Ok(())
    }
}

/// Puts replacements in place of slots; both are in the order of declaration, and their paths must agree. `None` leaves
/// a slot unchanged. Either all are replaced or none is.
pub(super) fn replace(slots: Slots<'_>, replacements: Vec<(&str, Option<Box<dyn AnySlot>>)>) -> Result<()> {
    let slots = slots.0;
    check_same_paths(replacements.iter().map(|(path, _)| *path), slots.iter().map(|(path, _)| path.as_str()))?;
    for ((path, slot), (_, replacement)) in slots.iter().zip(&replacements) {
        let type_of = |slot: &dyn AnySlot| (slot as &dyn Any).type_id();
        if replacement.as_ref().is_some_and(|replacement| type_of(&**replacement) != type_of(&**slot)) {
            return Err(Error::Model(ModelError::InconsistentVisit { path: path.clone() }));
        }
    }
    for ((_, slot), (_, replacement)) in slots.into_iter().zip(replacements) {
        if let Some(replacement) = replacement {
            slot.put(replacement);
        }
    }
    Ok(())
}

/// Calls `visit` with the state of each quantized layer and its path.
pub(super) fn for_each_quantized<M: Visit + ?Sized>(
    model: &mut M,
    mut visit: impl FnMut(&str, &mut Quantization),
) -> Result<()> {
    for (path, slot) in Slots::of(model)?.0 {
        if let Some(quantization) = slot.quantization_mut() {
            visit(&path, quantization);
        }
    }
    Ok(())
}

/// Fails unless two visits of a model showed the same paths in the same order.
pub(super) fn check_same_paths<'p>(
    seen: impl Iterator<Item = &'p str>,
    slots: impl Iterator<Item = &'p str>,
) -> Result<()> {
    let (mut seen, mut slots) = (seen, slots);
    loop {
        match (seen.next(), slots.next()) {
            (None, None) => return Ok(()),
            (one, other) if one == other => {}
            (one, other) => {
                return Err(Error::Model(ModelError::InconsistentVisit {
                    path: one.or(other).unwrap_or_default().to_owned(),
                }));
            }
        }
    }
}

/// All slots with their paths.
pub(super) fn slots<M: Visit + ?Sized>(model: &M) -> Result<Vec<(String, &dyn AnySlot)>> {
    let slots = Inspection::of(model)?.slots;
    Ok(slots.into_iter().map(|visited| (visited.path, visited.slot)).collect())
}

/// The linear layers with their paths.
pub(super) fn layers<M: Visit + ?Sized>(model: &M) -> Result<Vec<(String, &Linear)>> {
    Ok(slots(model)?.into_iter().filter_map(|(path, slot)| Some((path, slot.downcast_ref()?))).collect())
}

pub(super) fn find<'m, M: Visit + ?Sized>(model: &'m M, path: &str) -> Result<&'m dyn AnySlot> {
    let mut search = Search { wanted: path, found: None };
    model.visit(&Path::root(), &mut search)?;
    search.found.ok_or_else(|| no_such_layer(model, path))
}

pub(super) fn find_mut<'m, M: Visit + ?Sized>(model: &'m mut M, path: &str) -> Result<&'m mut dyn AnySlot> {
    // Searched first by shared reference: the error for an unknown path needs the model to suggest other paths.
    find(&*model, path)?;
    let mut search = Search { wanted: path, found: None };
    model.visit_mut(&Path::root(), &mut search)?;
    search.found.ok_or_else(|| Error::Model(ModelError::InconsistentVisit { path: path.to_owned() }))
}

pub(super) fn find_linear<'m, M: Visit + ?Sized>(model: &'m M, path: &str) -> Result<&'m Linear> {
    let slot = find(model, path)?;
    slot.downcast_ref().ok_or_else(|| other_kind(path, slot))
}

pub(super) fn find_linear_mut<'m, M: Visit + ?Sized>(model: &'m mut M, path: &str) -> Result<&'m mut Linear> {
    find_linear(&*model, path)?;
    let found = find_mut(model, path)?.downcast_mut();
    found.ok_or_else(|| Error::Model(ModelError::InconsistentVisit { path: path.to_owned() }))
}

fn other_kind(path: &str, slot: &dyn AnySlot) -> Error {
    Error::Model(ModelError::OtherKind { path: path.to_owned(), kind: slot.kind() })
}

/// Looks for one slot, without rendering the paths of others.
struct Search<'p, S> {
    wanted: &'p str,
    found: Option<S>,
}

impl<S> Search<'_, S> {
    fn see(&mut self, path: &Path<'_>, slot: S) -> Result<()> {
        if *path == *self.wanted && self.found.replace(slot).is_some() {
            return Err(Error::Model(ModelError::DuplicatePath { path: self.wanted.to_owned() }));
        }
        Ok(())
    }
}

impl<'m> Visitor<'m> for Search<'_, &'m dyn AnySlot> {
    fn slot(&mut self, path: &Path<'_>, slot: &'m dyn AnySlot) -> Result<()> {
        self.see(path, slot)
    }

    fn tensor(&mut self, _: &Path<'_>, _: &'m Tensor) -> Result<()> {
        Ok(())
    }
}

impl<'m> VisitorMut<'m> for Search<'_, &'m mut dyn AnySlot> {
    fn slot(&mut self, path: &Path<'_>, slot: &'m mut dyn AnySlot) -> Result<()> {
        self.see(path, slot)
    }

    fn tensor(&mut self, _: &Path<'_>, _: &'m Tensor) -> Result<()> {
        Ok(())
    }
}

fn no_such_layer<M: Visit + ?Sized>(model: &M, path: &str) -> Error {
    match slots(model) {
        Ok(slots) => {
            let paths = slots.iter().map(|(candidate, _)| candidate.as_str());
            Error::Model(ModelError::NoSuchLayer { path: path.to_owned(), nearest: nearest(path, paths) })
        }
        Err(error) => error,
    }
}

/// The path of `name` below a layer's.
pub(super) fn below(path: &str, name: &str) -> String {
    // A model that is a single layer has the empty path.
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The three paths most similar to `wanted`, best first: those that contain it, then those with the most similar
/// spelling.
pub(crate) fn nearest<'p>(wanted: &str, paths: impl Iterator<Item = &'p str>) -> Vec<String> {
    let likeness = |path: &str| if path.contains(wanted) { 1.0 } else { strsim::jaro_winkler(wanted, path) };
    let mut scored: Vec<_> = paths.map(|path| (likeness(path), path)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, path)| path.to_owned()).collect()
}
