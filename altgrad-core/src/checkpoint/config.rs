//! Reads what the configuration beside a checkpoint says about quantization.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::file::invalid;
use super::json;
use crate::{CheckpointError, Error, Result};

/// The configuration file of a model, as on Hugging Face.
pub(super) const CONFIG: &str = "config.json";
/// The field of it that says how the model is quantized.
pub(super) const QUANTIZATION: &str = "quantization_config";
/// Where ModelOpt describes it, too.
pub(super) const HF_QUANT_CONFIG: &str = "hf_quant_config.json";

/// One part of a configuration file.
#[derive(Clone, Debug)]
pub(super) struct Section {
    file: PathBuf,
    /// The path of fields that leads to it.
    field: String,
    value: Value,
}

/// What a folder says about the quantization of the checkpoint in it.
#[derive(Debug, Default)]
pub(super) struct Configs {
    /// `quantization_config` of `config.json`.
    pub(super) quantization: Option<Section>,
    /// `hf_quant_config.json`.
    pub(super) hf_quant: Option<Section>,
}

impl Configs {
    /// Reads the sections that exist.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let quantization = match read(&folder.join(CONFIG))? {
            Some((file, config)) => find_quantization(&config).map(|(path, value)| {
                let field = path.join(".");
                Section { file, field, value: value.clone() }
            }),
            None => None,
        };
        let hf_quant = read(&folder.join(HF_QUANT_CONFIG))?.map(|(file, config)| Section {
            file,
            field: String::new(),
            value: Value::Object(config),
        });
        Ok(Self { quantization, hf_quant })
    }
}

impl Section {
    /// A text field.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.value.get(field)?.as_str()
    }

    /// Whether there is such a field.
    pub(super) fn has(&self, field: &str) -> bool {
        self.value.get(field).is_some()
    }

    /// The section as a type of a dialect.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        self.parse_part("", &self.value)
    }

    /// A value that is, or stands for, a field of the section, as a type of a dialect.
    pub(super) fn parse_part<T: DeserializeOwned>(&self, field: &str, value: &Value) -> Result<T> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            let (path, inner) = (error.path().to_string(), error.inner());
            let fields = [&self.field, field, &path].into_iter().filter(|field| !field.is_empty() && *field != ".");
            let field = fields.collect::<Vec<_>>().join(".");
            invalid(&self.file, None, format!("`{field}`: {inner}"))
        })
    }

    /// An error about the section.
    pub(super) fn invalid(&self, why: impl Into<String>) -> Error {
        let why = why.into();
        let why = if self.field.is_empty() { why } else { format!("`{}`: {why}", self.field) };
        invalid(&self.file, None, why)
    }
}

/// A JSON object, if there is such a file.
pub(super) fn read(file: &Path) -> Result<Option<(PathBuf, Map<String, Value>)>> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Checkpoint(CheckpointError::Unreadable { file: file.to_owned(), source })),
    };
    match json::parse(&text) {
        Ok(Value::Object(config)) => Ok(Some((file.to_owned(), config))),
        Ok(_) => Err(invalid(file, None, "it is not a JSON object".to_owned())),
        Err(error) => Err(invalid(file, None, format!("it is not valid JSON: {error}"))),
    }
}

/// The section about quantization of the model or of a part of it, with the path of fields that leads there.
///
/// The section nearest to the top counts; among several on one level, the one of the text or language model.
fn find_quantization(config: &Map<String, Value>) -> Option<(Vec<String>, &Value)> {
    const NAMES: [&str; 2] = [QUANTIZATION, "compression_config"];
    const DEPTH: usize = 4;
    let mut level = vec![(Vec::new(), config)];
    for _ in 0..DEPTH {
        for (path, within) in &level {
            let named = NAMES.iter().filter_map(|name| Some((name, within.get(*name)?)));
            if let Some((name, value)) = named.into_iter().find(|(_, value)| !value.is_null()) {
                return Some((below(path, name), value));
            }
        }
        let parts = level.into_iter().flat_map(|(path, within)| {
            let parts = within.iter().filter_map(|(name, value)| Some((name, value.as_object()?)));
            let parts = parts.filter(|(name, _)| name.contains("config"));
            parts.map(move |(name, part)| (below(&path, name), part)).collect::<Vec<_>>()
        });
        let mut parts: Vec<_> = parts.collect();
        let is_of_text = |path: &[String]| {
            let words = ["text", "language", "llm", "thinker"];
            path.iter().any(|name| words.iter().any(|word| name.contains(word)))
        };
        parts.sort_by_key(|(path, _)| !is_of_text(path));
        level = parts;
    }
    None
}

