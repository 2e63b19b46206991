//! Recipes that libraries and specifications define, by their names.

use std::str::FromStr;

use super::Recipe;
use crate::error::did_you_mean;
use crate::quantizer::{E8M0Rule, Granularity, Quantizer, ScaleEncoding, Scaling};
use crate::{Fp8, ParseError};

/// The lower bound on amax in torchao's float8 training (`EPS` in `torchao/float8/float8_utils.py`).
const TORCHAO_EPSILON: f64 = 1e-12;

impl Recipe {
    /// The named recipes that take no argument, with the names that [`FromStr`] reads.
    #[allow(clippy::type_complexity, reason = "a table of names and values reads well as it is")]
    pub const NAMED: [(&'static str, fn() -> Self); 5] = [
        ("tensorwise", Self::tensorwise),
        ("rowwise", Self::rowwise),
        ("hybrid", Self::hybrid),
        ("blockwise", Self::blockwise),
        ("mxfp8", Self::mxfp8),
    ];

    /// torchao's float8 training recipe `tensorwise`: E4M3 weights and activations, E5M2 gradients, one scale per
    /// tensor from its current largest magnitude.
    ///
    /// Source: `Float8LinearConfig.from_recipe_name("tensorwise")`; the multiplier is `448 / max(amax, 1e-12)`, rounded
    /// to `f32` (`amax_to_scale`), and altgrad's scale its reciprocal. To depart from it:
    ///
    /// ```
    /// use altgrad::{Fp8, Quantizer, Recipe};
    ///
    /// let recipe = Recipe::tensorwise();
    /// // E4M3 gradients:
    /// let gradients = recipe.weights.clone();
    /// let e4m3_everywhere = recipe.clone().gradients(gradients);
    /// // Gradients in full precision:
    /// let full_precision_gradients = recipe.gradients(None);
    /// # assert_eq!(e4m3_everywhere.gradients.map(|quantizer| quantizer.format), Some(Fp8::E4M3));
    /// ```
    #[must_use]
    pub fn tensorwise() -> Self {
        let quantizer = Quantizer::new(Fp8::E4M3)
            .scaling(Scaling::Current)
            .scale_encoding(ScaleEncoding::F32Reciprocal)
            .amax_epsilon(TORCHAO_EPSILON);
        Self::weight_only(quantizer.clone()).activations(quantizer.clone()).gradients(quantizer.format(Fp8::E5M2))
    }

    /// torchao's float8 training recipe `rowwise`: E4M3 throughout, one power-of-two scale per row (per token of
    /// activations and gradients, per output channel of weights), along the dimension that each product sums over.
    ///
    /// Source: `Float8LinearConfig.from_recipe_name("rowwise")` with `round_scales_to_power_of_2`. altgrad computes
    /// the power of two exactly. torchao computes it through `log2` in `f32`, so its multiplier is too large by a
    /// factor of two for an `amax` just above `448 × 2^k` (up to 38 steps of `f32`). To depart from it:
    ///
    /// ```
    /// use altgrad::{Granularity, Recipe, ScaleEncoding};
    ///
    /// let recipe = Recipe::rowwise();
    /// // Scales that are any f32:
    /// let activations = recipe.activations.clone().map(|rows| rows.scale_encoding(ScaleEncoding::F32));
    /// let recipe = recipe.activations(activations);
    /// # assert_eq!(recipe.activations.unwrap().granularity, Granularity::PerRow);
    /// ```
    #[must_use]
    pub fn rowwise() -> Self {
        let quantizer = Quantizer::new(Fp8::E4M3)
            .granularity(Granularity::PerRow)
            .scale_encoding(ScaleEncoding::PowerOfTwo)
            .amax_epsilon(TORCHAO_EPSILON);
        Self::weight_only(quantizer.clone()).activations(quantizer.clone()).gradients(quantizer)
    }

    /// Transformer Engine's `DelayedScaling` with `Format.HYBRID`: E4M3 weights and activations, E5M2 gradients, one
    /// scale per tensor from the largest magnitude of the previous 1024 steps.
    ///
    /// Source: `transformer_engine/common/recipe`; the multiplier is `largest / amax` in `f32`, and altgrad's scale
    /// its reciprocal (Transformer Engine's `scale_inv`). The scale is 1 in the first step of each tensor, and stays
    /// 1 in a model that never ran in training mode: to quantize a trained model, use another recipe. To depart from
    /// it:
    ///
    /// ```
    /// use altgrad::{Recipe, Scaling};
    ///
    /// let mut recipe = Recipe::hybrid();
    /// // A shorter memory, and a bit of headroom for gradients:
    /// if let Some(gradients) = &mut recipe.gradients {
    ///     gradients.scaling = Scaling::Delayed { len: 16, margin: 1 };
    /// }
    /// ```
    #[must_use]
    pub fn hybrid() -> Self {
        let quantizer = Quantizer::new(Fp8::E4M3)
            .scaling(Scaling::Delayed { len: 1024, margin: 0 })
            .scale_encoding(ScaleEncoding::F32Reciprocal);
        Self::weight_only(quantizer.clone()).activations(quantizer.clone()).gradients(quantizer.format(Fp8::E5M2))
    }

    /// The recipe of DeepSeek-V3: E4M3 throughout, one scale for each block of 128 × 128 weights and of 1 × 128
    /// activations or gradients.
    ///
    /// Source: "DeepSeek-V3 Technical Report" (2024), section 3.3.2, in the numerics of torchao's
    /// `prototype/blockwise_fp8_training`: the multiplier is `448 / max(amax, 1e-12)`, rounded to `f32`. To depart from
    /// it:
    ///
    /// ```
    /// use altgrad::{Granularity, Recipe, ScaleEncoding};
    ///
    /// // Power-of-two scales, the default of Transformer Engine's `Float8BlockScaling`:
    /// let mut recipe = Recipe::blockwise();
    /// recipe.weights = recipe.weights.scale_encoding(ScaleEncoding::PowerOfTwo);
    /// # assert_eq!(recipe.weights.granularity, Granularity::PerBlock { rows: 128, cols: 128 });
    /// ```
    #[must_use]
    pub fn blockwise() -> Self {
        let quantizer = Quantizer::new(Fp8::E4M3)
            .granularity(Granularity::PerBlock { rows: 1, cols: 128 })
            .scale_encoding(ScaleEncoding::F32Reciprocal)
            .amax_epsilon(TORCHAO_EPSILON);
        Self::weight_only(quantizer.clone().granularity(Granularity::PerBlock { rows: 128, cols: 128 }))
            .activations(quantizer.clone())
            .gradients(quantizer)
    }

    /// MXFP8 of the OCP Microscaling Formats specification 1.0: E4M3 throughout, one E8M0 scale for each 32 elements
    /// along the dimension that a product sums over.
    ///
    /// Source: the specification, sections 5.2, 6.3 and 7; the scale is that of its floor rule. To depart from it:
    ///
    /// ```
    /// use altgrad::{E8M0Rule, Fp8, Recipe, ScaleEncoding};
    ///
    /// // The scales of Blackwell GPUs and Transformer Engine, with which nothing saturates, and E5M2 gradients:
    /// let mut recipe = Recipe::mxfp8();
    /// let round_up = recipe.weights.clone().scale_encoding(ScaleEncoding::E8M0(E8M0Rule::RoundUp));
    /// let recipe = Recipe::weight_only(round_up.clone())
    ///     .activations(round_up.clone())
    ///     .gradients(round_up.format(Fp8::E5M2));
    /// # assert!(recipe.validate().is_ok());
    /// ```
    #[must_use]
    pub fn mxfp8() -> Self {
        let quantizer = Quantizer::new(Fp8::E4M3)
            .granularity(Granularity::PerBlock { rows: 1, cols: 32 })
            .scale_encoding(ScaleEncoding::E8M0(E8M0Rule::Floor));
        Self::weight_only(quantizer.clone()).activations(quantizer.clone()).gradients(quantizer)
    }
}

/// The name of a recipe in [`Recipe::NAMED`], or of a format for [`Recipe::weight_only`].
///
/// ```
/// use altgrad::{Fp8, Recipe};
///
/// assert_eq!("hybrid".parse(), Ok(Recipe::hybrid()));
/// assert_eq!("E5M2".parse(), Ok(Recipe::from(Fp8::E5M2)));
/// ```
impl FromStr for Recipe {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let name = text.trim();
        if let Some((_, recipe)) = Self::NAMED.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Ok(recipe());
        }
        name.parse::<Fp8>().map(Self::weight_only).map_err(|error| {
            // What is wrong with it as a custom format, if it is spelled like one.
            let format = if name.contains('(') { format!(": {error}") } else { String::new() };
            let names = Self::NAMED.map(|(name, _)| name);
            let meant = did_you_mean(text, names);
            let known = names.join(", ");
            let why = format!(
                "neither a recipe nor a format; recipes are {known}, and a format such as E4M3 or E5M2 quantizes \
                 weights only{meant}{format}"
            );
            ParseError::new(text, why)
        })
    }
}
