//! Formats as text: `Display`, `FromStr` and serde, all through the same names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Fp8, Specials};
use crate::ParseError;

impl Specials {
    const NAMED: [(&'static str, Self); 4] =
        [("none", Self::None), ("nan_only", Self::NanOnly), ("ieee", Self::Ieee), ("fnuz", Self::Fnuz)];

    fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, specials)| *specials == self).map_or("", |(name, _)| name)
    }
}

impl fmt::Display for Fp8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = Self::NAMED.iter().find(|(_, format)| format == self) {
            return f.pad(name);
        }
        f.pad(&format!(
            "E{}M{}(bias={}, specials={})",
            self.exponent_bits,
            self.mantissa_bits,
            self.bias,
            self.specials.name(),
        ))
    }
}

impl fmt::Debug for Fp8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads the names in [`Fp8::NAMED`] in any case, and what [`Fp8`] prints for a format without a name:
/// `E4M3(bias=5, specials=none)`.
impl FromStr for Fp8 {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim();
        let named = Self::NAMED.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        if let Some((_, format)) = named {
            return Ok(*format);
        }
        let error = |why: Option<String>| {
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            let known = Self::NAMED.map(|(name, _)| name).join(", ");
            let message = format!(
                "not a format; known are {known}, or a custom one such as `E4M3(bias=5, specials=none)` with specials \
                 none, nan_only, ieee or fnuz{why}"
            );
            ParseError::new(text, message)
        };
        let (exponent_bits, mantissa_bits, bias, specials) = parse_custom(name).ok_or_else(|| error(None))?;
        Self::new(exponent_bits, mantissa_bits, bias, specials).map_err(|why| error(Some(why.to_string())))
    }
}

fn parse_custom(text: &str) -> Option<(u8, u8, i16, Specials)> {
    let text = text.to_ascii_lowercase().replace(' ', "");
    let (widths, rest) = text.strip_prefix('e')?.split_once('(')?;
    let (exponent_bits, mantissa_bits) = widths.split_once('m')?;
    let (bias, specials) = rest.strip_suffix(')')?.split_once(',')?;
    let specials = specials.strip_prefix("specials=")?;
    Some((
        exponent_bits.parse().ok()?,
        mantissa_bits.parse().ok()?,
        bias.strip_prefix("bias=")?.parse().ok()?,
        Specials::NAMED.iter().find(|(name, _)| *name == specials)?.1,
    ))
}

impl Serialize for Fp8 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fp8 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl de::Visitor<'_> for NameVisitor {
    type Value = Fp8;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a format such as \"E4M3\"")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Fp8, E> {
        name.parse().map_err(E::custom)
    }
}
