//! Turns the constants that layers hold into variables for an optimizer.

use std::collections::HashMap;

use candle_core::{Tensor, TensorId, Var};

use super::Visit;
use super::inspect::{self, Inspection, Slots, VisitedSlot, below};
use crate::slot::{AnySlot, SlotState};
use crate::{Error, ModelError, Result};

/// What an optimizer can train in the slots of a model, and what it cannot; returned by
/// [`make_trainable`](crate::Quantizable::make_trainable).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Trainable {
    /// The variables, each once, under the path of its first use (such as `h.0.attn.c_attn.weight`), in the order of
    /// declaration.
    pub variables: Vec<(String, Var)>,
    /// The tensors that stay constant, by path in the order of declaration, and why. Empty if every weight and bias can
    /// be trained.
    pub constants: Vec<(String, Constant)>,
}

/// Why a tensor of a slot cannot be a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Constant {
    /// The layer is frozen: its weight is codes.
    Frozen,
    /// The tensor is also used at this path, by a part of the model that is not a slot or is frozen, and a variable in
    /// its place would break the tie.
    Tied(String),
    /// The tensor is computed from a variable, for example by a change of dtype. Its gradient goes to that variable, so
    /// train the variable.
    Computed,
}

impl Trainable {
    /// The variables alone, for an optimizer.
    #[must_use]
    pub fn vars(&self) -> Vec<Var> {
        self.variables.iter().map(|(_, variable)| variable.clone()).collect()
    }
}

pub(super) fn make_trainable<M: Visit + ?Sized>(model: &mut M) -> Result<Trainable> {
    let mut made = Made::default();
    let mut replacements = {
        let inspection = Inspection::of(model)?;
        let slots = inspection.slots.iter();
        let is_frozen = |visited: &VisitedSlot<'_>| visited.slot.state() == SlotState::Frozen;
        if !inspection.slots.is_empty() && slots.clone().all(is_frozen) {
            return Err(Error::Model(ModelError::NothingToTrain));
        }
        for visited in slots.clone().filter(|visited| is_frozen(visited)) {
            if let Some(bias) = visited.slot.bias() {
                made.frozen.entry(bias.id()).or_insert_with(|| below(&visited.path, "bias"));
            }
        }
        slots
            .map(|visited| Ok((visited.path.clone(), made.replace(&inspection, visited)?)))
            .collect::<Result<Vec<_>>>()?
    };
    inspect::replace(
        Slots::of(model)?,
        replacements.iter_mut().map(|(path, slot)| (path.as_str(), slot.take())).collect(),
    )?;
    Ok(made.trainable)
}

/// The variables and constants found so far.
#[derive(Default)]
struct Made {
    trainable: Trainable,
    /// The variable that replaces a tensor; `None` if the tensor stays as it is.
    known: HashMap<TensorId, Option<Var>>,
    /// The biases of frozen layers, which keep them, with their paths.
    frozen: HashMap<TensorId, String>,
}

impl Made {
    /// The layer with variables, if it can have any.
    fn replace(&mut self, model: &Inspection<'_>, visited: &VisitedSlot<'_>) -> Result<Option<Box<dyn AnySlot>>> {
        let mut tensor = |name, tensor: &Tensor| self.tensor(model, below(&visited.path, name), tensor);
        let slot = visited.slot;
        let Some(weight) = slot.master_weight() else {
            // Its bias may be a variable, and then stays one.
            if let Some(bias) = slot.bias().filter(|bias| bias.is_variable()) {
                tensor("bias", bias)?;
            }
            self.trainable.constants.push((below(&visited.path, "weight"), Constant::Frozen));
            return Ok(None);
        };
        let weight = tensor("weight", weight)?;
        let bias = slot.bias().map(|bias| tensor("bias", bias)).transpose()?;
        Ok(slot.to_trainable(weight, bias))
    }

    /// The tensor that replaces the one at `path`.
    fn tensor(&mut self, model: &Inspection<'_>, path: String, tensor: &Tensor) -> Result<Tensor> {
        if let Some(known) = self.known.get(&tensor.id()) {
            return Ok(known.as_ref().map_or_else(|| tensor.clone(), |variable| variable.as_tensor().clone()));
        }
        let constant = if tensor.is_variable() {
            None
        } else if tensor.track_op() {
            Some(Constant::Computed)
        } else {
            let frozen = self.frozen.get(&tensor.id()).map(String::as_str);
            let other = model.use_by_another_part(tensor).or(frozen);
            other.map(|other| Constant::Tied(other.to_owned()))
        };
        // If the tensor already is a variable, this is the same variable.
        let variable = if constant.is_none() { Some(Var::from_tensor(tensor)?) } else { None };
        self.known.insert(tensor.id(), variable.clone());
        match (variable, constant) {
            (Some(variable), _) => {
                let tensor = variable.as_tensor().clone();
                self.trainable.variables.push((path, variable));
                Ok(tensor)
            }
            (None, constant) => {
                self.trainable.constants.extend(constant.map(|constant| (path, constant)));
                Ok(tensor.clone())
            }
        }
    }
}
