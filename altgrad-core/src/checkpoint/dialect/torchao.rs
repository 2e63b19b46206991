//! The dialect of torchao: tensors that are taken apart, and metadata in each file that says how to put them together.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use crate::Result;
use crate::checkpoint::file::{SafetensorsFile, invalid};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Activations, Stored};
use crate::format::Fp8;
use crate::quantizer::{E8M0Rule, Granularity, Quantizer, ScaleEncoding, Scaling};

/// The key of the metadata that lists the names of whole tensors.
const NAMES: &str = "tensor_names";

/// What the metadata says of a tensor.
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
    /// Of a `Float8Tensor` a list, of an `MXTensor` the length of a block.
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
    granularity: Option<Named>,
    block_size: Option<usize>,
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

/// The tensors that the metadata describes as FP8.
pub(super) fn read(shards: &Shards) -> Result<BTreeMap<String, Stored>> {
    let mut found = BTreeMap::new();
    for file in shards.files() {
        for (name, described) in described(file)? {
            if described.kind == "Tensor" {
                continue;
            }
            let stored = stored(shards, &name, &described)?;
            found.insert(name, stored);
        }
    }
    let used: HashSet<&str> = found.values().map(|stored: &Stored| stored.codes.as_str()).collect();
    match shards.tensors().find(|(name, _)| name.ends_with("_weight_qdata") && !used.contains(name)) {
        Some((name, _)) => Err(shards.invalid(name, "is part of a tensor of torchao that no metadata describes")),
        None => Ok(found),
    }
}

/// The names and descriptions in the metadata of a file.
fn described(file: &SafetensorsFile) -> Result<Vec<(String, Described)>> {
    let invalid = |name: &str, error: serde_json::Error| {
        invalid(file.path(), Some(name), format!("is described wrongly in the metadata: {error}"))
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
    let part = |part: &str| match name.rsplit_once('.') {
        Some((layer, name)) => format!("{layer}._{name}_{part}"),
        None => format!("_{name}_{part}"),
    };
    let (codes, scales) = (part("qdata"), part("scale"));
    let data = &described.data;
    let shape = shards.info(&codes).map_or(&[][..], |info| &info.shape);
    let is_mx = match described.kind.as_str() {
        "Float8Tensor" => false,
        "MXTensor" if !data.is_swizzled_scales => true,
        "MXTensor" => return Err(shards.invalid(&scales, "is swizzled for a GPU, which altgrad does not undo")),
        other => {
            let why = format!("is a part of a `{other}`; altgrad reads `Float8Tensor` and `MXTensor`");
            return Err(shards.invalid(&codes, why));
        }
    };
    let block = match &data.block_size {
        Some(BlockSize::Length(length)) => Some([1, *length]),
        // Blocks as wide as the tensor are its rows, or all of it.
        Some(BlockSize::Dims(dims)) => dims.last_chunk().copied().filter(|[_, cols]| shape.last() != Some(cols)),
        None => None,
    };
    let mut stored = Stored::new(shards, &codes, Some(&scales), block)?;
    if let Some(Kwargs { data }) = &data.act_quant_kwargs {
        let granularity = match (data.granularity.as_ref().map(|named| named.kind.as_str()), data.block_size) {
            (Some("PerTensor"), _) => Granularity::PerTensor,
            (Some("PerRow") | None, None) => Granularity::PerRow,
            (None, Some(cols)) => Granularity::PerBlock { rows: 1, cols },
            (Some(other), _) => {
                let why = format!("has inputs quantized with `{other}`, which altgrad does not read");
                return Err(shards.invalid(&codes, why));
            }
        };
        let encoding = if is_mx { ScaleEncoding::E8M0(E8M0Rule::Floor) } else { ScaleEncoding::F32Reciprocal };
        let quantizer = Quantizer::new(Fp8::E4M3).granularity(granularity).scaling(Scaling::Current);
        stored.activations = Some(Activations::Dynamic(quantizer.scale_encoding(encoding)));
    }
    Ok(stored)
}
