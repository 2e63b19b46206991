//! Manages the linear weights that a builder handed out: how each is quantized, and the values that its model holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use altgrad_kernels::Conversion;
use altgrad_kernels::lock::Lock;
use candle_core::{Tensor, TensorId};
use candle_nn::VarBuilder;

use super::request::{Kind, Request};
use crate::model::config::TiePolicy;
use crate::model::names::looks_like_embedding;
use crate::model::report::{Action, LayerReport, Measured, QuantReport, SkipReason};
use crate::model::rulebook::{LayerFacts, Rulebook};
use crate::quantizer::{InPlace, Layout, Operand, check_finite};
use crate::slot::{Operation, Recipe};
use crate::{Error, ModelError, Result};

/// The source of weights, the rules for them, and the weights that models hold.
///
/// Threads may ask for weights at the same time. Each reads what was handed out so far, computes, and records its
/// result if nothing relevant has changed meanwhile; otherwise it starts over.
pub(super) struct Weights<'a> {
    /// At its root.
    vb: VarBuilder<'a>,
    rulebook: Rulebook,
    state: Lock<BuilderState>,
    is_requantizing: AtomicBool,
}

#[derive(Default)]
struct BuilderState {
    /// In the order in which they were asked for.
    weights: Vec<LinearWeight>,
    /// What each matrix, linear weight or not, was handed out as.
    uses: Vec<Use>,
}

/// A use of a matrix of the wrapped builder.
#[derive(Clone)]
struct Use {
    name: String,
    id: TensorId,
    is_linear: bool,
}

/// One linear weight, and how it is currently quantized.
#[derive(Clone)]
struct LinearWeight {
    held: Arc<ModelWeight>,
    quantized: Result<WeightQuantization, SkipReason>,
}

/// One linear weight as its model holds it.
struct ModelWeight {
    path: String,
    request: Request,
    /// The id of the tensor in the wrapped builder.
    id: TensorId,
    tensor: ModelTensor,
}

/// What the model holds.
enum ModelTensor {
    /// The wrapped builder's own tensor.
    Own(Tensor),
    /// A tensor that is computed from it; and the wrapped builder's tensor, if that is a variable.
    Computed(InPlace, Option<Tensor>),
}

/// How a weight is quantized.
#[derive(Clone)]
struct WeightQuantization {
    recipe: Recipe,
    operand: Operand,
}

/// The next step of a weight.
struct Next {
    source: Tensor,
    /// The weight's operand after the step, and how the source is converted; `None` if it is only copied.
    step: Option<(Operand, Conversion)>,
}

/// The outcome of recording a weight.
enum Recorded {
    /// It was recorded, and the model gets this tensor.
    Now(Tensor),
    /// Meanwhile, another thread got this tensor for the same request.
    Before(Tensor),
    /// The state from which it was computed has changed.
    Outdated,
}

impl<'a> Weights<'a> {
    pub(super) fn new(vb: &VarBuilder<'a>, rulebook: Rulebook) -> Self {
        Self { vb: vb.root(), rulebook, state: Lock::default(), is_requantizing: AtomicBool::new(false) }
    }

    pub(super) fn rulebook(&self) -> &Rulebook {
        &self.rulebook
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.vb.contains_tensor(name)
    }

    /// The tensor that the model gets.
    pub(super) fn get(&self, request: &Request) -> Result<Tensor> {
        if let Some(tensor) = self.state.with(|state| state.again(request)) {
            return Ok(tensor);
        }
        let tensor = request.fetch(&self.vb)?;
        if tensor.rank() != 2 {
            return Ok(tensor);
        }
        loop {
            let mut this = Use { name: request.name.clone(), id: tensor.id(), is_linear: false };
            let tied_to = self.state.with(|state| state.tied_to(&this));
            let weight = self.weight(request, &tensor, &mut this, tied_to.as_deref())?;
            let keeps_ties = self.rulebook.config().ties == TiePolicy::KeepFullPrecision;
            let ties = self.state.with(|state| state.quantized_ties(&this, keeps_ties));
            let source = |held: &Arc<ModelWeight>| {
                Ok((Arc::clone(held), held.source(&self.vb).map_err(|error| error.at(&held.path))?))
            };
            let sources = ties.iter().map(source).collect::<Result<Vec<_>>>()?;
            let recorded = self.state.with(|state| {
                if let Some(tensor) = state.again(request) {
                    return Recorded::Before(tensor);
                }
                let ties = state.quantized_ties(&this, keeps_ties);
                let are_known = ties.iter().all(|tie| sources.iter().any(|(known, _)| Arc::ptr_eq(tie, known)));
                if state.tied_to(&this) != tied_to || !are_known {
                    return Recorded::Outdated;
                }
                state.record(this, weight.clone(), &ties);
                Recorded::Now(weight.map_or_else(|| tensor.clone(), |weight| weight.held.tensor().clone()))
            });
            match recorded {
                Recorded::Before(tensor) => return Ok(tensor),
                Recorded::Outdated => {}
                Recorded::Now(tensor) => {
                    for (held, source) in sources {
                        held.restore(&source).map_err(|error| error.at(&held.path))?;
                    }
                    return Ok(tensor);
                }
            }
        }
    }

