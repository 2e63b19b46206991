//! Quantizers as text: the name of a format, or a table; and what recipes share with them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{Granularity, Quantizer, Rounding, ScaleEncoding, Scaling};
use crate::{Fp8, Infinity, Overflow};

/// How the absence of a quantizer or recipe is written, since TOML has no null.
pub(crate) const FULL_PRECISION: &str = "full_precision";

/// A value that is written as a name, or as a table if there is more to say.
///
/// Not an untagged enum: that would read everything before it decides, and lose the position of each part.
pub(crate) trait NameOrTable<'de>: Sized {
    /// What is accepted, for the message about other input.
    fn accepted() -> Vec<&'static str>;

    fn from_name(name: &str) -> Result<Self, String>;

    fn from_table<A: MapAccess<'de>>(table: A) -> Result<Self, A::Error>;

    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrTableVisitor(PhantomData))
    }
}

struct NameOrTableVisitor<T>(PhantomData<T>);

impl<'de, T: NameOrTable<'de>> Visitor<'de> for NameOrTableVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted = T::accepted();
        match accepted.split_last() {
            Some((last, others)) if !others.is_empty() => write!(f, "{} or {last}", others.join(", ")),
            _ => f.write_str(&accepted.concat()),
        }
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<T, E> {
        T::from_name(name).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<T, A::Error> {
        T::from_table(table)
    }
}

fn is_full_precision(name: &str) -> bool {
    name.trim().eq_ignore_ascii_case(FULL_PRECISION)
}

/// Fails for [`FULL_PRECISION`] where it is not allowed, with a message that says where it is.
pub(crate) fn refuse_full_precision(name: &str) -> Result<(), String> {
    if is_full_precision(name) {
        Err(format!(
            "`{FULL_PRECISION}` is not allowed here; use it in a rule for layers: a `pattern` and the `recipe` \
             \"{FULL_PRECISION}\""
        ))
    } else {
        Ok(())
    }
}

/// A value or [`FULL_PRECISION`], which is read as `None`.
pub(crate) struct OrFullPrecision<T>(pub(crate) Option<T>);

impl<'de, T: NameOrTable<'de>> NameOrTable<'de> for OrFullPrecision<T> {
    fn accepted() -> Vec<&'static str> {
        let mut accepted = T::accepted();
        accepted.push("\"full_precision\"");
        accepted
    }

    fn from_name(name: &str) -> Result<Self, String> {
        if is_full_precision(name) {
            return Ok(Self(None));
        }
        match T::from_name(name) {
            Ok(value) => Ok(Self(Some(value))),
            Err(why) => Err(format!("{why}; `{FULL_PRECISION}` quantizes nothing")),
        }
    }

    fn from_table<A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        T::from_table(table).map(|value| Self(Some(value)))
    }
}

impl<'de, T: NameOrTable<'de>> Deserialize<'de> for OrFullPrecision<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

/// An `Option` whose `None` is written as [`FULL_PRECISION`], for serde's `with`.
pub(crate) mod or_full_precision {
    use super::{Deserializer, FULL_PRECISION, NameOrTable, OrFullPrecision, Serialize, Serializer};

    #[allow(clippy::ref_option, reason = "the signature is serde's")]
    pub(crate) fn serialize<T: Serialize, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str(FULL_PRECISION),
        }
    }

    pub(crate) fn deserialize<'de, T: NameOrTable<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        OrFullPrecision::read(deserializer).map(|value| value.0)
    }
}

/// Reads a field that may be left out, but must have a value if it is there: a null in JSON is an error, not the
/// field's default.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The table of a quantizer, as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct QuantizerTable {
    format: Fp8,
    #[serde(default, deserialize_with = "present")]
    granularity: Option<Granularity>,
    #[serde(default, deserialize_with = "present")]
    scaling: Option<Scaling>,
    #[serde(default, deserialize_with = "present")]
    scale_encoding: Option<ScaleEncoding>,
    #[serde(default, deserialize_with = "present")]
    amax_epsilon: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    amax_bound: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    rounding: Option<Rounding>,
    #[serde(default, deserialize_with = "present")]
    overflow: Option<Overflow>,
    #[serde(default, deserialize_with = "present")]
    infinity: Option<Infinity>,
}

impl From<QuantizerTable> for Quantizer {
    fn from(table: QuantizerTable) -> Self {
        // The granularity comes first, since the default scaling depends on it.
        let quantizer = Self::new(table.format).granularity(table.granularity.unwrap_or_default());
        Self {
            scaling: table.scaling.unwrap_or(quantizer.scaling),
            scale_encoding: table.scale_encoding.unwrap_or(quantizer.scale_encoding),
            amax_epsilon: table.amax_epsilon.unwrap_or(quantizer.amax_epsilon),
            amax_bound: table.amax_bound,
            rounding: table.rounding.unwrap_or(quantizer.rounding),
            overflow: table.overflow.unwrap_or(quantizer.overflow),
            infinity: table.infinity.unwrap_or(quantizer.infinity),
            ..quantizer
        }
    }
}

impl<'de> NameOrTable<'de> for Quantizer {
    fn accepted() -> Vec<&'static str> {
        vec!["the name of a format such as \"E4M3\"", "a table with at least a `format`"]
    }

    fn from_name(name: &str) -> Result<Self, String> {
        refuse_full_precision(name)?;
        name.parse::<Fp8>().map(Self::new).map_err(|error| error.to_string())
    }

    fn from_table<A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let quantizer = Self::from(QuantizerTable::deserialize(MapAccessDeserializer::new(table))?);
        // Validated here, where the position of an error is still known.
        quantizer.validate().map_err(A::Error::custom)?;
        Ok(quantizer)
    }
}

/// The name of a format, or a table with a `format` and any of the other fields, which have the defaults of
/// [`Quantizer::new`] and [`Quantizer::granularity`]. A quantizer that is [invalid](Quantizer::validate) is an error.
///
/// ```
/// use altgrad::{Fp8, Granularity, Quantizer};
///
/// let quantizer: Quantizer = serde_json::from_str(r#"{ "format": "E4M3", "granularity": "per_row" }"#)?;
/// assert_eq!(quantizer, Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow));
/// # Ok::<(), serde_json::Error>(())
/// ```
impl<'de> Deserialize<'de> for Quantizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}
