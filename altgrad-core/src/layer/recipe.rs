//! How one layer's tensors are quantized.

use serde::Serialize;

use crate::format::Fp8;
use crate::quantizer::{Quantizer, Ste};

/// How the tensors of one layer are quantized: its weights, and what the backward pass makes of it.
///
/// ```
/// use altgrad_core::{Fp8, Quantizer, Recipe, Scaling, Ste};
///
/// // A format alone: weights only, scaled by the largest magnitude of the last 16 steps.
/// let recipe = Recipe::from(Fp8::E5M2);
/// assert_eq!(recipe.weights.scaling, Scaling::Window { len: 16 });
/// assert_eq!(recipe.ste, Ste::PassThrough);
///
/// let recipe = Recipe::weight_only(Quantizer::new(Fp8::E4M3).scaling(Scaling::Current)).ste(Ste::Clipped);
/// assert_eq!(recipe.weights.format, Fp8::E4M3);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Recipe {
    /// How weights are quantized.
    pub weights: Quantizer,
    /// The straight-through estimator of the backward pass.
    pub ste: Ste,
}

impl Recipe {
    /// Quantizes the weights and nothing else.
    #[must_use]
    pub fn weight_only(weights: impl Into<Quantizer>) -> Self {
        Self { weights: weights.into(), ste: Ste::default() }
    }

    /// The same with another estimator.
    #[must_use]
    pub fn ste(self, ste: Ste) -> Self {
        Self { ste, ..self }
    }
}

impl From<Quantizer> for Recipe {
    fn from(weights: Quantizer) -> Self {
        Self::weight_only(weights)
    }
}

impl From<Fp8> for Recipe {
    fn from(format: Fp8) -> Self {
        Self::weight_only(format)
    }
}
