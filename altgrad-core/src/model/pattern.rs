//! Patterns over dotted paths.

use regex::Regex;

use crate::{ConfigError, Error, Result};

/// A compiled pattern: dotted segments with `*` and `**`, or `re:` and a regular expression.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self> {
        let invalid = |why: String| Error::Config(ConfigError::InvalidPattern { pattern: pattern.to_owned(), why });
        let expression = match pattern.strip_prefix("re:") {
            Some(expression) => format!("^(?:{expression})$"),
            None => translate(pattern).map_err(invalid)?,
        };
        Regex::new(&expression).map(Self).map_err(|error| invalid(error.to_string()))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

/// The regular expression of a dotted pattern. A pattern that matches an ancestor matches everything below it, so the
/// expression ends with any number of further segments.
fn translate(pattern: &str) -> Result<String, String> {
    if pattern.is_empty() {
        return Err("it is empty; `**` matches every layer".to_owned());
    }
    let mut expression = String::from("^");
    // The separator before the next segment: a dot, except at the start and after `**`, whose expression ends with a
    // dot.
    let mut separator = "";
    for segment in pattern.split('.') {
        if segment.is_empty() {
            return Err("it has an empty segment; write one dot between segments and none at the ends".to_owned());
        }
        if segment == "**" {
            expression += separator;
            expression += r"(?:[^.]+\.)*";
            separator = "";
            continue;
        }
        if segment.contains("**") {
            return Err(format!("`**` stands for whole segments; in `{segment}` write `*`"));
        }
        expression += separator;
        expression += &match segment {
            "*" => "[^.]+".to_owned(),
            segment => segment.split('*').map(regex::escape).collect::<Vec<_>>().join("[^.]*"),
        };
        separator = r"\.";
    }
    // A final `**` has to match at least one segment.
    expression += if separator.is_empty() { "[^.]+$" } else { r"(?:\..+)?$" };
    Ok(expression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_segments_and_subtrees() {
        let table: [(&str, &[&str], &[&str]); 14] = [
            ("h.0", &["h.0", "h.0.attn", "h.0.attn.c_attn"], &["h.01", "h.00.attn", "h", "x.h.0"]),
            ("h.0.attn.c_attn", &["h.0.attn.c_attn"], &["h.0.attn.c_attn2", "h.0.attn", "h.0.attnXc_attn"]),
            ("h.*", &["h.0", "h.11.mlp.c_fc"], &["h", "g.0"]),
            ("h.*.mlp.c_proj", &["h.0.mlp.c_proj", "h.12.mlp.c_proj"], &["h.0.1.mlp.c_proj", "h.mlp.c_proj"]),
            ("h.*.*", &["h.0.attn", "h.0.attn.c_attn"], &["h.0"]),
            ("c_*", &["c_fc", "c_proj", "c_", "c_fc.inner"], &["xc_fc", "h.c_fc"]),
            ("*_proj", &["c_proj", "_proj"], &["proj", "c_projection"]),
            ("**.c_proj", &["c_proj", "h.0.c_proj", "h.0.mlp.c_proj"], &["h.0.c_projx", "xc_proj"]),
            ("h.**", &["h.0", "h.0.attn.c_attn"], &["h", "g.h.0"]),
            ("h.**.c_proj", &["h.c_proj", "h.0.mlp.c_proj"], &["c_proj", "hc_proj", "h.0.mlp.c_fc"]),
            ("**", &["h", "h.0.attn"], &[]),
            ("a+b", &["a+b"], &["aab"]),
            (r"re:h\.\d+\.attn\..*", &["h.0.attn.c_attn"], &["x.h.0.attn.c_attn", "h.x.attn.c_attn"]),
            ("re:lm_head|h", &["lm_head", "h"], &["lm_head2", "h.0"]),
        ];
        for (pattern, matching, others) in table {
            let compiled = Pattern::new(pattern).unwrap_or_else(|error| panic!("{error}"));
            for path in matching {
                assert!(compiled.matches(path), "`{pattern}` should match `{path}`");
            }
            for path in others {
                assert!(!compiled.matches(path), "`{pattern}` should not match `{path}`");
            }
        }
    }

    #[test]
    fn a_bad_pattern_says_what_is_wrong() {
        for (pattern, part) in [
            ("", "it is empty"),
            ("h..attn", "empty segment"),
            (".h", "empty segment"),
            ("h.", "empty segment"),
            ("h.a**", "`**` stands for whole segments; in `a**` write `*`"),
            ("re:h.(", "unclosed group"),
        ] {
            let message = Pattern::new(pattern).map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains(&format!("`{pattern}`")), "{message}");
        }
    }
}
