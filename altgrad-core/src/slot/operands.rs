//! The operands of a layer.

use std::sync::Arc;

use super::Recipe;
use crate::quantizer::{Operand, Quantizer};

/// What a layer keeps of each of the tensors that its recipe is for, shared with the backward passes that are still to
/// come.
#[derive(Clone, Debug)]
pub(crate) struct Operands {
    /// Shared by the layers that are tied to one another and quantized as one.
    pub(crate) weights: Arc<Operand>,
    pub(crate) activations: Operand,
    pub(crate) gradients: Operand,
}

impl Operands {
    /// How things are before the first step of the layer at `path`.
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

    /// The same states, which go their own way from here.
    pub(crate) fn split(&self) -> Self {
        let Self { weights, activations, gradients } = self;
        Self {
            weights: Arc::new(Operand::clone(weights)),
            activations: activations.clone(),
            gradients: gradients.clone(),
        }
    }
}
