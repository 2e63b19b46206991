//! What a layer remembers of each of its tensors, shared with the backward passes that are still to come.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::Tensor;

use super::Recipe;
use crate::kernels::Conversion;
use crate::quantizer::{AmaxHistory, Quantizer, QuantizerState, Scaling, Spare, stream};
use crate::{Error, Result};

/// What a layer remembers of each of its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) weights: Role,
    pub(crate) activations: Role,
    pub(crate) gradients: Role,
}

/// What a layer remembers of one of its tensors.
#[derive(Debug)]
pub(crate) struct Role {
    /// The field of the recipe that says how the tensor is quantized.
    pub(crate) name: &'static str,
    state: Mutex<QuantizerState>,
    /// Where random draws come from, and those for the transposed tensor.
    stream: u32,
    transposed_stream: u32,
    /// Where the tensor's codes were in the last step.
    pub(super) spare: Spare,
    pub(super) transposed_spare: Spare,
}

impl Shared {
    /// How things are before the first step of the layer at `path`.
    pub(crate) fn new(recipe: &Recipe, path: &str) -> Self {
        let [weights, activations, gradients] =
            recipe.quantizers().map(|(name, quantizer)| Role::new(name, quantizer, path));
        Self { weights, activations, gradients }
    }

    /// All three, in the order of [`Recipe::quantizers`].
    pub(crate) fn roles(&self) -> [&Role; 3] {
        [&self.weights, &self.activations, &self.gradients]
    }
}

impl Role {
    /// Before the first step of the tensor that the field `name` of a layer's recipe is for.
    pub(crate) fn new(name: &'static str, quantizer: Option<&Quantizer>, path: &str) -> Self {
        Self {
            name,
            state: Mutex::new(quantizer.map_or_else(QuantizerState::nothing, Quantizer::state)),
            stream: stream(&format!("{path}.{name}")),
            transposed_stream: stream(&format!("{path}.{name}.transposed")),
            spare: Spare::default(),
            transposed_spare: Spare::default(),
        }
    }

    /// Gives back the memory that is kept from step to step for speed.
    pub(super) fn clear_spares(&self) {
        self.spare.clear();
        self.transposed_spare.clear();
    }

    /// A lock that a panicking thread left behind guards plain values, so they are as good as before.
    pub(crate) fn lock(&self) -> MutexGuard<'_, QuantizerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if the scale is delayed and nothing was measured yet.
    pub(crate) fn check_measured(&self, quantizer: &Quantizer) -> Result<()> {
        let is_delayed = matches!(quantizer.scaling, Scaling::Delayed { .. });
        if is_delayed && self.lock().history.largest().is_none() {
            Err(Error::NoHistory { role: self.name })
        } else {
            Ok(())
        }
    }

    /// The tensor, for messages.
    fn what(&self) -> &'static str {
        match self.name {
            "weights" => "the weight",
            "activations" => "the input",
            _ => "the gradient of the output",
        }
    }

    /// The largest magnitudes so far.
    pub(super) fn history(&self) -> AmaxHistory {
        self.lock().history.clone()
    }

    /// How `x` is converted in the step at hand, which does not count as one.
    pub(super) fn peek(&self, quantizer: &Quantizer, x: &Tensor) -> Result<Conversion> {
        // Not under the lock: layers that serve do this at the same time.
        let state = self.lock().clone();
        Ok(quantizer.conversion(x, self.what(), &state, self.stream)?.0)
    }

    /// How `x` is converted in the step at hand, with the number of that step; in training it is added to the state.
    pub(crate) fn advance(&self, quantizer: &Quantizer, x: &Tensor, training: bool) -> Result<(Conversion, u64)> {
        let mut state = self.lock();
        let step = state.step;
        let (conversion, amax) = quantizer.conversion(x, self.what(), &state, self.stream)?;
        if training {
            if let Some(amax) = amax {
                quantizer.record(amax, &mut state.history);
            }
            state.step += 1;
        }
        Ok((conversion, step))
    }

    /// How the transpose `x` of a tensor that was converted in `step` is converted along its own rows.
    pub(super) fn transposed(&self, quantizer: &Quantizer, x: &Tensor, step: u64) -> Result<Conversion> {
        let state = QuantizerState { step, ..quantizer.state() };
        Ok(quantizer.conversion(x, self.what(), &state, self.transposed_stream)?.0)
    }
}

impl Clone for Role {
    /// The same state, which goes its own way from here.
    fn clone(&self) -> Self {
        let Self { name, stream, transposed_stream, .. } = *self;
        let state = Mutex::new(self.lock().clone());
        Self { name, state, stream, transposed_stream, spare: Spare::default(), transposed_spare: Spare::default() }
    }
}
