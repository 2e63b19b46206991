//! Reading a model: which layers it has, and which of them share a tensor with another part.

use std::collections::{HashMap, HashSet};

use candle_core::{Tensor, TensorId};

use super::{Path, Quantizable, Visitor, VisitorMut};
use crate::layer::{Linear, QuantizedLinear, Recipe};
use crate::{Error, Result};

/// A linear layer as the model shows it.
pub(super) struct Found<'m> {
    pub(super) path: String,
    pub(super) layer: &'m Linear,
    /// Whether `#[quant(skip)]` is on it or on a field that encloses it.
    pub(super) skipped: bool,
    /// The nearest `#[quant(recipe = …)]`.
    pub(super) recipe: Option<Recipe>,
}

/// What a walk through a model saw.
pub(super) struct Inspection<'m> {
    pub(super) layers: Vec<Found<'m>>,
    /// For each tensor where it is used, in the order of declaration.
    uses: HashMap<TensorId, Vec<String>>,
    /// For each tensor where a part other than a linear layer uses it first.
    others: HashMap<TensorId, String>,
}

impl<'m> Inspection<'m> {
    pub(super) fn of<M: Quantizable + ?Sized>(model: &'m M) -> Result<Self> {
        let mut inspection = Self { layers: Vec::new(), uses: HashMap::new(), others: HashMap::new() };
        model.visit(&Path::root(), &mut inspection)?;
        let mut paths = HashSet::new();
        match inspection.layers.iter().find(|found| !paths.insert(&found.path)) {
            Some(found) => Err(Error::DuplicatePath { path: found.path.clone() }),
            None => Ok(inspection),
        }
    }

    /// The other tensor of the model that is the layer's weight, if there is one.
    pub(super) fn tied_to(&self, found: &Found<'_>) -> Option<&str> {
        let places = self.uses.get(&found.layer.master_weight()?.id())?;
        let own = below(&found.path, "weight");
        places.iter().find(|place| **place != own).map(String::as_str)
    }

    /// Where a part of the model that is no linear layer uses a tensor, if one does.
    pub(super) fn use_by_another_part(&self, tensor: &Tensor) -> Option<&str> {
        self.others.get(&tensor.id()).map(String::as_str)
    }

    fn record(&mut self, path: &Path<'_>, tensor: &Tensor) {
        self.uses.entry(tensor.id()).or_default().push(path.to_string());
    }
}

impl<'m> Visitor<'m> for Inspection<'m> {
    fn linear(&mut self, path: &Path<'_>, layer: &'m Linear) -> Result<()> {
        for (name, tensor) in [("weight", layer.master_weight()), ("bias", layer.bias())] {
            if let Some(tensor) = tensor {
                self.record(&path.field(name), tensor);
            }
        }
        self.layers.push(Found {
            path: path.to_string(),
            layer,
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

/// The layers themselves, to be replaced.
#[derive(Default)]
pub(super) struct Slots<'m>(pub(super) Vec<(String, &'m mut Linear)>);

impl<'m> Slots<'m> {
    pub(super) fn of<M: Quantizable + ?Sized>(model: &'m mut M) -> Result<Self> {
        let mut slots = Self::default();
        model.visit_mut(&Path::root(), &mut slots)?;
        Ok(slots)
    }
}

impl<'m> VisitorMut<'m> for Slots<'m> {
    fn linear(&mut self, path: &Path<'_>, layer: &'m mut Linear) -> Result<()> {
        self.0.push((path.to_string(), layer));
        Ok(())
    }
}

/// Calls `visit` with each quantized layer and its path.
pub(super) fn for_each_quantized<M: Quantizable + ?Sized>(
    model: &mut M,
    mut visit: impl FnMut(&str, &mut QuantizedLinear),
) -> Result<()> {
    for (path, layer) in Slots::of(model)?.0 {
        if let Linear::Quantized(layer) = layer {
            visit(&path, layer);
        }
    }
    Ok(())
}

/// Fails unless two visits of a model showed the same paths in the same order.
pub(super) fn check_same_paths<'p>(
    seen: impl Iterator<Item = &'p String>,
    slots: impl Iterator<Item = &'p String>,
) -> Result<()> {
    let (mut seen, mut slots) = (seen, slots);
    loop {
        match (seen.next(), slots.next()) {
            (None, None) => return Ok(()),
            (one, other) if one == other => {}
            (one, other) => {
                return Err(Error::InconsistentVisit { path: one.or(other).cloned().unwrap_or_default() });
            }
        }
    }
}

pub(super) fn layers<M: Quantizable + ?Sized>(model: &M) -> Result<Vec<(String, &Linear)>> {
    let layers = Inspection::of(model)?.layers;
    Ok(layers.into_iter().map(|found| (found.path, found.layer)).collect())
}

pub(super) fn find<'m, M: Quantizable + ?Sized>(model: &'m M, path: &str) -> Result<&'m Linear> {
    let mut search = Search { wanted: path, found: None };
    model.visit(&Path::root(), &mut search)?;
    search.found.ok_or_else(|| no_such_layer(model, path))
}

pub(super) fn find_mut<'m, M: Quantizable + ?Sized>(model: &'m mut M, path: &str) -> Result<&'m mut Linear> {
    // First without holding on to the model, which the message about a path that is not there asks for others.
    find(&*model, path)?;
    let mut search = Search { wanted: path, found: None };
    model.visit_mut(&Path::root(), &mut search)?;
    search.found.ok_or_else(|| Error::InconsistentVisit { path: path.to_owned() })
}

/// Looks for one layer, without rendering the paths of others.
struct Search<'p, L> {
    wanted: &'p str,
    found: Option<L>,
}

impl<L> Search<'_, L> {
    fn see(&mut self, path: &Path<'_>, layer: L) -> Result<()> {
        if *path == *self.wanted && self.found.replace(layer).is_some() {
            return Err(Error::DuplicatePath { path: self.wanted.to_owned() });
        }
        Ok(())
    }
}

impl<'m> Visitor<'m> for Search<'_, &'m Linear> {
    fn linear(&mut self, path: &Path<'_>, layer: &'m Linear) -> Result<()> {
        self.see(path, layer)
    }
}

impl<'m> VisitorMut<'m> for Search<'_, &'m mut Linear> {
    fn linear(&mut self, path: &Path<'_>, layer: &'m mut Linear) -> Result<()> {
        self.see(path, layer)
    }
}

fn no_such_layer<M: Quantizable + ?Sized>(model: &M, path: &str) -> Error {
    match layers(model) {
        Ok(layers) => {
            let paths = layers.iter().map(|(candidate, _)| candidate.as_str());
            Error::NoSuchLayer { path: path.to_owned(), nearest: nearest(path, paths) }
        }
        Err(error) => error,
    }
}

/// The path of `name` below a layer's.
pub(super) fn below(path: &str, name: &str) -> String {
    // A model that is a single layer has the empty path.
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The three paths most like `wanted`, best first: those that contain it, then those that are spelled most like it.
pub(crate) fn nearest<'p>(wanted: &str, paths: impl Iterator<Item = &'p str>) -> Vec<String> {
    let likeness = |path: &str| if path.contains(wanted) { 1.0 } else { strsim::jaro_winkler(wanted, path) };
    let mut scored: Vec<_> = paths.map(|path| (likeness(path), path)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, path)| path.to_owned()).collect()
}
