//! How a model is to be quantized: a recipe, rules by path, and a policy for ties.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::pattern::Pattern;
use crate::quantizer::Quantizer;
use crate::quantizer::text::or_full_precision;
use crate::slot::{OrFull, Recipe};
use crate::{Fp8, Result};

/// How a whole model is quantized.
///
/// What decides about a layer, in order of precedence: `#[quant(skip)]` on it or on an enclosing field; the first rule
/// that matches its path; the nearest `#[quant(recipe = …)]`; the config's own recipe. A layer that shares its weight
/// with another part of the model is also subject to the [`TiePolicy`], even if a rule matches it.
///
/// A pattern consists of dotted segments; `*` matches exactly one segment or any part of one, and `**` any number of
/// segments. A pattern that matches an ancestor matches everything below it: `h.0` stands for all layers of the first
/// block, and never for `h.01`. A pattern that starts with `re:` is a regular expression over the full path.
///
/// ```
/// use altgrad::{Fp8, QuantConfig};
///
/// let config = QuantConfig::new(Fp8::E4M3)
///     .skip("h.0")                               // the first block stays in full precision
///     .rule("h.*.mlp.c_proj", Fp8::E3M4)         // first match wins
///     .rule(r"re:h\.\d+\.attn\..*", None);       // the long way to skip
/// assert_eq!(config.rules.len(), 3);
/// ```
///
/// # As a file
///
/// [`from_file`](Self::from_file) reads a config from TOML or JSON, and [`to_toml`](Self::to_toml) and
/// [`to_json`](Self::to_json) write one; with serde, a config can also be part of a larger file of your own. Anything
/// unknown or invalid in a file is an error with its line, its column and its field.
///
/// ```
/// use altgrad::{Fp8, Granularity, QuantConfig, Quantizer, Recipe, Ste};
///
/// let config = QuantConfig::from_toml(
///     r#"
///     recipe = "hybrid"                 # a named recipe, or a format for weights only
///     ties = "keep_full_precision"      # the default; or "quantize"
///
///     [[rules]]                         # first match wins
///     pattern = "h.0"
///     recipe = "full_precision"         # not quantized at all
///
///     [[rules]]
///     pattern = "h.*.mlp.c_proj"
///     recipe = "E3M4"
///
///     [[rules]]
///     pattern = "**.c_attn"
///     [rules.recipe]                    # wherever a recipe can be named, it can be a table
///     base = "tensorwise"               # what is not said below; without it, `weights` must be said
///     weights = { format = "E4M3", granularity = "per_row" }
///     activations = "E4M3"              # a format alone
///     gradients = "full_precision"      # no quantizer
///     ste = "clipped"                   # or "pass_through"
///     "#,
/// )?;
/// let c_attn = Recipe::weight_only(Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow))
///     .activations(Fp8::E4M3)
///     .ste(Ste::Clipped);
/// let same = QuantConfig::new(Recipe::hybrid())
///     .skip("h.0")
///     .rule("h.*.mlp.c_proj", Fp8::E3M4)
///     .rule("**.c_attn", c_attn);
/// assert_eq!(config, same);
/// # Ok::<(), altgrad::Error>(())
/// ```
///
/// The table of a quantizer must have a `format`; the other fields have the defaults of the builder, [`Quantizer::new`]
/// and [`Quantizer::granularity`]. A quantizer replaces the one of `base` as a whole.
///
/// | field | values |
/// |---|---|
/// | `format` | `"E4M3"`, or any other text that [`Fp8`] parses |
/// | `granularity` | `"per_tensor"`, `"per_row"`, `"per_channel"`, `{ per_block = { rows = 128, cols = 128 } }` |
/// | `scaling` | `"current"`, `{ window.len = 16 }`, `{ delayed = { len = 1024, margin = 0 } }`, `{ static = 0.05 }` |
/// | `scale_encoding` | `"f32"`, `"f32_reciprocal"`, `"power_of_two"`, `{ e8m0 = "floor" }`, `{ e8m0 = "round_up" }` |
/// | `amax_epsilon` | `0.0`, `1e-12` |
/// | `amax_bound` | `1200.0`; no bound if it is left out |
/// | `rounding` | `"nearest_even"`, `{ stochastic = { seed = 1 } }` |
/// | `overflow` | `"saturate"`, `"special"` |
/// | `infinity` | `"propagate"`, `"saturate"` |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a config: a table with a `recipe`, and perhaps `rules` and `ties`")]
#[non_exhaustive]
pub struct QuantConfig {
    /// The recipe of every layer that no rule and no attribute decides about.
    pub recipe: Recipe,
    /// The rules, in the order in which they are tried.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What to do with layers that share their weight.
    #[serde(default)]
    pub ties: TiePolicy,
}

/// What a config says about the layers whose paths match a pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a rule: a table with a `pattern` and a `recipe`")]
#[non_exhaustive]
pub struct Rule {
    /// Which layers.
    #[serde(deserialize_with = "pattern")]
    pub pattern: String,
    /// Their recipe; `None` keeps them in full precision.
    #[serde(with = "or_full_precision")]
    pub recipe: Option<Recipe>,
}

/// Reads a pattern, which must be well formed.
fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let pattern = String::deserialize(deserializer)?;
    Pattern::new(&pattern).map_err(D::Error::custom)?;
    Ok(pattern)
}

/// What [`quantize`](crate::Quantizable::quantize) does with a slot whose weight is also used by another part of
/// the model, such as a head that is tied to the embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TiePolicy {
    /// Leaves it in full precision and reports what it is tied to.
    #[default]
    KeepFullPrecision,
    /// Quantizes it like any other. Slots that share a weight and quantize it alike share one quantizer and, once
    /// frozen, one set of codes; a part that is not a slot keeps using the full-precision tensor.
    Quantize,
}

impl Rule {
    /// The layers that match `pattern` get `recipe`, or stay in full precision if it is `None`.
    #[must_use]
    pub fn new(pattern: impl Into<String>, recipe: impl Into<OrFull<Recipe>>) -> Self {
        Self { pattern: pattern.into(), recipe: recipe.into().0 }
    }
}

impl QuantConfig {
    /// The same recipe for every layer.
    #[must_use]
    pub fn new(recipe: impl Into<Recipe>) -> Self {
        Self { recipe: recipe.into(), rules: Vec::new(), ties: TiePolicy::default() }
    }

    /// Adds a rule that is tried after the rules added before: the layers that match `pattern` get `recipe`, or stay in
    /// full precision if it is `None`. A bad pattern is an error when the config is used.
    #[must_use]
    pub fn rule(mut self, pattern: impl Into<String>, recipe: impl Into<OrFull<Recipe>>) -> Self {
        self.rules.push(Rule::new(pattern, recipe));
        self
    }

    /// Keeps the layers that match `pattern` in full precision: a rule with `None`.
    #[must_use]
    pub fn skip(self, pattern: impl Into<String>) -> Self {
        self.rule(pattern, None)
    }

    /// The same with another policy for ties.
    #[must_use]
    pub fn ties(self, ties: TiePolicy) -> Self {
        Self { ties, ..self }
    }
}

impl From<Recipe> for QuantConfig {
    fn from(recipe: Recipe) -> Self {
        Self::new(recipe)
    }
}

impl From<Quantizer> for QuantConfig {
    fn from(quantizer: Quantizer) -> Self {
        Self::new(quantizer)
    }
}

impl From<Fp8> for QuantConfig {
    fn from(format: Fp8) -> Self {
        Self::new(format)
    }
}
