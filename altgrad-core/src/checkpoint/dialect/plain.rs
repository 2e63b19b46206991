//! Tensors of FP8 dtypes that are the values themselves, with no scale.

use super::facts::{Facts, Holds, Names};
use super::tensors::DialectTensors;
use crate::Result;
use crate::checkpoint::config::Configs;
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, format_of};

pub(super) const FACTS: Facts =
    Facts { name: "plain", methods: &[], names: Names::NONE, read, write: None, holds: Holds::LanguageModels };

/// Every tensor of an FP8 dtype.
pub(super) fn read(shards: &Shards, _: &Configs) -> Result<DialectTensors> {
    let mut found = DialectTensors::default();
    for (name, _) in shards.tensors().filter(|(_, info)| format_of(info.dtype).is_some()) {
        found.add(name, Stored::new(shards, name, None, None))?;
    }
    Ok(found)
}
