//! Decides about a layer: by the rules of a config, matched against paths, and by what else is known about the layer.

use candle_core::DType;

use super::config::{QuantConfig, TiePolicy};
use super::inspect::nearest;
use super::pattern::Pattern;
use super::report::SkipReason;
use crate::quantizer::is_supported;
use crate::slot::Recipe;
use crate::{ConfigError, Error, Result};

/// A config ready to decide about layers.
pub(crate) struct Rulebook {
    config: QuantConfig,
    /// One per rule.
    patterns: Vec<Pattern>,
}

/// What a decision about a layer depends on.
pub(crate) struct LayerFacts<'l> {
    pub(crate) path: &'l str,
    /// Whether `#[quant(skip)]` is on it or on a field that encloses it.
    pub(crate) skipped: bool,
    /// The nearest `#[quant(recipe = …)]`.
    pub(crate) recipe: Option<&'l Recipe>,
    /// Where else the model uses the layer's weight.
    pub(crate) tied_to: Option<&'l str>,
    /// The dtype of the full-precision weight, if the layer still has it.
    pub(crate) dtype: Option<DType>,
}

impl Rulebook {
    /// Fails if a pattern is malformed.
    pub(crate) fn new(config: QuantConfig) -> Result<Self> {
        let patterns = config.rules.iter().map(|rule| Pattern::new(&rule.pattern)).collect::<Result<_>>()?;
        Ok(Self { config, patterns })
    }

    pub(crate) fn config(&self) -> &QuantConfig {
        &self.config
    }

    /// The layer's recipe, or why it gets none.
    pub(crate) fn decide<'d>(&'d self, layer: &LayerFacts<'d>) -> Result<&'d Recipe, SkipReason> {
        if layer.skipped {
            return Err(SkipReason::Attribute);
        }
        let recipe = match self.deciding(layer.path).map(|number| &self.config.rules[number]) {
            Some(rule) => rule.recipe.as_ref().ok_or_else(|| SkipReason::Rule(rule.pattern.clone()))?,
            None => layer.recipe.unwrap_or(&self.config.recipe),
        };
        if let (TiePolicy::KeepFullPrecision, Some(other)) = (self.config.ties, layer.tied_to) {
            return Err(SkipReason::Tied(other.to_owned()));
        }
        match layer.dtype {
            Some(dtype) if !is_supported(dtype) => Err(SkipReason::Unsupported(format!("weight of dtype {dtype:?}"))),
            _ => Ok(recipe),
        }
    }

    /// Whether the rule that decides about `path` names this layer, and does not match it only through an ancestor.
    pub(crate) fn names(&self, path: &str) -> bool {
        let ancestor = path.rsplit_once('.').map(|(ancestor, _)| ancestor);
        self.deciding(path).is_some_and(|number| !ancestor.is_some_and(|path| self.patterns[number].matches(path)))
    }

    /// Fails if there is a rule that decides about no layer; `paths` are those of all layers of a model.
    pub(crate) fn check_rules<'p>(&self, paths: impl Iterator<Item = &'p str> + Clone) -> Result<()> {
        let deciding: Vec<Option<usize>> = paths.clone().map(|path| self.deciding(path)).collect();
        for (number, (rule, pattern)) in self.config.rules.iter().zip(&self.patterns).enumerate() {
            if deciding.contains(&Some(number)) {
                continue;
            }
            let pattern_text = rule.pattern.clone();
            let matched = paths.clone().zip(&deciding).filter(|(path, _)| pattern.matches(path));
            let mut earlier: Vec<usize> = matched.filter_map(|(_, decided)| *decided).collect();
            earlier.sort_unstable();
            earlier.dedup();
            if earlier.is_empty() {
                return Err(Error::Config(ConfigError::RuleMatchesNothing {
                    nearest: nearest(&pattern_text, paths),
                    pattern: pattern_text,
                }));
            }
            let earlier = earlier.into_iter().map(|number| self.config.rules[number].pattern.clone()).collect();
            return Err(Error::Config(ConfigError::RuleNeverApplies { pattern: pattern_text, earlier }));
        }
        Ok(())
    }

    /// The number of the rule that decides about the layer at `path`, if one does.
    fn deciding(&self, path: &str) -> Option<usize> {
        self.patterns.iter().position(|pattern| pattern.matches(path))
    }
}
