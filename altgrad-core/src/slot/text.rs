//! Recipes as text: a name, or a table.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess};

use super::Recipe;
use crate::quantizer::text::{NameOrTable, OrFullPrecision, present, refuse_full_precision};
use crate::quantizer::{Quantizer, Ste};

/// The table of a recipe, as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeTable {
    #[serde(default, deserialize_with = "base")]
    base: Option<Recipe>,
    #[serde(default, deserialize_with = "present")]
    weights: Option<Quantizer>,
    #[serde(default, deserialize_with = "present")]
    activations: Option<OrFullPrecision<Quantizer>>,
    #[serde(default, deserialize_with = "present")]
    gradients: Option<OrFullPrecision<Quantizer>>,
    #[serde(default, deserialize_with = "present")]
    ste: Option<Ste>,
}

/// A name only: a table here could just as well be the recipe itself.
fn base<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Recipe>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

impl<'de> NameOrTable<'de> for Recipe {
    fn accepted() -> Vec<&'static str> {
        vec![
            "the name of a recipe such as \"hybrid\"",
            "the name of a format such as \"E4M3\"",
            "a table with `weights` or a `base`",
        ]
    }

    fn from_name(name: &str) -> Result<Self, String> {
        refuse_full_precision(name)?;
        name.parse::<Self>().map_err(|error| error.to_string())
    }

    fn from_table<A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let table = RecipeTable::deserialize(MapAccessDeserializer::new(table))?;
        let recipe = match (table.base, table.weights) {
            (Some(base), None) => base,
            (Some(base), Some(weights)) => base.weights(weights),
            (None, Some(weights)) => Self::weight_only(weights),
            (None, None) => {
                return Err(A::Error::custom(
                    "a recipe needs `weights`, or a `base` that has them such as \"hybrid\" or \"E4M3\"",
                ));
            }
        };
        let recipe = Self {
            activations: table.activations.map_or(recipe.activations, |quantizer| quantizer.0),
            gradients: table.gradients.map_or(recipe.gradients, |quantizer| quantizer.0),
            ste: table.ste.unwrap_or(recipe.ste),
            ..recipe
        };
        recipe.validate().map_err(A::Error::custom)?;
        Ok(recipe)
    }
}

/// A name that [`FromStr`](std::str::FromStr) reads, or a table. The table has a `base` (such a name; the other
/// fields replace parts of that recipe) or `weights`, and any of `activations`, `gradients` and `ste`. Each tensor
/// has a [`Quantizer`]; `"full_precision"` means that it has none.
///
/// ```
/// use altgrad::{Recipe, Ste};
///
/// let text = r#"{ "base": "tensorwise", "gradients": "full_precision", "ste": "clipped" }"#;
/// let recipe: Recipe = serde_json::from_str(text)?;
/// assert_eq!(recipe, Recipe::tensorwise().gradients(None).ste(Ste::Clipped));
/// # Ok::<(), serde_json::Error>(())
/// ```
impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}
