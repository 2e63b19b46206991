//! The linear weights that a builder handed out: how each is quantized, and the values that its model holds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Tensor, TensorId};
use candle_nn::VarBuilder;

use super::request::{Kind, Request};
use crate::kernels::Conversion;
use crate::layer::handed_out::Part;
use crate::layer::{Recipe, Role};
use crate::model::config::TiePolicy;
use crate::model::names::looks_like_embedding;
use crate::model::report::{Action, LayerReport, Measured, QuantReport, SkipReason};
use crate::model::rulebook::{Rulebook, Undecided};
use crate::quantizer::{InPlace, check_finite};
use crate::{Error, Result};

/// Where weights come from, what is to become of them, and those that a model has.
pub(super) struct Weights<'a> {
    /// At its root.
    vb: VarBuilder<'a>,
    rulebook: Rulebook,
    handed_out: Mutex<HandedOut>,
}

#[derive(Default)]
struct HandedOut {
    /// In the order in which they were asked for.
    weights: Vec<Weight>,
    /// What each matrix, linear weight or not, was handed out as.
    uses: Vec<Use>,
}

/// A use of a matrix of the wrapped builder.
struct Use {
    name: String,
    id: TensorId,
    is_linear: bool,
}

/// One linear weight.
struct Weight {
    path: String,
    request: Request,
    /// That of the tensor in the wrapped builder.
    id: TensorId,
    held: Held,
    quantized: Result<Quantized, SkipReason>,
}

/// What the model holds.
enum Held {
    /// The wrapped builder's own tensor.
    Own(Tensor),
    /// A tensor that is computed from it, and the variable that it is, if it is one.
    Computed(InPlace, Option<Tensor>),
}

/// How a weight is quantized.
struct Quantized {
    recipe: Recipe,
    role: Role,
}

/// What the next step makes of a weight.
struct Next {
    source: Tensor,
    /// What the weight's role will be, and how the source is converted; nothing if it is only copied.
    step: Option<(Role, Conversion)>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(vb: &VarBuilder<'a>, rulebook: Rulebook) -> Self {
        Self { vb: vb.root(), rulebook, handed_out: Mutex::default() }
    }

    pub(super) fn rulebook(&self) -> &Rulebook {
        &self.rulebook
    }

    /// Codes of a checkpoint are none: a slot that found them would be frozen in the checkpoint's format.
    pub(super) fn contains(&self, name: &str) -> bool {
        Part::split(name).is_none() && self.vb.contains_tensor(name)
    }

    /// The tensor that the model gets.
    pub(super) fn get(&self, request: Request) -> Result<Tensor> {
        let mut handed_out = self.lock();
        if let Some(tensor) = handed_out.again(&request) {
            return Ok(tensor);
        }
        let tensor = request.fetch(&self.vb)?;
        if tensor.rank() != 2 {
            return Ok(tensor);
        }
        let mut this = Use { name: request.name.clone(), id: tensor.id(), is_linear: false };
        let handed = match request.layer() {
            Some(path) if request.kind() != Kind::Embedding => {
                let tied_to = handed_out.tied_to(&this);
                let is_embedding = request.kind() == Kind::Unsaid
                    && tied_to.is_none()
                    && looks_like_embedding(path)
                    && !self.rulebook.names(path);
                this.is_linear = !is_embedding;
                let dtype = Some(tensor.dtype());
                let layer = Undecided { path, skipped: false, recipe: None, tied_to, dtype };
                let decision = match self.rulebook.decide(&layer) {
                    Ok(_) if is_embedding => Err(SkipReason::Embedding),
                    decision => decision.cloned(),
                };
                let path = path.to_owned();
                let weight = Weight::new(path.clone(), request, tensor, decision).map_err(|error| error.at(&path))?;
                let handed = weight.tensor().clone();
                // What was taken for an embedding turns out to be a linear weight as well.
                handed_out.weights.retain(|other| other.request.name != this.name || !other.is_embedding());
                handed_out.weights.push(weight);
                handed
            }
            _ => tensor,
        };
        if self.rulebook.config().ties == TiePolicy::KeepFullPrecision {
            handed_out.restore_tied_to(&this, &self.vb)?;
        }
        handed_out.uses.push(this);
        Ok(handed)
    }

    /// Computes all weights anew, or on an error none.
    pub(super) fn requantize(&self) -> Result<()> {
        let mut handed_out = self.lock();
        let next = |weight: &Weight| weight.next(&self.vb).map_err(|error| error.at(&weight.path));
        let next = handed_out.weights.iter().map(next).collect::<Result<Vec<_>>>()?;
        for (weight, next) in handed_out.weights.iter_mut().zip(next) {
            if let Some(next) = next {
                weight.step(next).map_err(|error| error.at(&weight.path))?;
            }
        }
        Ok(())
    }

    pub(super) fn report(&self) -> Result<QuantReport> {
        let handed_out = self.lock();
        if handed_out.weights.is_empty() {
            return Err(Error::NoWeights);
        }
        self.rulebook.check_rules(handed_out.weights.iter().map(|weight| weight.path.as_str()))?;
        let report = |weight: &Weight| weight.report(&self.vb).map_err(|error| error.at(&weight.path));
        Ok(QuantReport { layers: handed_out.weights.iter().map(report).collect::<Result<_>>()? })
    }

