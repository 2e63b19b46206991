//! Tensors of FP8 dtypes that are the values themselves, with no scale.

use std::collections::BTreeMap;

use crate::Result;
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, format_of};

/// Every tensor of an FP8 dtype.
pub(super) fn read(shards: &Shards) -> Result<BTreeMap<String, Stored>> {
    let codes = shards.tensors().filter(|(_, info)| format_of(info.dtype).is_some());
    codes.map(|(name, _)| Ok((name.to_owned(), Stored::new(shards, name, None, None)?))).collect()
}

/// A tensor that by its name is a scale of codes beside it, and those codes.
pub(super) fn unknown_scale(shards: &Shards) -> Option<(&str, &str)> {
    let layer_of = |name: &str| name.rsplit_once('.').map(|(layer, _)| layer.to_owned());
    let is_scale = |name: &str| name.rsplit('.').next().is_some_and(|name| name.contains("scale"));
    let codes = shards.tensors().filter(|(_, info)| format_of(info.dtype).is_some()).map(|(name, _)| name);
    let codes: BTreeMap<String, &str> = codes.filter_map(|name| Some((layer_of(name)?, name))).collect();
    let mut scales = shards.tensors().map(|(name, _)| name).filter(|name| is_scale(name));
    scales.find_map(|scale| Some((scale, *codes.get(&layer_of(scale)?)?)))
}
