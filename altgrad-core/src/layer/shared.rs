//! What a layer remembers of each of its tensors, shared with the backward passes that are still to come.

use std::sync::Arc;

use altgrad_kernels::Conversion;
use altgrad_kernels::lock::Lock;
use candle_core::{DType, Shape, Tensor};

use super::Recipe;
use super::cache::Cache;
use super::weight::FixedWeight;
use crate::quantizer::{AmaxHistory, Clip, Codes, Fp8Tensor, Quantizer, QuantizerState, Scaling, Spare, stream};
use crate::{Error, Result};

/// What a layer remembers of each of its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) weights: Role,
    pub(crate) activations: Role,
    pub(crate) gradients: Role,
    /// The weight's codes in eval mode, once they were needed.
    pub(super) kept: Cache<Kept>,
}

/// A weight's codes that stay, with what they were made by.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) weight: FixedWeight,
    pub(super) conversion: Arc<Conversion>,
    /// Where the weight's gradient stops.
    pub(super) clip: Clip,
    /// The transpose along its own rows, where a recipe has backward passes compute with that. It is made together with the
    /// codes, since the weight may have changed when a backward pass comes to need it.
    pub(super) transposed: Option<KeptTranspose>,
}

/// The transpose of a weight that stays.
#[derive(Clone, Debug)]
pub(super) enum KeptTranspose {
    /// On the CPU.
    Codes(Codes),
    /// On devices.
    Tensor(Fp8Tensor),
}

impl KeptTranspose {
    /// The values, of this shape.
    pub(super) fn dequantize(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Codes(codes) => codes.dequantize(shape, dtype),
            Self::Tensor(codes) => codes.dequantize(),
        }
    }
}

/// What a layer remembers of one of its tensors.
#[derive(Debug)]
pub(crate) struct Role {
    /// The field of the recipe that says how the tensor is quantized.
    pub(crate) name: &'static str,
    state: Lock<QuantizerState>,
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
        Self { weights, activations, gradients, kept: Cache::new() }
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
            state: Lock::new(quantizer.map_or_else(QuantizerState::nothing, Quantizer::state)),
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

    /// What is remembered.
    pub(crate) fn state(&self) -> QuantizerState {
        self.state.get()
    }

    /// Remembers something else.
    pub(crate) fn set_state(&self, state: QuantizerState) {
        self.state.replace(state);
    }

    /// Fails if the scale is delayed and nothing was measured yet.
    pub(crate) fn check_measured(&self, quantizer: &Quantizer) -> Result<()> {
        let is_delayed = matches!(quantizer.scaling, Scaling::Delayed { .. });
        if is_delayed && self.history().largest().is_none() {
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
        self.state.with(|state| state.history.clone())
    }

    /// Number of steps so far.
    pub(super) fn step(&self) -> u64 {
        self.state.with(|state| state.step)
    }

    /// How `x` is converted in the step at hand, which does not count as one.
    pub(super) fn peek(&self, quantizer: &Quantizer, x: &Tensor) -> Result<Conversion> {
        Ok(quantizer.conversion(x, self.what(), &self.state(), self.stream)?.0)
    }

    /// How `x` is converted in the step at hand, with the number of that step; in training it is added to the state.
    ///
    /// Threads that train at the same time have steps of their own, in the order in which they begin. Each sees the
    /// history as it is then, and its amax is recorded when it is known: in the order in which that happens.
    pub(crate) fn advance(&self, quantizer: &Quantizer, x: &Tensor, training: bool) -> Result<(Conversion, u64)> {
        let state = self.state.with(|state| {
            let now = state.clone();
            state.step += u64::from(training);
            now
        });
        let (conversion, amax) = quantizer.conversion(x, self.what(), &state, self.stream)?;
        if let (true, Some(amax)) = (training, amax) {
            self.state.with(|state| quantizer.record(amax, &mut state.history));
        }
        Ok((conversion, state.step))
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
        let Self { name, ref state, stream, transposed_stream, .. } = *self;
        let state = state.clone();
        Self { name, state, stream, transposed_stream, spare: Spare::default(), transposed_spare: Spare::default() }
    }
}
