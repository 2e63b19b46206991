//! Variables for an optimizer, in place of the constants that layers hold.

use std::collections::HashMap;

use candle_core::{Tensor, TensorId, Var};

use super::Quantizable;
use super::inspect::{Found, Inspection, Slots, below, check_same_paths};
use crate::layer::Linear;
use crate::{Error, Result};

/// What [`make_trainable`](crate::Quantizable::make_trainable) found in the linear layers of a model: what an optimizer can
/// train, and what it cannot.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Trainable {
    /// The variables, each once, under the path of its first use, `h.0.attn.c_attn.weight` for example, in the order of
    /// declaration.
    pub variables: Vec<(String, Var)>,
    /// What stays a constant, by path in the order of declaration, and why. Empty if every weight and bias is trained.
    pub constants: Vec<(String, Constant)>,
}

/// Why a tensor of a linear layer cannot be a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Constant {
    /// The layer is frozen: its weight is codes.
    Frozen,
    /// The tensor is also used at this path, by a part of the model that is no linear layer, and a variable in its place
    /// would break the tie.
    Tied(String),
    /// The tensor is computed from a variable, in another dtype for example. Its gradient goes there, so that is what to
    /// train.
    Computed,
}

impl Trainable {
    /// The variables alone, for an optimizer.
    #[must_use]
    pub fn vars(&self) -> Vec<Var> {
        self.variables.iter().map(|(_, variable)| variable.clone()).collect()
    }
}

pub(super) fn make_trainable<M: Quantizable + ?Sized>(model: &mut M) -> Result<Trainable> {
    let mut made = Made::default();
    let replacements = {
        let inspection = Inspection::of(model)?;
        let layers = inspection.layers.iter();
        if !inspection.layers.is_empty() && layers.clone().all(|found| matches!(found.layer, Linear::Frozen(_))) {
            return Err(Error::NothingToTrain);
        }
        layers.map(|found| Ok((found.path.clone(), made.replace(&inspection, found)?))).collect::<Result<Vec<_>>>()?
    };
    let slots = Slots::of(model)?.0;
    check_same_paths(replacements.iter().map(|(path, _)| path), slots.iter().map(|(path, _)| path))?;
    for ((_, replacement), (_, slot)) in replacements.into_iter().zip(slots) {
        if let Some(replacement) = replacement {
            *slot = replacement;
        }
    }
    Ok(made.trainable)
}

/// What was made so far.
#[derive(Default)]
struct Made {
    trainable: Trainable,
    /// The variable that stands for a tensor, and nothing for one that stays as it is.
    known: HashMap<TensorId, Option<Var>>,
}

impl Made {
    /// The layer with variables, if it can have any.
    fn replace(&mut self, model: &Inspection<'_>, found: &Found<'_>) -> Result<Option<Linear>> {
        let mut tensor = |name, tensor: &Tensor| self.tensor(model, below(&found.path, name), tensor);
        let layer = found.layer;
        let Some(weight) = layer.master_weight() else {
            // Its bias may be a variable, which stays what it is.
            if let Some(bias) = layer.bias().filter(|bias| bias.is_variable()) {
                tensor("bias", bias)?;
            }
            self.trainable.constants.push((below(&found.path, "weight"), Constant::Frozen));
            return Ok(None);
        };
        let weight = tensor("weight", weight)?;
        let bias = layer.bias().map(|bias| tensor("bias", bias)).transpose()?;
        let linear = candle_nn::Linear::new(weight, bias);
        Ok(match layer {
            Linear::Full(_) => Some(layer.with_full(linear)),
            Linear::Quantized(layer) => Some(layer.with_wrapped(linear).into()),
            Linear::Frozen(_) => None,
        })
    }

    /// The tensor to put in place of that at `path`.
    fn tensor(&mut self, model: &Inspection<'_>, path: String, tensor: &Tensor) -> Result<Tensor> {
        if let Some(known) = self.known.get(&tensor.id()) {
            return Ok(known.as_ref().map_or_else(|| tensor.clone(), |variable| variable.as_tensor().clone()));
        }
        let constant = if tensor.is_variable() {
            None
        } else if tensor.track_op() {
            Some(Constant::Computed)
        } else {
            model.use_by_another_part(tensor).map(|other| Constant::Tied(other.to_owned()))
        };
        // Of a tensor that is a variable already this is the same one.
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
