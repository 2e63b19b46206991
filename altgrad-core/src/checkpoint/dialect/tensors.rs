//! The tensors that a dialect finds in a checkpoint, and checks of names that all dialects share.

use std::collections::{BTreeMap, HashSet};

use safetensors::Dtype;

use crate::Result;
use crate::checkpoint::kv_names;
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Fault, Stored, may_be_scale};

/// The quantized tensors of a checkpoint, and what belongs to them.
#[derive(Debug, Default)]
pub(in crate::checkpoint) struct DialectTensors {
    /// By the name that a model asks for; for a tensor that cannot be read, the reason.
    pub(in crate::checkpoint) tensors: BTreeMap<String, Result<Stored, Fault>>,
    /// Tensors that models do not ask for: parts of quantized tensors, and others that lie beside codes.
    pub(in crate::checkpoint) parts: HashSet<String>,
}

impl DialectTensors {
    /// Adds a tensor, or what is wrong with it.
    pub(in crate::checkpoint) fn add(&mut self, name: &str, stored: Result<Stored>) -> Result<()> {
        let stored = match stored {
            Ok(stored) => {
                self.parts.extend(stored.parts().map(str::to_owned));
                Ok(stored)
            }
            Err(error) => Err(Fault::of(error)?),
        };
        self.tensors.insert(name.to_owned(), stored);
        Ok(())
    }
}

/// The layer of the weight with this name.
pub(super) fn layer_of(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// The tensors beside codes that could be their scales, judging by their names and shapes.
pub(super) fn like_scales(shards: &Shards, codes: &str) -> Vec<String> {
    let Some(shape) = shards.info(codes).map(|info| &info.shape[..]) else { return Vec::new() };
    let module = |name: &str| name.rsplit_once('.').map(|(module, _)| module.to_owned());
    let like = shards.tensors().filter(|(name, info)| {
        let own = name.rsplit('.').next().unwrap_or(name);
        let is_float = matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F8_E8M0);
        let is_named_so = own.contains("scale") || own.contains("scaling");
        let is_of_weight = is_named_so && !kv_names::is_scale(name) && !own.contains("input");
        is_float && is_of_weight && module(name) == module(codes) && may_be_scale(shape, &info.shape)
    });
    like.map(|(name, _)| name.to_owned()).collect()
}
