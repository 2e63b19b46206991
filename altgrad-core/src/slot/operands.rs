//! The operands of a layer.

use std::sync::Arc;

use super::Recipe;
use crate::quantizer::{Operand, Quantizer};

/// What a layer keeps for each of the tensors that its recipe covers, shared with pending backward passes.
#[derive(Clone, Debug)]
pub(crate) struct Operands {
    /// Shared by the layers that are tied to one another and quantized as one.
    pub(crate) weights: Arc<Operand>,
    pub(crate) activations: Operand,
    pub(crate) gradients: Operand,
}

impl Operands {
    /// The operands of the layer at `path` before its first step.
    pub(crate) fn new(recipe: &Recipe, path: &str) -> Self {
        let [weights, activations, gradients] =
            recipe.quantizers().map(|(name, quantizer)| Operand::new(name, quantizer, path));
        Self { weights: Arc::new(weights), activations, gradients }
    }

    /// All three, in the order of [`Recipe::quantizers`].
    pub(crate) fn all(&self) -> [&Operand; 3] {
        [&self.weights, &self.activations, &self.gradients]
    }

    /// Those that a recipe quantizes, with their quantizers.
    pub(crate) fn quantized<'o>(&'o self, recipe: &'o Recipe) -> impl Iterator<Item = (&'o Operand, &'o Quantizer)> {
        let quantizers = recipe.quantizers().map(|(_, quantizer)| quantizer);
        self.all().into_iter().zip(quantizers).filter_map(|(operand, quantizer)| Some((operand, quantizer?)))
    }

    /// A copy of the states that changes independently from here on.
    pub(crate) fn split(&self) -> Self {
        let Self { weights, activations, gradients } = self;
        Self {
            weights: Arc::new(Operand::clone(weights)),
            activations: activations.clone(),
            gradients: gradients.clone(),
        }
    }
}