/// A configuration without its sections about quantization, at whichever level they are.
pub(super) fn without_quantization(mut config: Map<String, Value>) -> Map<String, Value> {
    while let Some((path, _)) = find_quantization(&config) {
        let Some((last, above)) = path.split_last() else { return config };
        let part = above.iter().try_fold(&mut config, |part, name| part.get_mut(name)?.as_object_mut());
        if part.and_then(|part| part.remove(last)).is_none() {
            return config;
        }
    }
    config
}

fn below(path: &[String], name: &str) -> Vec<String> {
    [path, &[name.to_owned()]].concat()
}

/// Whether a list of modules that are not quantized contains a layer or a module around it. As in other libraries, an
/// entry is a path, the end of a path, a pattern in which `*` stands for anything, or `re:` and a regular expression.
pub(super) fn is_listed(list: Option<&[String]>, layer: &str) -> bool {
    let is_meant = |entry: &String| {
        if let Some(pattern) = entry.strip_prefix("re:") {
            return fancy_regex::Regex::new(&format!("^(?:{pattern})"))
                .is_ok_and(|pattern| pattern.is_match(layer).unwrap_or(false));
        }
        if entry.contains('*') {
            return glob_matches(entry, layer);
        }
        let ends = layer.strip_suffix(entry.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'));
        let begins = layer.strip_prefix(entry.as_str()).is_some_and(|after| after.is_empty() || after.starts_with('.'));
        ends || begins || layer.contains(&format!(".{entry}."))
    };
    list.is_some_and(|list| list.iter().any(is_meant))
}

/// Whether a pattern, in which `*` stands for any text, matches the whole of `text`.
pub(super) fn glob_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{find_quantization, glob_matches, is_listed, without_quantization};

    #[test]
    fn quantization_is_found_where_language_models_nest_it() {
        let own = json!({ "quant_method": "fp8" });
        for path in [
            "quantization_config",
            "compression_config",
            "text_config.quantization_config",
            "thinker_config.text_config.quantization_config",
            "llm_config.compression_config",
            "language_config.quantization_config",
        ] {
            let nested = path.rsplit('.').fold(own.clone(), |inner, name| json!({ name: inner }));
            let Value::Object(mut config) = nested else { unreachable!() };
            assert_eq!(
                find_quantization(&config).map(|(path, value)| (path.join("."), value)),
                Some((path.to_owned(), &own))
            );
            // The section of another part does not take precedence.
            config.insert("audio_config".to_owned(), json!({ "inner_config": { "quantization_config": {} } }));
            assert_eq!(
                find_quantization(&config).map(|(path, value)| (path.join("."), value)),
                Some((path.to_owned(), &own))
            );
        }
        let Value::Object(none) = json!({ "quantization_config": null, "a": [1], "b_config": {} }) else {
            unreachable!()
        };
        assert_eq!(find_quantization(&none), None);
    }

    #[test]
    fn what_is_left_says_nothing_of_quantization() {
        for config in [
            json!({ "quantization_config": null, "compression_config": { "a": 1 }, "b": 2 }),
            json!({ "text_config": { "quantization_config": {} }, "quantization_config": {}, "b": 2 }),
            // Names with dots are not paths.
            json!({ "a.config": { "quantization_config": {} }, "a": { "config": {} } }),
            json!({ "a_config": { "b.config": { "compression_config": {} } } }),
        ] {
            let Value::Object(config) = config else { unreachable!() };
            assert!(find_quantization(&config).is_some());
            assert_eq!(find_quantization(&without_quantization(config)), None);
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("*", "a.b", true),
            ("a*c", "a.b.c", true),
            ("a*c", "a.b.cd", false),
            ("*.gate", "mlp.gate", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(glob_matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn modules_are_listed_by_path_part_and_pattern() {
        let list = ["lm_head", "model.layers.0", "gate", "*.norm", "re:.*embed.*"].map(str::to_owned);
        for (layer, expected) in [
            ("lm_head", true),
            ("model.lm_head", true),
            ("model.layers.0.mlp.up_proj", true),
            ("model.layers.01.mlp.up_proj", false),
            ("model.layers.1.mlp.gate", true),
            ("model.layers.1.mlp.gate_proj", false),
            ("model.norm", true),
            ("model.embed_tokens", true),
            ("model.layers.1.mlp.up_proj", false),
        ] {
            assert_eq!(is_listed(Some(&list), layer), expected, "{layer}");
        }
        assert!(!is_listed(None, "lm_head"));
    }
}
