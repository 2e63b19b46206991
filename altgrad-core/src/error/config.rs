//! What is wrong with a quantizer, a rule or a config file.

use std::path::{Path, PathBuf};

use super::QuantizerError;
use super::text::nearest_text;

/// What is wrong with how a model is to be quantized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A quantizer's settings contradict themselves.
    #[error("invalid quantizer: {0}")]
    InvalidQuantizer(#[from] QuantizerError),

    /// A percentile observer was given a number that is not a percentage.
    #[error("a percentile observer needs a percentage above 0 and up to 100, this one is {percentage}; try 99.9")]
    InvalidObserver {
        /// The percentage.
        percentage: f64,
    },

    /// A rule's pattern matches no layer.
    #[error(
        "rule `{pattern}` matches no layer{}; a pattern names a layer or an ancestor by its whole dotted path, \
         with `*` for one segment and `**` for any number",
        nearest_text(.nearest)
    )]
    RuleMatchesNothing {
        /// The rule's pattern.
        pattern: String,
        /// The layers whose paths are most like it, best first.
        nearest: Vec<String>,
    },

    /// Every layer that a rule matches was already decided by the rules before it.
    #[error(
        "rule `{pattern}` never applies: the first match wins, and every layer that it matches is matched by \
         an earlier rule ({}); put it before them or remove it",
        .earlier.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", ")
    )]
    RuleNeverApplies {
        /// The rule's pattern.
        pattern: String,
        /// The earlier rules that took its layers.
        earlier: Vec<String>,
    },

    /// A rule's pattern is malformed.
    #[error("rule `{pattern}` is not a pattern: {why}")]
    InvalidPattern {
        /// The rule's pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },

    /// The extension of a config file does not tell its syntax.
    #[error("cannot tell the syntax of the config `{}` by its extension; name it `.toml` or `.json`", .file.display())]
    UnknownSyntax {
        /// The file.
        file: PathBuf,
    },

    /// A config file cannot be read.
    #[error("cannot read the config `{}`: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// A config is invalid.
    #[error("{}{why}", place_text(.file.as_deref(), *.position, .field))]
    Invalid {
        /// The file, if it was read from one.
        file: Option<PathBuf>,
        /// The line and the column, both from 1, if it was read from text.
        position: Option<(usize, usize)>,
        /// The field, such as `rules[1].recipe.weights`; empty for the whole config.
        field: String,
        /// What is wrong, and what is allowed.
        why: String,
    },
}

/// `experiment.toml:3:7: `rules[0].recipe`: `, as compilers write it, or as much of it as is known.
fn place_text(file: Option<&Path>, position: Option<(usize, usize)>, field: &str) -> String {
    let file = file.map_or("config".to_owned(), |file| file.display().to_string());
    let position = position.map_or(String::new(), |(line, column)| format!(":{line}:{column}"));
    let field = if field.is_empty() { String::new() } else { format!("`{field}`: ") };
    format!("{file}{position}: {field}")
}
