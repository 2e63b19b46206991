//! What the configuration beside a checkpoint says of its quantization.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::file::invalid;
use crate::{Error, Result};

/// The configuration of a model as Hugging Face keeps it.
pub(super) const CONFIG: &str = "config.json";
/// Where ModelOpt says it, too.
pub(super) const HF_QUANT_CONFIG: &str = "hf_quant_config.json";

/// One part of a configuration file.
#[derive(Clone, Debug)]
pub(super) struct Section {
    file: PathBuf,
    /// The fields that lead to it.
    field: String,
    value: Value,
}

/// What a folder says of the quantization of the checkpoint in it.
#[derive(Debug, Default)]
pub(super) struct Configs {
    /// `quantization_config` of `config.json`.
    pub(super) quantization: Option<Section>,
    /// `hf_quant_config.json`.
    pub(super) hf_quant: Option<Section>,
}

impl Configs {
    /// Reads what there is.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let quantization = match read(&folder.join(CONFIG))? {
            Some((file, config)) => find_quantization(&config).map(|(field, value)| Section { file, field, value }),
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

    /// The section as a value of a dialect.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        self.parse_part("", &self.value)
    }

    /// What is, or stands for, a field of the section, as a value of a dialect.
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
        Err(source) => return Err(Error::UnreadableFile { file: file.to_owned(), source }),
    };
    match serde_json::from_slice(&text) {
        Ok(Value::Object(config)) => Ok(Some((file.to_owned(), config))),
        Ok(_) => Err(invalid(file, None, "it is no JSON object".to_owned())),
        Err(error) => Err(invalid(file, None, format!("it is no JSON: {error}"))),
    }
}

/// The section about quantization, of the model itself or of the language model in it, with the fields that lead there.
fn find_quantization(config: &Map<String, Value>) -> Option<(String, Value)> {
    const NAMES: [&str; 2] = ["quantization_config", "compression_config"];
    for outer in ["", "text_config"] {
        let within = if outer.is_empty() { Some(config) } else { config.get(outer).and_then(Value::as_object) };
        for name in NAMES {
            if let Some(value) = within.and_then(|within| within.get(name)).filter(|value| !value.is_null()) {
                let field = if outer.is_empty() { name.to_owned() } else { format!("{outer}.{name}") };
                return Some((field, value.clone()));
            }
        }
    }
    None
}