    /// A panic elsewhere leaves a list that is whole, since nothing is added to it in parts.
    fn lock(&self) -> MutexGuard<'_, HandedOut> {
        self.handed_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandedOut {
    /// What was handed out for the same request.
    fn again(&self, request: &Request) -> Option<Tensor> {
        let kind = request.kind();
        let weight = self.weights.iter().find(|weight| request.repeats(&weight.request, weight.tensor()))?;
        let is_other_use = kind == Kind::Embedding || (kind == Kind::Linear && weight.is_embedding());
        (!is_other_use).then(|| weight.tensor().clone())
    }

    /// Where the matrix of a linear weight is used elsewhere.
    fn tied_to(&self, weight: &Use) -> Option<&str> {
        self.uses.iter().find(|other| other.is_tie(&weight.name, weight.id)).map(|other| other.name.as_str())
    }

    /// Gives quantized weights that `other` turns out to be tied to their full precision back.
    fn restore_tied_to(&mut self, other: &Use, vb: &VarBuilder<'_>) -> Result<()> {
        for weight in &mut self.weights {
            if weight.quantized.is_ok() && other.is_tie(&weight.request.name, weight.id) {
                weight.restore(SkipReason::Tied(other.name.clone()), vb).map_err(|error| error.at(&weight.path))?;
            }
        }
        Ok(())
    }
}

impl Use {
    /// Whether this is another use of the matrix of a linear weight. A builder may load what has one name several times,
    /// and hand out one tensor under several.
    fn is_tie(&self, name: &str, id: TensorId) -> bool {
        if self.name == name { !self.is_linear } else { self.id == id }
    }
}

impl Weight {
    fn new(path: String, request: Request, source: Tensor, decision: Result<Recipe, SkipReason>) -> Result<Self> {
        let id = source.id();
        let (held, quantized) = match decision {
            Err(reason) => (Held::Own(source), Err(reason)),
            Ok(recipe) => {
                check_finite(&source, "the weight")?;
                let role = Role::new("weights", Some(&recipe.weights), &path);
                let (conversion, _) = role.advance(&recipe.weights, &source, true)?;
                let in_place = InPlace::new(&source, conversion, recipe.ste)?;
                (Held::Computed(in_place, source.is_variable().then_some(source)), Ok(Quantized { recipe, role }))
            }
        };
        Ok(Self { path, request, id, held, quantized })
    }

    fn tensor(&self) -> &Tensor {
        match &self.held {
            Held::Own(tensor) => tensor,
            Held::Computed(in_place, _) => in_place.tensor(),
        }
    }

    fn is_embedding(&self) -> bool {
        matches!(self.quantized, Err(SkipReason::Embedding))
    }

    /// The full-precision weight as it is now. What is no variable is asked for anew: it may be a copy of one that has
    /// moved, in another dtype, and if not, nobody else needs it in memory.
    fn source(&self, vb: &VarBuilder<'_>) -> Result<Tensor> {
        match &self.held {
            Held::Own(tensor) | Held::Computed(_, Some(tensor)) => Ok(tensor.clone()),
            Held::Computed(_, None) => Ok(self.request.fetch(vb)?),
        }
    }

    fn restore(&mut self, reason: SkipReason, vb: &VarBuilder<'_>) -> Result<()> {
        let source = self.source(vb)?;
        if let Held::Computed(in_place, _) = &self.held {
            in_place.update(&source, None)?;
        }
        self.quantized = Err(reason);
        Ok(())
    }

    /// What is to be computed next; nothing if the model holds the weight itself.
    fn next(&self, vb: &VarBuilder<'_>) -> Result<Option<Next>> {
        let Held::Computed(..) = self.held else { return Ok(None) };
        let source = self.source(vb)?;
        let step = match &self.quantized {
            Err(_) => None,
            Ok(Quantized { recipe, role }) => {
                check_finite(&source, "the weight")?;
                // The clone's state moves, until it is known that all weights have a next step.
                let role = role.clone();
                let (conversion, _) = role.advance(&recipe.weights, &source, true)?;
                Some((role, conversion))
            }
        };
        Ok(Some(Next { source, step }))
    }

    fn step(&mut self, Next { source, step }: Next) -> Result<()> {
        let (role, conversion) = step.unzip();
        if let Held::Computed(in_place, _) = &self.held {
            in_place.update(&source, conversion)?;
        }
        if let (Ok(quantized), Some(role)) = (&mut self.quantized, role) {
            quantized.role = role;
        }
        Ok(())
    }

    fn report(&self, vb: &VarBuilder<'_>) -> Result<LayerReport> {
        let (action, recipe) = match &self.quantized {
            Ok(quantized) => (Action::Quantized, Some(quantized.recipe.clone())),
            Err(reason) => (Action::Skipped(reason.clone()), None),
        };
        let measured = match (&self.held, &recipe) {
            (Held::Computed(in_place, _), Some(recipe)) => {
                let source = self.source(vb)?;
                let codes = in_place.codes(&source, recipe.weights.granularity)?;
                codes.map(|codes| Measured::of(&source, &codes)).transpose()?
            }
            _ => None,
        };
        let tensor = self.tensor();
        let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
        Ok(LayerReport {
            path: self.path.clone(),
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