    /// The linear weight that a request is for, if it is for one; sets `this.is_linear`.
    fn weight(
        &self,
        request: &Request,
        tensor: &Tensor,
        this: &mut Use,
        tied_to: Option<&str>,
    ) -> Result<Option<LinearWeight>> {
        let Some(path) = request.layer().filter(|_| request.kind() != Kind::Embedding) else { return Ok(None) };
        let is_embedding = request.kind() == Kind::Unsaid
            && tied_to.is_none()
            && looks_like_embedding(path)
            && !self.rulebook.names(path);
        this.is_linear = !is_embedding;
        let layer = LayerFacts { path, skipped: false, recipe: None, tied_to, dtype: Some(tensor.dtype()) };
        let decision = match self.rulebook.decide(&layer) {
            Ok(_) if is_embedding => Err(SkipReason::Embedding),
            decision => decision.cloned(),
        };
        LinearWeight::new(path, request.clone(), tensor.clone(), decision).map_err(|error| error.at(path)).map(Some)
    }

    /// Recomputes all weights or, if there is an error, none.
    pub(super) fn requantize(&self) -> Result<()> {
        if self.is_requantizing.swap(true, Ordering::Acquire) {
            return Err(Error::Model(ModelError::AlreadyRequantizing));
        }
        let _done = OnDrop(|| self.is_requantizing.store(false, Ordering::Release));
        let weights = self.weights();
        let next = |weight: &LinearWeight| weight.next(&self.vb).map_err(|error| error.at(&weight.held.path));
        let next = weights.iter().map(next).collect::<Result<Vec<_>>>()?;
        for (weight, next) in weights.iter().zip(next) {
            if let Some(next) = next {
                self.step(&weight.held, next).map_err(|error| error.at(&weight.held.path))?;
            }
        }
        Ok(())
    }

    fn step(&self, held: &Arc<ModelWeight>, Next { source, step }: Next) -> Result<()> {
        let (operand, conversion) = step.unzip();
        held.update(&source, conversion)?;
        let Some(operand) = operand else { return Ok(()) };
        let is_quantized = self.state.with(|state| {
            let weight = state.weights.iter_mut().find(|weight| Arc::ptr_eq(&weight.held, held));
            match weight.map(|weight| &mut weight.quantized) {
                Some(Ok(quantized)) => quantized.operand = operand,
                _ => return false,
            }
            true
        });
        // Meanwhile, another thread has put the weight back into full precision.
        if is_quantized { Ok(()) } else { held.restore(&source) }
    }

    pub(super) fn report(&self) -> Result<QuantReport> {
        let weights = self.weights();
        if weights.is_empty() {
            return Err(Error::Model(ModelError::NoWeights));
        }
        self.rulebook.check_rules(weights.iter().map(|weight| weight.held.path.as_str()))?;
        let report = |weight: &LinearWeight| weight.report(&self.vb).map_err(|error| error.at(&weight.held.path));
        Ok(QuantReport { layers: weights.iter().map(report).collect::<Result<_>>()?, warnings: Vec::new() })
    }

    /// The weights as they are now.
    fn weights(&self) -> Vec<LinearWeight> {
        self.state.with(|state| state.weights.clone())
    }
}

/// Calls a function when it goes out of scope, even by a panic.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl BuilderState {
    /// What was handed out for the same request.
    fn again(&self, request: &Request) -> Option<Tensor> {
        let kind = request.kind();
        let repeats = |weight: &&LinearWeight| request.repeats(&weight.held.request, weight.held.tensor());
        let weight = self.weights.iter().find(repeats)?;
        let is_other_use = kind == Kind::Embedding || (kind == Kind::Linear && weight.is_embedding());
        (!is_other_use).then(|| weight.held.tensor().clone())
    }

    /// Where the matrix of a linear weight is used elsewhere.
    fn tied_to(&self, weight: &Use) -> Option<String> {
        self.uses.iter().find(|other| other.is_tie(&weight.name, weight.id)).map(|other| other.name.clone())
    }

    /// The quantized weights that `other` turns out to be tied to, if ties are kept in full precision.
    fn quantized_ties(&self, other: &Use, keeps_ties: bool) -> Vec<Arc<ModelWeight>> {
        let is_tie = |weight: &&LinearWeight| {
            keeps_ties && weight.quantized.is_ok() && other.is_tie(&weight.held.request.name, weight.held.id)
        };
        self.weights.iter().filter(is_tie).map(|weight| Arc::clone(&weight.held)).collect()
    }

    /// Adds a use of a matrix and, if it is a linear weight, that weight. Because of this use, `ties` are no longer
    /// quantized.
    fn record(&mut self, this: Use, weight: Option<LinearWeight>, ties: &[Arc<ModelWeight>]) {
        for other in &mut self.weights {
            if ties.iter().any(|tie| Arc::ptr_eq(tie, &other.held)) {
                other.quantized = Err(SkipReason::Tied(this.name.clone()));
            }
        }
        if let Some(weight) = weight {
            // A matrix that was taken for an embedding turns out to be a linear weight as well.
            self.weights.retain(|other| other.held.request.name != this.name || !other.is_embedding());
            self.weights.push(weight);
        }
        self.uses.push(this);
    }
}

