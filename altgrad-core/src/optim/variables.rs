//! The variables of an optimizer under their paths, their gradients, and their state as named tensors.

use std::collections::{HashMap, HashSet};
use std::ptr;
use std::sync::PoisonError;

use altgrad_kernels::optim::{Moment, sum_of_squares};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::VarMap;

use super::moments::{self, elements, invalid};
use crate::autograd::{floats, tensor, write};
use crate::error::did_you_mean;
use crate::{OptimError, Result};

/// The variables of a map with their names, in the order of the names: the map itself has no order.
#[must_use]
pub fn variables(map: &VarMap) -> Vec<(String, Var)> {
    let variables = map.data().lock().unwrap_or_else(PoisonError::into_inner);
    let mut variables: Vec<_> = variables.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
    variables.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    variables
}

/// A variable, and what an optimizer remembers of it.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    pub(super) path: String,
    pub(super) var: Var,
    /// Steps so far.
    pub(super) steps: u64,
    pub(super) moments: Vec<Moment>,
}

/// All variables of an optimizer, each once, with moments of these names.
#[derive(Clone, Debug)]
pub(super) struct Variables {
    pub(super) all: Vec<Variable>,
    names: &'static [&'static str],
}

impl Variables {
    /// Variables of floats, in their order; what else there is cannot be trained.
    pub(super) fn new(
        variables: impl IntoIterator<Item = (String, Var)>,
        names: &'static [&'static str],
        zeros: impl Fn(usize) -> Moment,
    ) -> Self {
        let mut known = HashSet::new();
        let floats = variables.into_iter().filter(|(_, var)| var.dtype().is_float() && known.insert(var.id()));
        let with_moments = floats.map(|(path, var)| {
            let moments = names.iter().map(|_| zeros(var.elem_count())).collect();
            Variable { path, var, steps: 0, moments }
        });
        Self { all: with_moments.collect(), names }
    }

    /// The gradient of each variable that has one, and the norm of all of them; an error if one cannot be used.
    pub(super) fn gradients<'g>(&self, store: &'g GradStore) -> Result<(Vec<Option<&'g Tensor>>, f64)> {
        let mut gradients = Vec::with_capacity(self.all.len());
        let mut sum = 0.0;
        for Variable { path, var, .. } in &self.all {
            let gradient = store.get(var);
            gradients.push(gradient);
            let Some(gradient) = gradient else { continue };
            if gradient.dims() != var.dims() {
                let (gradient, variable) = (gradient.dims().to_vec(), var.dims().to_vec());
                return Err(OptimError::GradientShape { path: path.clone(), gradient, variable }.into());
            }
            let values = floats(gradient)?;
            let squares = sum_of_squares(&values);
            if let (false, Some(value)) = (squares.is_finite(), values.iter().find(|value| !value.is_finite())) {
                return Err(OptimError::NotFiniteGradient { path: path.clone(), value: *value }.into());
            }
            sum += squares;
        }
        Ok((gradients, sum.sqrt()))
    }

    /// Bytes of all moments.
    pub(super) fn moment_bytes(&self) -> usize {
        self.all.iter().flat_map(|variable| &variable.moments).map(Moment::bytes).sum()
    }

    pub(super) fn save(&self) -> Result<HashMap<String, Tensor>> {
        let mut tensors = HashMap::new();
        for variable in &self.all {
            let step = Tensor::new(variable.steps as i64, &Device::Cpu)?;
            tensors.insert(key(&variable.path, "step"), step);
            for (moment, name) in variable.moments.iter().zip(self.names) {
                moments::save(moment, key(&variable.path, name), variable.var.shape(), &mut tensors)?;
            }
        }
        Ok(tensors)
    }

    /// Takes all state up, or none of it.
    pub(super) fn load(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let mut rest: HashMap<&str, &Tensor> = tensors.iter().map(|(key, tensor)| (key.as_str(), tensor)).collect();
        let mut loaded = Vec::with_capacity(self.all.len());
        for variable in &self.all {
            let step_key = key(&variable.path, "step");
            let step = elements::<i64>(&step_key, DType::I64, &Shape::from(()), &mut rest)?.into_iter().next();
            let steps = step.and_then(|step| u64::try_from(step).ok());
            let steps = steps.ok_or_else(|| invalid(&step_key, "is not a number of steps".to_owned()))?;
            let moments = variable.moments.iter().zip(self.names).map(|(moment, name)| {
                moments::take(moment, &key(&variable.path, name), variable.var.shape(), &mut rest)
            });
            loaded.push((steps, moments.collect::<Result<Vec<_>>>()?));
        }
        let mut unknown: Vec<&str> = rest.into_keys().collect();
        unknown.sort_unstable();
        if let Some(name) = unknown.first() {
            let known = self.save()?;
            let nearest = did_you_mean(name, known.keys().map(String::as_str));
            return Err(invalid(name, format!("belongs to no variable{nearest}")));
        }
        for (variable, (steps, moments)) in self.all.iter_mut().zip(loaded) {
            (variable.steps, variable.moments) = (steps, moments);
        }
        Ok(())
    }
}

impl Variable {
    /// Calls `step` with the elements, the gradient's and the moments, and stores the elements.
    pub(super) fn update(
        &mut self,
        gradient: &Tensor,
        step: impl FnOnce(&mut [f32], &[f32], &mut [Moment]),
    ) -> Result<()> {
        let Self { var, moments, .. } = self;
        // A storage that is read cannot be written.
        let copy = if share_storage(gradient, var) { Some(gradient.copy()?) } else { None };
        let gradient = floats(copy.as_ref().unwrap_or(gradient))?;
        if var.dtype() == DType::F32 && var.device().is_cpu() && var.is_contiguous() {
            return write(var, |elements| {
                step(elements, &gradient, moments);
                Ok(())
            });
        }
        let mut elements = floats(var)?.to_vec();
        step(&mut elements, &gradient, moments);
        let elements = tensor(elements, var.shape(), DType::F32)?.to_dtype(var.dtype())?;
        Ok(var.set(&elements.to_device(var.device())?)?)
    }
}

/// Whether two tensors lie in one storage.
fn share_storage(a: &Tensor, b: &Tensor) -> bool {
    let place = |tensor: &Tensor| ptr::from_ref(&*tensor.storage_and_layout().0);
    ptr::eq(place(a), place(b))
}

/// Variables without paths under their numbers.
pub(super) fn numbered(vars: Vec<Var>) -> impl Iterator<Item = (String, Var)> {
    vars.into_iter().enumerate().map(|(number, var)| (number.to_string(), var))
}

/// `h.0.mlp.c_fc.weight.exp_avg`, for example.
fn key(path: &str, name: &str) -> String {
    format!("{path}.{name}")
}
