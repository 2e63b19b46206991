//! How one layer's tensors are quantized.

use serde::Serialize;

use crate::quantizer::text::or_full_precision;
use crate::quantizer::{Quantizer, Ste};
use crate::{Fp8, Result};

/// How the tensors of one layer are quantized: its weights, its activations (the layer's input), the gradients that
/// its backward pass starts from (those of its output), and the straight-through estimator of the first two.
///
/// With `Q` for quantization, `X` the input `(…, inputs)`, `W` the weight `(outputs, inputs)` and `dY` the gradient of
/// the output `(…, outputs)`, a layer computes
///
/// ```text
/// Y  = Q(X) · Q(W)ᵀ + bias
/// dX = Q(dY) · Q(W)
/// dW = Q(dY)ᵀ · Q(X)
/// ```
///
/// where `Q` leaves a tensor without a quantizer unchanged. If gradients have a quantizer, all three products are
/// those of FP8 hardware: every operand is quantized along the dimension that its product sums over. An operand with
/// one scale per row, or with blocks that are not square, is therefore quantized a second time for the backward pass,
/// from full precision and along its other dimension. If gradients have no quantizer, the backward pass uses the
/// tensors of the forward pass.
///
/// ```
/// use altgrad::{Fp8, Quantizer, Recipe, Scaling, Ste};
///
/// // A format alone: weights only, scaled by the largest magnitude of the last 16 steps.
/// let recipe = Recipe::from(Fp8::E5M2);
/// assert_eq!(recipe.weights.scaling, Scaling::Window { len: 16 });
/// assert_eq!((recipe.activations, recipe.gradients, recipe.ste), (None, None, Ste::PassThrough));
///
/// // A named recipe, and how to depart from it.
/// let recipe = Recipe::tensorwise()
///     .gradients(Quantizer::new(Fp8::E5M2).scaling(Scaling::Delayed { len: 16, margin: 0 }))
///     .ste(Ste::Clipped);
/// assert_eq!(recipe.weights.format, Fp8::E4M3);
///
/// // Training for inference with FP8 activations: the backward pass in full precision.
/// let recipe = Recipe::tensorwise().gradients(None);
/// assert!(recipe.activations.is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Recipe {
    /// How weights are quantized.
    pub weights: Quantizer,
    /// How the layer's input is quantized; `None` leaves it in full precision.
    #[serde(serialize_with = "or_full_precision::serialize")]
    pub activations: Option<Quantizer>,
    /// How the gradient of the layer's output is quantized on its way into the backward pass; `None` leaves it in
    /// full precision.
    #[serde(serialize_with = "or_full_precision::serialize")]
    pub gradients: Option<Quantizer>,
    /// The straight-through estimator of weights and activations.
    pub ste: Ste,
}

impl Recipe {
    /// The names of the fields that are quantizers.
    pub(crate) const ROLES: [&'static str; 3] = ["weights", "activations", "gradients"];

    /// Quantizes the weights and nothing else.
    #[must_use]
    pub fn weight_only(weights: impl Into<Quantizer>) -> Self {
        Self { weights: weights.into(), activations: None, gradients: None, ste: Ste::default() }
    }

    /// Sets the quantizer of the weights.
    #[must_use]
    pub fn weights(self, weights: impl Into<Quantizer>) -> Self {
        Self { weights: weights.into(), ..self }
    }

    /// Sets the quantizer of the layer's input, or removes it.
    #[must_use]
    pub fn activations(self, activations: impl Into<OrFull<Quantizer>>) -> Self {
        Self { activations: activations.into().0, ..self }
    }

    /// Sets the quantizer of the gradient of the layer's output, or removes it.
    #[must_use]
    pub fn gradients(self, gradients: impl Into<OrFull<Quantizer>>) -> Self {
        Self { gradients: gradients.into().0, ..self }
    }

    /// Sets the estimator.
    #[must_use]
    pub fn ste(self, ste: Ste) -> Self {
        Self { ste, ..self }
    }

    /// Checks the quantizers; see [`Quantizer::validate`].
    ///
    /// # Errors
    ///
    /// The error of the first invalid quantizer, with the tensor that it is for.
    pub fn validate(&self) -> Result<()> {
        for (role, quantizer) in self.quantizers() {
            if let Some(quantizer) = quantizer {
                quantizer.validate().map_err(|error| error.of(role))?;
            }
        }
        Ok(())
    }

    /// The three quantizers under the names of their fields.
    pub(crate) fn quantizers(&self) -> [(&'static str, Option<&Quantizer>); 3] {
        let Self { weights, activations, gradients, .. } = self;
        let [of_weights, of_activations, of_gradients] = Self::ROLES;
        [(of_weights, Some(weights)), (of_activations, activations.as_ref()), (of_gradients, gradients.as_ref())]
    }

    /// The [`quantizers`](Self::quantizers) as mutable references.
    pub(crate) fn quantizers_mut(&mut self) -> [(&'static str, Option<&mut Quantizer>); 3] {
        let Self { weights, activations, gradients, .. } = self;
        let [of_weights, of_activations, of_gradients] = Self::ROLES;
        [(of_weights, Some(weights)), (of_activations, activations.as_mut()), (of_gradients, gradients.as_mut())]
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

/// A quantizer or a recipe, or none for full precision. Made from a format, a quantizer, a recipe or an `Option`.
///
/// ```
/// use altgrad::{Fp8, Quantizer, Recipe, Rule};
///
/// let recipe = Recipe::weight_only(Fp8::E4M3).activations(Fp8::E4M3).gradients(Quantizer::new(Fp8::E5M2));
/// assert_eq!(recipe.activations(None).activations, None);
/// assert_eq!(Rule::new("lm_head", None).recipe, None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrFull<T>(pub(crate) Option<T>);

impl<T> From<Option<T>> for OrFull<T> {
    fn from(choice: Option<T>) -> Self {
        Self(choice)
    }
}

impl From<Quantizer> for OrFull<Quantizer> {
    fn from(quantizer: Quantizer) -> Self {
        Self(Some(quantizer))
    }
}

impl From<Fp8> for OrFull<Quantizer> {
    fn from(format: Fp8) -> Self {
        Self(Some(format.into()))
    }
}

impl From<Recipe> for OrFull<Recipe> {
    fn from(recipe: Recipe) -> Self {
        Self(Some(recipe))
    }
}

impl From<Quantizer> for OrFull<Recipe> {
    fn from(weights: Quantizer) -> Self {
        Self(Some(weights.into()))
    }
}

impl From<Fp8> for OrFull<Recipe> {
    fn from(format: Fp8) -> Self {
        Self(Some(format.into()))
    }
}
