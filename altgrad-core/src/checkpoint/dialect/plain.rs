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
