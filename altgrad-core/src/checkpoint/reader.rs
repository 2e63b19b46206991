//! Opens checkpoints and reads their tensors.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;

use super::config::Configs;
use super::dialect::Dialect;
use super::shards::Shards;
use super::stored::{Fault, Stored, format_of};
use crate::model::nearest;
use crate::quantizer::{Fp8Tensor, Granularity, Quantizer};
use crate::{Error, Fp8, Result};

/// A safetensors checkpoint with tensors in FP8, in any [`Dialect`].
///
/// Tensors have the names that a model asks for: `model.layers.0.mlp.up_proj.weight` is one tensor, regardless of how
/// its codes and scales are called in the files. Opening reads only headers and configuration; asking for a tensor
/// reads only that tensor.
///
/// A checkpoint without FP8 tensors can be opened, too; all of its tensors are then in full precision.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    content: Arc<Content>,
    with_activations: bool,
}

#[derive(Debug)]
struct Content {
    shards: Shards,
    dialect: Dialect,
    /// The quantized tensors, including those that cannot be read.
    quantized: BTreeMap<String, Result<Stored, Fault>>,
    /// The names of the tensors that are not part of a quantized one.
    plain: Vec<String>,
}

/// A quantized tensor of a checkpoint, as its header and its configuration describe it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StoredWeight {
    /// The name that a model asks for.
    pub name: String,
    /// Its dimensions; `[outputs, inputs]` for the weight of a linear layer.
    pub shape: Vec<usize>,
    /// The format of its codes.
    pub format: Fp8,
    /// Which codes share a scale.
    pub granularity: Granularity,
    /// How the input of its layer is quantized, if the checkpoint says that it is.
    pub activations: Option<Quantizer>,
}

