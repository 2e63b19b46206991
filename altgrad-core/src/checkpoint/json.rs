//! Reads and writes JSON as Python does: with `Infinity`, `-Infinity` and `NaN`, which standard JSON lacks.
//!
//! `serde_json`'s values cannot hold them; they are kept as strings that no configuration contains, and are written
//! back unchanged.

use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The strings that represent the three in a value; each starts with a character that configurations do not use.
const KEPT: [&str; 3] = ["\u{1}-Infinity", "\u{1}Infinity", "\u{1}NaN"];

/// Reads a value, or says why the text is not JSON.
pub(super) fn parse(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(text).or_else(|error| {
        let quoted = with_words_quoted(text).map_err(|error| error.to_string())?;
        // The error of the original text gives the position in it.
        serde_json::from_slice(&quoted).map_err(|_| error.to_string())
    })
}

/// Reads text as a type, or says why it cannot be.
pub(super) fn parse_as<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_value(parse(text)?).map_err(|error| error.to_string())
}

/// Writes a value on several lines.
pub(super) fn write(value: &Value, mut to: impl Write) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    for kept in KEPT {
        let quoted = serde_json::to_string(kept)?;
        if text.contains(&quoted) {
            text = text.replace(&quoted, &kept[1..]);
        }
    }
    to.write_all(text.as_bytes())?;
    to.write_all(b"\n")
}

/// The text with the three replaced by these strings, except inside of strings.
fn with_words_quoted(text: &[u8]) -> serde_json::Result<Vec<u8>> {
    let mut quoted = Vec::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let [byte, after @ ..] = rest {
        let word = KEPT.iter().find(|kept| !in_string && rest.starts_with(&kept.as_bytes()[1..]));
        let length = match (word, byte, after) {
            (Some(kept), ..) => {
                serde_json::to_writer(&mut quoted, kept)?;
                rest = &rest[kept.len() - 1..];
                continue;
            }
            (None, b'\\', [_, ..]) if in_string => 2,
            (None, b'"', _) => {
                in_string = !in_string;
                1
            }
            _ => 1,
        };
        let (copied, others) = rest.split_at(length);
        quoted.extend_from_slice(copied);
        rest = others;
    }
    Ok(quoted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{parse, parse_as, write};

    fn back(text: &str) -> String {
        let mut out = Vec::new();
        write(&parse(text.as_bytes()).unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_python_writes_comes_back_as_it_was() {
        let text = "{\n  \"a\": [\n    0.0,\n    Infinity,\n    -Infinity\n  ],\n  \"b\": NaN,\n  \
                    \"c\": \"Infinity\",\n  \"d\": 12345678901,\n  \"e\": null\n}\n";
        assert_eq!(back(text), text);
        assert_eq!(parse(text.as_bytes()).unwrap()["c"], json!("Infinity"));
        assert_eq!(parse_as::<Vec<u32>>(b"[1, 2]").unwrap(), [1, 2]);
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        for text in ["", "{", "{\"a\": }", "[Inf]", "\u{0}", "InfinityInfinity", "{'a': 1}", "[NaN"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(&[0xFF]).is_err());
    }

    #[test]
    fn words_in_strings_are_strings() {
        let text = r#"{"NaN": ["\\", NaN, "a\"NaN", -Infinity, "\\\"Infinity"]}"#;
        let value = parse(text.as_bytes()).unwrap();
        let kept = |word: &str| format!("\u{1}{word}");
        assert_eq!(value, json!({"NaN": ["\\", kept("NaN"), "a\"NaN", kept("-Infinity"), "\\\"Infinity"]}));
    }

    #[test]
    fn nesting_has_a_limit() {
        for deep in ["[", "{\"a\":"] {
            assert!(parse((deep.repeat(200_000) + "NaN").as_bytes()).is_err());
        }
    }
}
