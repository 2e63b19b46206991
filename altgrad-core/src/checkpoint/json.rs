//! JSON as Python writes it: with `Infinity`, `-Infinity` and `NaN`, which JSON does not have.
//!
//! JSON5 has them, so what is no JSON is read as JSON5. `serde_json`'s values cannot hold them; they are kept as text that no
//! configuration has, and are written back as they were.

use std::fmt;
use std::io::{self, Write};

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What stands for the three in a value.
const KEPT: [(&str, f64); 3] =
    [("\u{1}Infinity", f64::INFINITY), ("\u{1}-Infinity", f64::NEG_INFINITY), ("\u{1}NaN", f64::NAN)];

/// Reads a value, or says why the text is no JSON.
pub(super) fn parse(text: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(text).or_else(|error| {
        let text = str::from_utf8(text).map_err(|_| error.to_string())?;
        // What is wrong with it as JSON says more, unless it is one of the three that is.
        json5::from_str::<Lenient>(text).map(|value| value.0).map_err(|_| error.to_string())
    })
}

/// Reads text as a type, or says why it cannot be.
pub(super) fn parse_as<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_value(parse(text)?).map_err(|error| error.to_string())
}

/// Writes a value on several lines.
pub(super) fn write(value: &Value, mut to: impl Write) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    for (kept, _) in KEPT {
        let quoted = serde_json::to_string(kept)?;
        if text.contains(&quoted) {
            text = text.replace(&quoted, &kept[1..]);
        }
    }
    to.write_all(text.as_bytes())?;
    to.write_all(b"\n")
}

/// A value that may hold the three.
struct Lenient(Value);

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor).map(Self)
    }
}

struct LenientVisitor;

impl<'de> Visitor<'de> for LenientVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        let is_it = |other: f64| value == other || value.is_nan() && other.is_nan();
        Ok(KEPT.into_iter().find(|(_, other)| is_it(*other)).map_or_else(|| value.into(), |(kept, _)| kept.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Lenient(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((key, Lenient(value))) = map.next_entry::<String, Lenient>()? {
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
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
        let text = "{\n  \"a\": [\n    0.0,\n    Infinity,\n    -Infinity\n  ],\n  \"b\": NaN,\n  \"c\": \"Infinity\",\n  \"d\": 12345678901,\n  \"e\": null\n}\n";
        assert_eq!(back(text), text);
        assert_eq!(parse(text.as_bytes()).unwrap()["c"], json!("Infinity"));
        assert_eq!(parse_as::<Vec<u32>>(b"[1, 2]").unwrap(), [1, 2]);
    }

    #[test]
    fn what_is_no_json_is_said_to_be_none() {
        for text in ["", "{", "{\"a\": }", "[Inf]", "\u{0}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(&[0xFF]).is_err());
    }
}
