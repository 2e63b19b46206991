//! The dialect of torchao: tensors that are split into parts, and metadata in each file that says how to reassemble
//! them.

use std::collections::HashSet;

use serde::Deserialize;

use super::facts::{Facts, Holds, Names};
use super::tensors::DialectTensors;

use crate::checkpoint::config::Configs;
use crate::checkpoint::file::{SafetensorsFile, invalid};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, StoredActivations};
use crate::quantizer::{E8M0Rule, Granularity, Quantizer, ScaleEncoding, Scaling};
use crate::{Fp8, Result};

/// The key of the metadata that lists the names of whole tensors.
const NAMES: &str = "tensor_names";

/// What the metadata says about a tensor.
#[derive(Debug, Deserialize)]
struct Described {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "_data", default)]
    data: Data,
}

/// The attributes of a `Float8Tensor` or an `MXTensor`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    /// A list for a `Float8Tensor`, the length of a block for an `MXTensor`.
    block_size: Option<BlockSize>,
    act_quant_kwargs: Option<Kwargs>,
    is_swizzled_scales: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BlockSize {
    Dims(Vec<usize>),
    Length(usize),
}

/// How inputs are quantized.
#[derive(Debug, Deserialize)]
struct Kwargs {
    #[serde(rename = "_data")]
    data: KwargsData,
}

#[derive(Debug, Deserialize)]
struct KwargsData {
    /// Of `QuantizeTensorToFloat8Kwargs`, as are the bounds on amax.
    float8_dtype: Option<Word>,
    granularity: Option<Named>,
    hp_value_lb: Option<f64>,
    hp_value_ub: Option<f64>,
    /// Of `QuantizeTensorToMXKwargs`, as are the next two.
    elem_dtype: Option<Word>,
    block_size: Option<usize>,
    scaling_mode: Option<Word>,
}

/// A value that is a word, such as a dtype.
#[derive(Debug, Deserialize)]
struct Word {
    #[serde(rename = "_data")]
    word: String,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[serde(rename = "_type")]
    kind: String,
}

/// Whether the metadata of a file is that of torchao.
pub(super) fn is_described(shards: &Shards) -> bool {
    shards.files().iter().any(|file| file.metadata().contains_key(NAMES))
}

pub(super) const FACTS: Facts = Facts {
    name: "torchao",
    methods: &["torchao"],
    names: Names::NONE,
    read,
    write: None,
    holds: Holds::LanguageModels,
};

/// The tensors that the metadata describes as FP8.
fn read(shards: &Shards, _: &Configs) -> Result<DialectTensors> {
    let mut found = DialectTensors::default();
    for file in shards.files() {
        for (name, described) in described(file)? {
            if described.kind != "Tensor" {
                found.add(&name, stored(shards, &name, &described))?;
            }
        }
    }
    let parts: HashSet<String> =
        found.tensors.values().filter_map(|stored| Some(stored.as_ref().ok()?.codes.clone())).collect();
    let faults: Vec<String> =
        found.tensors.keys().flat_map(|name| [part(name, "qdata"), part(name, "scale")]).collect();
    for (name, _) in shards.tensors().filter(|(name, _)| name.ends_with("_weight_qdata")) {
        if !parts.contains(name) && !faults.iter().any(|part| part == name) {
            let why = "is part of a torchao tensor that the metadata does not describe";
            found.add(name, Err(shards.invalid(name, why)))?;
        }
    }
    // The parts of a tensor that cannot be read do not count as tensors.
    found.parts.extend(faults);
    Ok(found)
}

/// The name of a part of a tensor.
fn part(name: &str, part: &str) -> String {
    match name.rsplit_once('.') {
        Some((layer, name)) => format!("{layer}._{name}_{part}"),
        None => format!("_{name}_{part}"),
    }
}