impl Use {
    /// Whether this is another use of the matrix of a linear weight. A builder may load a name several times, and may
    /// hand out one tensor under several names.
    fn is_tie(&self, name: &str, id: TensorId) -> bool {
        if self.name == name { !self.is_linear } else { self.id == id }
    }
}

impl LinearWeight {
    fn new(path: &str, request: Request, source: Tensor, decision: Result<Recipe, SkipReason>) -> Result<Self> {
        let id = source.id();
        let (tensor, quantized) = match decision {
            Err(reason) => (ModelTensor::Own(source), Err(reason)),
            Ok(recipe) => {
                check_finite(&source, "the weight")?;
                let operand = Operand::new("weights", Some(&recipe.weights), path);
                let (conversion, _) = operand.advance(&recipe.weights, &source, true)?;
                let in_place = InPlace::new(&source, conversion, recipe.ste)?;
                (
                    ModelTensor::Computed(in_place, source.is_variable().then_some(source)),
                    Ok(WeightQuantization { recipe, operand }),
                )
            }
        };
        let held = Arc::new(ModelWeight { path: path.to_owned(), request, id, tensor });
        Ok(Self { held, quantized })
    }

    fn is_embedding(&self) -> bool {
        matches!(self.quantized, Err(SkipReason::Embedding))
    }

    /// What to compute next; `None` if the model holds the weight itself.
    fn next(&self, vb: &VarBuilder<'_>) -> Result<Option<Next>> {
        let ModelTensor::Computed(..) = self.held.tensor else { return Ok(None) };
        let source = self.held.source(vb)?;
        let step = match &self.quantized {
            Err(_) => None,
            Ok(WeightQuantization { recipe, operand }) => {
                check_finite(&source, "the weight")?;
                // Only the clone advances until all weights are known to have a next step.
                let operand = operand.clone();
                let (conversion, _) = operand.advance(&recipe.weights, &source, true)?;
                Some((operand, conversion))
            }
        };
        Ok(Some(Next { source, step }))
    }

    fn report(&self, vb: &VarBuilder<'_>) -> Result<LayerReport> {
        let (action, recipe) = match &self.quantized {
            Ok(quantized) => (Action::Quantized, Some(quantized.recipe.clone())),
            Err(reason) => (Action::Skipped(reason.clone()), None),
        };
        let measured = match (&self.held.tensor, &recipe) {
            (ModelTensor::Computed(in_place, _), Some(recipe)) => {
                let source = self.held.source(vb)?;
                let codes = in_place.codes(&source, recipe.weights.granularity)?;
                codes.map(|codes| Measured::of(&source, &codes, Layout::Products { groups: 1 })).transpose()?
            }
            _ => None,
        };
        let tensor = self.held.tensor();
        let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
        Ok(LayerReport {
            path: self.held.path.clone(),
            kind: <candle_nn::Linear as Operation>::KIND,
            shape: tensor.dims().to_vec(),
            action,
            format: recipe.as_ref().map(|recipe| recipe.weights.format),
            recipe,
            activations: None,
            gradients: None,
            distortion: measured.map(|measured| measured.distortion),
            bytes_frozen: measured.map(|measured| measured.bytes),
            bytes_before: bytes,
            bytes_after: bytes,
        })
    }
}

impl ModelWeight {
    fn tensor(&self) -> &Tensor {
        match &self.tensor {
            ModelTensor::Own(tensor) => tensor,
            ModelTensor::Computed(in_place, _) => in_place.tensor(),
        }
    }

    /// The current full-precision weight. A weight that is not a variable is fetched again: it may be an outdated copy
    /// of a variable in another dtype; and if it is not, nothing else needs it in memory.
    fn source(&self, vb: &VarBuilder<'_>) -> Result<Tensor> {
        match &self.tensor {
            ModelTensor::Own(tensor) | ModelTensor::Computed(_, Some(tensor)) => Ok(tensor.clone()),
            ModelTensor::Computed(_, None) => Ok(self.request.fetch(vb)?),
        }
    }

    /// Recomputes the values, unless they are the wrapped builder's own.
    fn update(&self, source: &Tensor, conversion: Option<Conversion>) -> Result<()> {
        match &self.tensor {
            ModelTensor::Own(_) => Ok(()),
            ModelTensor::Computed(in_place, _) => in_place.update(source, conversion),
        }
    }

    /// Puts the model's weight back into full precision.
    fn restore(&self, source: &Tensor) -> Result<()> {
        self.update(source, None)
    }
}