impl Checkpoint {
    /// Opens a checkpoint; its dialect is detected from its configuration or, without one, from its tensors.
    ///
    /// `paths` is a folder, an index (`model.safetensors.index.json`), or all files of the checkpoint. The
    /// configuration is read from `config.json` and `hf_quant_config.json` in the folder of the first path. In a
    /// folder, the index is read if there is one, else `model.safetensors`, else every file that ends with
    /// `.safetensors`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unreadable`](crate::CheckpointError::Unreadable) and
    /// [`CheckpointError::Invalid`](crate::CheckpointError::Invalid), which name the file: a file that is missing,
    /// incomplete or damaged; a dialect that is unknown or ambiguous; a configuration that cannot be read. A fault of
    /// one tensor, such as a scale that is missing or has a wrong shape, is an error only when that tensor is asked
    /// for; [`inspect`](Self::inspect) lists all such tensors.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        Self::open_with(paths, Dialect::detect)
    }

    /// Opens a checkpoint in this dialect, without detecting it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_as<P: AsRef<Path>>(paths: &[P], dialect: Dialect) -> Result<Self> {
        Self::open_with(paths, |_, _| Ok(dialect))
    }

    fn open_with<P: AsRef<Path>>(
        paths: &[P],
        dialect: impl FnOnce(&Shards, &Configs) -> Result<Dialect>,
    ) -> Result<Self> {
        let shards = Shards::open(paths)?;
        let configs = Configs::read(shards.folder())?;
        let dialect = dialect(&shards, &configs)?;
        let mut found = dialect.read(&shards, &configs)?;
        let mut plain = Vec::new();
        for (name, info) in shards.tensors() {
            if found.parts.contains(name) || found.tensors.contains_key(name) {
                continue;
            }
            if format_of(info.dtype).is_some() {
                let why = format!("is of dtype {}, but the dialect {dialect} says nothing of it", info.dtype);
                found.add(name, Err(shards.invalid(name, why)))?;
            } else {
                plain.push(name.to_owned());
            }
        }
        let content = Content { shards, dialect, quantized: found.tensors, plain };
        Ok(Self { content: Arc::new(content), with_activations: true })
    }

    /// The same checkpoint, but its layers do not quantize their inputs.
    #[must_use]
    pub fn without_activations(self) -> Self {
        Self { with_activations: false, ..self }
    }

    /// The dialect that the checkpoint is written in.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.content.dialect
    }

    /// The names of all tensors, quantized ones first, each in alphabetical order. Scales and other parts of quantized
    /// tensors are left out; [scales of keys and values](Self::kv_scales) are included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.content.quantized.keys().chain(&self.content.plain).map(String::as_str)
    }

    /// The quantized tensors in the order of their names.
    ///
    /// # Errors
    ///
    /// The error of the first tensor that cannot be read.
    pub fn quantized(&self) -> Result<Vec<StoredWeight>> {
        let describe = |(name, stored): (&String, &Result<Stored, Fault>)| {
            let stored = stored.as_ref().map_err(|fault| fault.error(name))?;
            Ok(StoredWeight {
                name: name.clone(),
                shape: stored.shape.clone(),
                format: stored.format,
                granularity: stored.granularity,
                activations: self.activations_of(stored)?,
            })
        };
        self.content.quantized.iter().map(describe).collect()
    }

    /// A tensor in `dtype`, dequantized if it is quantized: the product of code and scale in `f32`, rounded to `dtype`.
    ///
    /// # Errors
    ///
    /// A tensor that is not there, cannot be read, or has a scale that is not a positive finite number.
    pub fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.stored(name)? {
            Some(stored) => stored.load(&self.content.shards, dtype, device)?.dequantize(),
            None if self.dims(name)?.is_none() => Err(self.not_there(name)),
            None => Ok(self.content.shards.tensor(name, device)?.to_dtype(dtype)?),
        }
    }

    /// The codes and scales of a quantized tensor, to be dequantized to `dtype`.
    ///
    /// # Errors
    ///
    /// As [`tensor`](Self::tensor), and a tensor that is not quantized.
    pub fn fp8_tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Fp8Tensor> {
        if let Some(stored) = self.stored(name)? {
            return stored.load(self.shards(), dtype, device);
        }
        if self.shards().contains(name) {
            Err(self.shards().invalid(name, "is not quantized"))
        } else {
            Err(self.not_there(name))
        }
    }

    /// The error for a tensor that does not exist.
    pub(super) fn not_there(&self, name: &str) -> Error {
        let near: Vec<String> = nearest(name, self.names()).into_iter().map(|name| format!("`{name}`")).collect();
        let near = if near.is_empty() { String::new() } else { format!("; the nearest are {}", near.join(", ")) };
        self.shards().invalid(name, format!("is not there{near}"))
    }

    /// Sets the variables of a model to the dequantized tensors of the checkpoint, so that it can be trained from
    /// there.
    ///
    /// ```no_run
    /// # use altgrad::{Fp8, Quantizable, checkpoint::Checkpoint, linear};
    /// # use candle_core::{DType, Device};
    /// use candle_nn::{VarBuilder, VarMap};
    ///
    /// let variables = VarMap::new();
    /// let mut model = linear(64, 64, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    /// Checkpoint::open(&["checkpoint"])?.load_variables(&variables)?;
    /// model.quantize(Fp8::E4M3)?;
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A variable that the checkpoint does not have, or has in another shape. In case of an error, no variable has
    /// changed.
    pub fn load_variables(&self, variables: &VarMap) -> Result<()> {
        // Copied, since nothing may be computed while the map is locked.
        let variables: Vec<(String, Var)> = {
            let variables = variables.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            variables.iter().map(|(name, variable)| (name.clone(), variable.clone())).collect()
        };
        let mut values = Vec::with_capacity(variables.len());
        for (name, variable) in variables {
            let value = self.tensor(&name, variable.dtype(), variable.device())?;
            if value.shape() != variable.shape() {
                let why = format!("has shape {:?}, but the variable {:?}", value.dims(), variable.dims());
                return Err(self.content.shards.invalid(&name, why));
            }
            values.push((variable, value));
        }
        values.into_iter().try_for_each(|(variable, value)| Ok::<_, Error>(variable.set(&value)?))
    }

    /// The dimensions of a tensor, if there is one of this name.
    pub(super) fn dims(&self, name: &str) -> Result<Option<&[usize]>> {
        let Content { shards, plain, .. } = &*self.content;
        Ok(match self.stored(name)? {
            Some(stored) => Some(&stored.shape),
            None if plain.binary_search_by(|plain| plain.as_str().cmp(name)).is_ok() => {
                shards.info(name).map(|info| &info.shape[..])
            }
            None => None,
        })
    }

    /// The quantized tensor of this name.
    pub(super) fn stored(&self, name: &str) -> Result<Option<&Stored>> {
        let stored = self.content.quantized.get(name).map(|stored| stored.as_ref().map_err(|fault| fault.error(name)));
        stored.transpose()
    }

    /// Why the tensor of this name cannot be read, judging by header and configuration alone.
    pub(super) fn fault(&self, name: &str) -> Option<&Fault> {
        self.content.quantized.get(name)?.as_ref().err()
    }

    pub(super) fn shards(&self) -> &Shards {
        &self.content.shards
    }

    /// The quantizer of the input of a tensor's layer.
    pub(super) fn activations_of(&self, stored: &Stored) -> Result<Option<Quantizer>> {
        if self.with_activations { stored.activations(&self.content.shards) } else { Ok(None) }
    }
}