/// The names and descriptions in the metadata of a file.
fn described(file: &SafetensorsFile) -> Result<Vec<(String, Described)>> {
    let invalid = |name: &str, error: serde_json::Error| {
        invalid(file.path(), Some(name), format!("has an invalid description in the metadata: {error}"))
    };
    let Some(names) = file.metadata().get(NAMES) else { return Ok(Vec::new()) };
    let names: Vec<String> = serde_json::from_str(names).map_err(|error| invalid(NAMES, error))?;
    let describe = |name: String| {
        let text = file.metadata().get(&name).map_or("null", String::as_str);
        let described = serde_json::from_str(text).map_err(|error| invalid(&name, error))?;
        Ok((name, described))
    };
    names.into_iter().map(describe).collect()
}

fn stored(shards: &Shards, name: &str, described: &Described) -> Result<Stored> {
    let (codes, scales) = (part(name, "qdata"), part(name, "scale"));
    let data = &described.data;
    let shape = shards.info(&codes).map_or(&[][..], |info| &info.shape);
    match described.kind.as_str() {
        "Float8Tensor" | "MXTensor" => {}
        other => {
            let why = format!("is a part of a `{other}`; altgrad reads `Float8Tensor` and `MXTensor`");
            return Err(shards.invalid(&codes, why));
        }
    }
    let block = match &data.block_size {
        Some(BlockSize::Length(length)) => Some([1, *length]),
        // Blocks as wide as the tensor are its rows or the whole tensor.
        Some(BlockSize::Dims(dims)) => dims.last_chunk().copied().filter(|[_, cols]| shape.last() != Some(cols)),
        None => None,
    };
    let mut stored = match block {
        None if data.is_swizzled_scales => {
            return Err(shards.invalid(&codes, "has swizzled scales, but the size of their blocks is missing"));
        }
        Some(block) if data.is_swizzled_scales => Stored::swizzled(shards, &codes, &scales, block)?,
        _ => Stored::new(shards, &codes, Some(&scales), block)?,
    };
    if let Some(Kwargs { data }) = &data.act_quant_kwargs {
        let quantizer = data.quantizer().map_err(|what| {
            shards.invalid(&codes, format!("has inputs quantized with `{what}`, which altgrad does not read"))
        })?;
        stored.activations = Some(StoredActivations::Dynamic(quantizer));
    }
    Ok(stored)
}

impl KwargsData {
    /// The quantizer of inputs, or the value that altgrad does not know.
    fn quantizer(&self) -> Result<Quantizer, String> {
        let format = match self.float8_dtype.as_ref().or(self.elem_dtype.as_ref()).map(|dtype| dtype.word.as_str()) {
            Some("float8_e4m3fn") | None => Fp8::E4M3,
            Some("float8_e5m2") => Fp8::E5M2,
            Some(other) => return Err(other.to_owned()),
        };
        let quantizer = Quantizer::new(format).scaling(Scaling::Current);
        if let Some(cols) = self.block_size {
            let rule = match self.scaling_mode.as_ref().map(|mode| mode.word.to_ascii_uppercase()).as_deref() {
                Some("FLOOR") | None => E8M0Rule::Floor,
                Some("RCEIL") => E8M0Rule::RoundUp,
                Some(other) => return Err(format!("scaling_mode {other}")),
            };
            let block = Granularity::PerBlock { rows: 1, cols };
            return Ok(quantizer.granularity(block).scale_encoding(ScaleEncoding::E8M0(rule)));
        }
        let granularity = match self.granularity.as_ref().map(|named| named.kind.as_str()) {
            Some("PerTensor") => Granularity::PerTensor,
            Some("PerRow") | None => Granularity::PerRow,
            Some(other) => return Err(other.to_owned()),
        };
        let quantizer = quantizer.granularity(granularity).scale_encoding(ScaleEncoding::F32Reciprocal);
        let quantizer = match self.hp_value_lb {
            Some(bound) => quantizer.amax_epsilon(bound),
            None => quantizer,
        };
        Ok(match self.hp_value_ub {
            Some(bound) => quantizer.amax_bound(bound),
            None => quantizer,
        })
    }
}
