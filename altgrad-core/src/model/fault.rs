//! Describes what is wrong in the text of a config, where it is, and what is allowed there.

use std::path::Path;

use serde::Serialize;

use super::config::{Rule, TiePolicy};
use crate::error::did_you_mean;
use crate::quantizer::{Granularity, Rounding, ScaleEncoding, Scaling, Ste};
use crate::{ConfigError, Error, Fp8, Infinity, Overflow};

/// What is wrong in a text.
pub(super) struct Fault {
    /// In bytes from the start of the text.
    offset: Option<usize>,
    field: String,
    why: String,
}

impl Fault {
    /// The text does not have this syntax.
    pub(super) fn of_syntax(syntax: Syntax, offset: Option<usize>, message: &str) -> Self {
        let name = match syntax {
            Syntax::Toml => "TOML",
            Syntax::Json => "JSON",
        };
        Self { offset, field: String::new(), why: format!("this is not {name}: {message}") }
    }

    /// The value at `path` is not allowed there; `message` is what serde says about it.
    pub(super) fn of_value(
        syntax: Syntax,
        offset: Option<usize>,
        path: &serde_path_to_error::Path,
        message: &str,
    ) -> Self {
        let names: Vec<_> = path.iter().map(ToString::to_string).collect();
        let field = if names.is_empty() { String::new() } else { path.to_string() };
        let allowed = allowed(syntax, &names, message).unwrap_or_default();
        let nearest = nearest(message);
        // The allowed values list the known variants, together with their fields.
        let message = match message.split_once(", expected") {
            Some((unknown, _)) if unknown.starts_with("unknown variant") && !allowed.is_empty() => unknown,
            _ => message,
        };
        Self { offset, field, why: plain(message).to_owned() + &allowed + &nearest }
    }

    /// The fault as an error that says where in the text it is.
    pub(super) fn locate(self, file: Option<&Path>, text: &str) -> Error {
        // Lines and columns as an editor counts them.
        let before = self.offset.map(|offset| text.get(..offset).unwrap_or(text));
        let position = before.map(|before| {
            let line = before.rsplit('\n').next().unwrap_or_default();
            (before.matches('\n').count() + 1, line.chars().count() + 1)
        });
        Error::Config(ConfigError::Invalid {
            file: file.map(Path::to_owned),
            position,
            field: self.field,
            why: self.why,
        })
    }
}

/// Replaces Rust terms in messages of serde and the parsers with terms of a config.
fn plain(message: &str) -> &str {
    match message {
        // A name alone, where it needs a number.
        _ if message.starts_with("invalid type: unit variant") => "a name is not enough here",
        // Neither a string nor a table with one field.
        "expected value" | "wanted string or table" => "this is neither a name nor a table with one field",
        _ if message.starts_with("wanted exactly 1 element") => "a table with one field is needed here",
        _ => message,
    }
}

/// The known name that is most similar to an unknown one.
fn nearest(message: &str) -> String {
    // serde puts the unknown name in backticks, and after it the known ones.
    let mut names = message.split('`').skip(1).step_by(2);
    match names.next() {
        Some(unknown) if message.starts_with("unknown ") => did_you_mean(unknown, names),
        _ => String::new(),
    }
}

/// The fields whose own errors say what is allowed.
const SELF_EXPLANATORY: [&str; 9] =
    ["recipe", "pattern", "base", "weights", "activations", "gradients", "format", "amax_epsilon", "amax_bound"];

/// The allowed values of the field that a message is about, if the message does not say them. This is a missing field,
/// or the innermost field whose value is wrong, such as `scaling` in `rules[0].recipe.weights.scaling.window`.
fn allowed(syntax: Syntax, path: &[String], message: &str) -> Option<String> {
    let say = |name: &str| Some(format!("; `{name}` may be {}", syntax.spellings(name)?));
    if message.starts_with("unknown field") {
        return None;
    }
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    let enclosing = path.iter().rev().map(String::as_str).take_while(|name| !SELF_EXPLANATORY.contains(name));
    missing.into_iter().chain(enclosing).find_map(say)
}

/// How a config is spelled.
#[derive(Clone, Copy)]
pub(super) enum Syntax {
    Toml,
    Json,
}

impl Syntax {
    /// How the values of a setting are written.
    fn spellings(self, setting: &str) -> Option<String> {
        Some(match setting {
            "recipe" => self.list(&["hybrid", "E4M3"]) + " or another recipe or format, or a table",
            "rules" => self.list(&[[Rule { pattern: "h.0".to_owned(), recipe: None }]]) + " or more of them",
            "pattern" => self.list(&["h.0", "h.*.mlp", "**.c_attn"]) + " or another path",
            "format" => self.list(&[Fp8::E4M3, Fp8::E5M2]) + " or another format",
            "granularity" => self.list(&Granularity::EXAMPLES),
            "scaling" => self.list(&Scaling::EXAMPLES),
            "scale_encoding" => self.list(&ScaleEncoding::EXAMPLES),
            "rounding" => self.list(&[Rounding::NearestEven, Rounding::Stochastic { seed: 1 }]),
            "overflow" => self.list(&[Overflow::Saturate, Overflow::Special]),
            "infinity" => self.list(&[Infinity::Propagate, Infinity::Saturate]),
            "ste" => self.list(&[Ste::PassThrough, Ste::Clipped]),
            "ties" => self.list(&[TiePolicy::KeepFullPrecision, TiePolicy::Quantize]),
            _ => return None,
        })
    }

    fn list(self, values: &[impl Serialize]) -> String {
        values.iter().filter_map(|value| self.write(value)).collect::<Vec<_>>().join(", ")
    }

    /// A value on one line.
    fn write(self, value: &impl Serialize) -> Option<String> {
        match self {
            Self::Toml => {
                let mut text = String::new();
                value.serialize(toml::ser::ValueSerializer::new(&mut text)).ok()?;
                Some(text)
            }
            Self::Json => serde_json::to_string(value).ok(),
        }
    }
}
