//! Reading and writing a config as a file, in TOML or JSON.

use std::fs;
use std::path::Path;

use serde::de::IgnoredAny;

use super::config::QuantConfig;
use super::fault::{Fault, Syntax};
use super::pattern::Pattern;
use crate::{ConfigError, Error, Result};

impl QuantConfig {
    /// Reads a config from a `.toml` or `.json` file; see [`QuantConfig`] for what it may say.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnknownSyntax`](crate::ConfigError::UnknownSyntax) for another extension,
    /// [`ConfigError::Unreadable`](crate::ConfigError::Unreadable) if the file cannot be read, and
    /// [`ConfigError::Invalid`](crate::ConfigError::Invalid) if its text is invalid, with the line, the column and the
    /// field.
    ///
    /// ```
    /// use altgrad::{Fp8, QuantConfig};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("experiment.toml");
    /// std::fs::write(&path, "recipe = 'E5M2'")?;
    /// assert_eq!(QuantConfig::from_file(&path)?, QuantConfig::new(Fp8::E5M2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let file = path.as_ref();
        let syntax =
            syntax_of(file).ok_or_else(|| Error::Config(ConfigError::UnknownSyntax { file: file.to_owned() }))?;
        let text = fs::read_to_string(file)
            .map_err(|source| Error::Config(ConfigError::Unreadable { file: file.to_owned(), source }))?;
        read(syntax, &text).map_err(|fault| fault.locate(Some(file), &text))
    }

    /// Reads a config from TOML; see [`QuantConfig`] for what it may say.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`](crate::ConfigError::Invalid) with the line, the column and the field.
    ///
    /// ```
    /// use altgrad::{QuantConfig, Recipe};
    ///
    /// let text = "recipe = 'hybrid'\nrules = [{ pattern = 'h.0', recipe = 'full_precision' }]";
    /// let config = QuantConfig::from_toml(text)?;
    /// assert_eq!(config, QuantConfig::new(Recipe::hybrid()).skip("h.0"));
    ///
    /// let error = QuantConfig::from_toml("recipe = 'hybrid'\ntie = 'quantize'").unwrap_err();
    /// assert!(error.to_string().starts_with("config:2:1: `tie`: unknown field `tie`"));
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    pub fn from_toml(text: &str) -> Result<Self> {
        read(Syntax::Toml, text).map_err(|fault| fault.locate(None, text))
    }

    /// Reads a config from JSON; see [`QuantConfig`] for what it may say.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`](crate::ConfigError::Invalid) with the line, the column where the value ends, and the
    /// field.
    ///
    /// ```
    /// use altgrad::{QuantConfig, Recipe};
    ///
    /// let config = QuantConfig::from_json(r#"{ "recipe": "hybrid" }"#)?;
    /// assert_eq!(config, QuantConfig::new(Recipe::hybrid()));
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    pub fn from_json(text: &str) -> Result<Self> {
        read(Syntax::Json, text).map_err(|fault| fault.locate(None, text))
    }

    /// The config as TOML, with every field of every quantizer, so that the text keeps its meaning even if defaults and
    /// named recipes change in a later version. [`QuantConfig::from_toml`] gives the same config back.
    ///
    /// A seed above `i64::MAX` is written as it is. TOML allows parsers to reject such integers, and some other parsers
    /// do.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`](crate::ConfigError::Invalid) for a config that could not be read back: an invalid
    /// quantizer or pattern.
    ///
    /// ```
    /// use altgrad::{Fp8, QuantConfig};
    ///
    /// let text = QuantConfig::new(Fp8::E4M3).to_toml()?;
    /// assert!(text.contains("activations = \"full_precision\""));
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    pub fn to_toml(&self) -> Result<String> {
        self.check()?;
        toml::to_string(self).map_err(|error| invalid(String::new(), error.to_string()))
    }

    /// The config as JSON, indented, with every field of every quantizer, as in [`QuantConfig::to_toml`].
    /// [`QuantConfig::from_json`] gives the same config back.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`](crate::ConfigError::Invalid) for a config that could not be read back: an invalid
    /// quantizer or pattern.
    ///
    /// ```
    /// use altgrad::{Fp8, QuantConfig};
    ///
    /// let text = QuantConfig::new(Fp8::E4M3).to_json()?;
    /// assert!(text.contains(r#""activations": "full_precision""#));
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        serde_json::to_string_pretty(self).map_err(|error| invalid(String::new(), error.to_string()))
    }

    /// Checks what reading checks: writing a config that cannot be read would only delay the error until it is hard to
    /// fix.
    pub(crate) fn check(&self) -> Result<()> {
        self.recipe.validate().map_err(|error| invalid("recipe".to_owned(), error.to_string()))?;
        for (number, rule) in self.rules.iter().enumerate() {
            let field = |name| format!("rules[{number}].{name}");
            Pattern::new(&rule.pattern).map_err(|error| invalid(field("pattern"), error.to_string()))?;
            if let Some(recipe) = &rule.recipe {
                recipe.validate().map_err(|error| invalid(field("recipe"), error.to_string()))?;
            }
        }
        Ok(())
    }
}

/// An error in a config that was not read from a file.
pub(super) fn invalid(field: String, why: String) -> Error {
    Error::Config(ConfigError::Invalid { file: None, position: None, field, why })
}

fn syntax_of(file: &Path) -> Option<Syntax> {
    let extension = file.extension()?;
    let known = [("toml", Syntax::Toml), ("json", Syntax::Json)];
    known.into_iter().find(|(name, _)| extension.eq_ignore_ascii_case(name)).map(|(_, syntax)| syntax)
}

fn read(syntax: Syntax, text: &str) -> Result<QuantConfig, Fault> {
    match syntax {
        Syntax::Toml => {
            let offset = |error: &toml::de::Error| error.span().map(|span| span.start);
            let parsed = toml::Deserializer::parse(text)
                .map_err(|error| Fault::of_syntax(syntax, offset(&error), error.message()))?;
            serde_path_to_error::deserialize(parsed).map_err(|error| {
                let inner = error.inner();
                Fault::of_value(syntax, offset(inner), error.path(), inner.message())
            })
        }
        Syntax::Json => {
            let offset = |error: &serde_json::Error| Some(offset_of(text, error.line(), error.column()));
            // The first pass checks only the syntax, so errors of the second are about values, even if `serde_json`
            // classifies them otherwise.
            serde_json::from_str::<IgnoredAny>(text)
                .map_err(|error| Fault::of_syntax(syntax, offset(&error), &json_message(&error)))?;
            serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
                let inner = error.inner();
                Fault::of_value(syntax, offset(inner), error.path(), &json_message(inner))
            })
        }
    }
}

/// The message of a `serde_json` error, without the position at its end.
fn json_message(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&place).map(str::to_owned).unwrap_or(message)
}

/// The offset of a position that `serde_json` reports: the line from 1, and the byte in the line from 1, where 0 is the
/// end of the line before.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    start + column.saturating_sub(1)
}
