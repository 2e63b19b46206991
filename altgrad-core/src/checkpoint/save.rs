//! Writing a model as an FP8 checkpoint.

use std::collections::HashSet;
use std::path::Path as FilePath;

use candle_core::{Tensor, TensorId};
use safetensors::{Dtype, View};
use serde_json::{Map, Value};

use super::config::{CONFIG, HF_QUANT_CONFIG, QUANTIZATION, read, without_quantization};
use super::dialect::{Description, Dialect};
use super::layer_spec::{Kind, LayerSpec, TensorLayout};
use super::writer::{CheckpointWriter, Entry};
use crate::model::{Path, Visit, Visitor};
use crate::quantizer::is_power_of_two;
use crate::slot::{AnySlot, FrozenCodes};
use crate::{CheckpointError, Error, Result};

/// The size above which a checkpoint is split into several files, as transformers does.
const SHARD_BYTES: usize = 5_000_000_000;

/// Writes a model as an FP8 checkpoint into a new folder.
///
/// Short for a [`Writer`] with its defaults.
///
/// ```
/// use altgrad::checkpoint::{self, Dialect};
/// # use altgrad::{Fp8, Linear, Quantizable, linear};
/// # use candle_core::{DType, Device};
/// # use candle_nn::{VarBuilder, VarMap};
/// # let variables = VarMap::new();
/// # let mut model = linear(64, 32, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
/// # let folder = tempfile::tempdir().map_err(candle_core::Error::wrap)?;
/// # let folder = folder.path().join("out");
/// model.quantize(Fp8::E4M3)?;
/// model.freeze()?;
/// checkpoint::save(&model, &folder, Dialect::CompressedTensors)?;
///
/// let vb = checkpoint::var_builder(&[&folder], DType::F32, &Device::Cpu)?;
/// assert!(matches!(linear(64, 32, vb)?, Linear::Frozen(_)));
/// # Ok::<(), altgrad::Error>(())
/// ```
///
/// # Errors
///
/// As [`Writer::save`].
pub fn save<M: Visit + ?Sized>(model: &M, folder: impl AsRef<FilePath>, dialect: Dialect) -> Result<()> {
    Writer::new(dialect).save(model, folder)
}

/// Writes models, or quantizes checkpoints, as FP8 checkpoints.
///
/// ```no_run
/// use altgrad::checkpoint::{Dialect, Writer};
/// # use altgrad::{Linear, Result};
///
/// # fn save(model: &Linear) -> Result<()> {
/// // With the architecture and all else that the original `config.json` says:
/// Writer::new(Dialect::CompressedTensors).config_from("llama/config.json")?.save(model, "llama-fp8")
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Writer {
    dialect: Dialect,
    config: Map<String, Value>,
    shard_bytes: usize,
    requantizes: bool,
}

impl Writer {
    /// A writer for this dialect. It writes a `config.json` with nothing but a `quantization_config`, and files of up
    /// to 5 GB; for ComfyUI, one file and nothing else.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        let shard_bytes = if dialect.is_one_file() { usize::MAX } else { SHARD_BYTES };
        Self { dialect, config: Map::new(), shard_bytes, requantizes: false }
    }

    /// The same with the fields of another `config.json`, from which other libraries learn what the model is. Its
    /// fields about quantization are left out.
    ///
    /// # Errors
    ///
    /// A file that is missing or is not a JSON object.
    pub fn config_from(self, file: impl AsRef<FilePath>) -> Result<Self> {
        let file = file.as_ref();
        match read(file)? {
            Some((_, config)) => Ok(Self { config: without_quantization(config), ..self }),
            None => Err(Error::Checkpoint(CheckpointError::Unreadable {
                file: file.to_owned(),
                source: std::io::ErrorKind::NotFound.into(),
            })),
        }
    }

    /// The same with another size above which the checkpoint is split into several files. A tensor is never split.
    #[must_use]
    pub fn shard_bytes(self, shard_bytes: usize) -> Self {
        Self { shard_bytes, ..self }
    }

    /// The same, but [`quantize`](Self::quantize) also accepts a checkpoint that is quantized already, and starts from
    /// the values of its codes. The precision lost by their rounding does not come back, so start from the original if
    /// you have it.
    #[must_use]
    pub fn requantize(self) -> Self {
        Self { requantizes: true, ..self }
    }

    pub(super) fn requantizes(&self) -> bool {
        self.requantizes
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The fields of `config.json` that were given.
    pub(super) fn fields(&self) -> &Map<String, Value> {
        &self.config
    }

    /// The size above which the checkpoint is split.
    pub(super) fn largest_shard(&self) -> usize {
        self.shard_bytes
    }

    /// Writes a model: the codes of its frozen layers, the codes that its quantized layers would compute with next, and
    /// all other tensors as they are.
    ///
    /// Everything is written into a temporary folder first, which is renamed at the end. A tensor that the model uses
    /// in several places is written once, under its first path. Fields marked `#[quant(ignore)]` are not visited and
    /// not written. An input with delayed scaling is written with the scale that follows from its history.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NotExpressible`](crate::CheckpointError::NotExpressible), which names the layer and the
    /// dialects that can; [`CheckpointError::TargetExists`](crate::CheckpointError::TargetExists) if the folder is not
    /// empty; [`CheckpointError::Unwritable`](crate::CheckpointError::Unwritable);
    /// [`CheckpointError::NothingToWrite`](crate::CheckpointError::NothingToWrite);
    /// [`ModelError::NoHistory`](crate::ModelError::NoHistory) for delayed scaling before the first step of training; a
    /// weight that is not finite. In case of an error, nothing is left in the folder.
    pub fn save<M: Visit + ?Sized>(&self, model: &M, folder: impl AsRef<FilePath>) -> Result<()> {
        let parts = Parts::of(model)?;
        let mut specs = Vec::new();
        let mut entries = Vec::new();
        let mut layouts = Vec::new();
        for (name, tensor) in &parts.tensors {
            entries.push(Entry::new(name, View::dtype(tensor), tensor.dims()));
        }
        for (path, layer) in &parts.quantized {
            let spec = layer_spec(path, layer.kind, layer.codes())?;
            let layout = self.dialect.layout(&spec)?;
            entries.extend(layout.entries(&spec));
            specs.push(spec);
            layouts.push(layout);
        }
        let description = self.dialect.describe(&specs, &parts.full_precision)?;
        let mut writer = CheckpointWriter::create(folder.as_ref(), &entries, self.shard_bytes)?;
        for (name, tensor) in &parts.tensors {
            writer.append(name, &View::data(tensor))?;
        }
        for ((path, layer), layout) in parts.quantized.iter().zip(&layouts) {
            let weight = layer.codes().weight.to_tensor()?;
            let codes = weight.codes().flatten_all()?.to_vec1::<u8>()?;
            writer.append(&layout.codes, &codes)?;
            let scales = weight.scales().flatten_all()?.to_vec1::<f32>()?;
            layout.write_scales(&mut writer, &scales).map_err(|error| error.at(path))?;
        }
        description.add_to(&mut writer, self.config.clone())?;
        writer.finish()
    }
}

/// The parts of a model that are written.
#[derive(Default)]
struct Parts<'m> {
    /// The layers that become codes, with their paths; only the first of those that share codes.
    quantized: Vec<(String, QuantizedLayer<'m>)>,
    /// The paths of layers that stay as they are.
    full_precision: Vec<String>,
    /// All other tensors, once each.
    tensors: Vec<(String, Tensor)>,
    seen: HashSet<TensorId>,
    /// The slots of the layers in `quantized`, to recognize later ones that share their codes.
    first: Vec<(String, &'m dyn AnySlot)>,
}

/// A layer that becomes codes.
struct QuantizedLayer<'m> {
    kind: &'static str,
    codes: CodesSource<'m>,
}

enum CodesSource<'m> {
    /// Of a frozen layer.
    Frozen(&'m FrozenCodes),
    /// Of a quantized layer, a frozen copy of which was made for writing.
    Quantized(Box<FrozenCodes>),
}

impl QuantizedLayer<'_> {
    fn codes(&self) -> &FrozenCodes {
        match &self.codes {
            CodesSource::Frozen(codes) => codes,
            CodesSource::Quantized(codes) => codes,
        }
    }
}

impl<'m> Parts<'m> {
    fn of<M: Visit + ?Sized>(model: &'m M) -> Result<Self> {
        let mut parts = Self::default();
        model.visit(&Path::root(), &mut parts)?;
        Ok(parts)
    }

    fn add(&mut self, name: String, tensor: &Tensor) {
        if self.seen.insert(tensor.id()) {
            self.tensors.push((name, tensor.detach()));
        }
    }
}

impl<'m> Visitor<'m> for Parts<'m> {
    fn slot(&mut self, path: &Path<'_>, slot: &'m dyn AnySlot) -> Result<()> {
        let name = path.to_string();
        if let Some(bias) = slot.bias() {
            self.add(path.field("bias").to_string(), bias);
        }
        if let Some((path, first)) = self.first.iter().find(|(_, first)| has_codes_of(slot, *first)) {
            return check_tied(&name, slot, path, *first);
        }
        let codes = if let Some(codes) = slot.frozen() {
            CodesSource::Frozen(codes)
        } else if let Some(quantization) = slot.quantization() {
            quantization.check_measured().map_err(|error| error.at(&name))?;
            let frozen = slot.to_frozen(&name, None).map_err(|error| error.at(&name))?;
            match frozen.as_ref().and_then(|slot| slot.frozen()) {
                Some(codes) => CodesSource::Quantized(Box::new(codes.clone())),
                None => return Ok(()),
            }
        } else {
            if let Some(weight) = slot.master_weight() {
                self.add(path.field("weight").to_string(), weight);
            }
            self.full_precision.push(name);
            return Ok(());
        };
        self.first.push((name.clone(), slot));
        self.quantized.push((name, QuantizedLayer { kind: slot.kind(), codes }));
        Ok(())
    }

    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()> {
        self.add(path.to_string(), tensor);
        Ok(())
    }
}

/// Whether two layers share their codes.
fn has_codes_of(slot: &dyn AnySlot, other: &dyn AnySlot) -> bool {
    slot.weight_id() == other.weight_id()
        && match (slot.quantization(), other.quantization()) {
            (Some(own), Some(others)) => own.has_codes_of(others),
            _ => slot.frozen().is_some(),
        }
}

/// Checks that nothing is lost of a layer that is not written because it shares its codes with another one: a file
/// cannot say that two layers with the same tensor quantize their inputs differently.
fn check_tied(path: &str, slot: &dyn AnySlot, first_path: &str, first: &dyn AnySlot) -> Result<()> {
    let Some(activations) = slot.activations() else { return Ok(()) };
    if first.activations() == Some(activations) && !activations.scaling.needs_measurement() {
        return Ok(());
    }
    let first = first_path.to_owned();
    Err(Error::Checkpoint(CheckpointError::TiedInputsDiffer { first }).at(path))
}

fn layer_spec(path: &str, kind: &'static str, layer: &FrozenCodes) -> Result<LayerSpec> {
    let weight = &layer.weight;
    let scales = weight.to_tensor()?.scale_values()?;
    Ok(LayerSpec {
        path: path.to_owned(),
        dims: layer.dims().to_vec(),
        format: weight.format(),
        granularity: weight.granularity().of_tensor(layer.dims()).ok_or_else(|| not_of_tensor(path, layer))?,
        exponents: scales.iter().all(|scale| is_power_of_two(*scale)),
        activations: layer.standing_activations().map_err(|error| error.at(path))?,
        kind: Kind::of(kind),
    })
}

/// The error for blocks that reach from one kernel of a convolution into the next, which no dialect can express.
fn not_of_tensor(path: &str, layer: &FrozenCodes) -> Error {
    let (granularity, shape) = (layer.weight.granularity().to_string(), layer.dims().to_vec());
    Error::Checkpoint(CheckpointError::BlocksAcrossKernels { granularity, shape }).at(path)
}

impl Description {
    /// Adds the description to a checkpoint, together with the other fields of its configuration.
    pub(super) fn add_to(self, writer: &mut CheckpointWriter, mut config: Map<String, Value>) -> Result<()> {
        config.extend(self.quantization.map(|quantization| (QUANTIZATION.to_owned(), quantization)));
        if !config.is_empty() {
            writer.add_json(CONFIG, &Value::Object(config))?;
        }
        match self.hf_quant {
            Some(config) => writer.add_json(HF_QUANT_CONFIG, &config),
            None => Ok(()),
        }
    }
}

impl TensorLayout {
    /// The tensors of a layer.
    pub(super) fn entries(&self, layer: &LayerSpec) -> Vec<Entry> {
        let mut entries = vec![
            Entry::new(&self.codes, self.codes_dtype, layer.dims.clone()),
            Entry::new(&self.scales, self.scales_dtype, self.scales_shape.clone()),
        ];
        entries.extend(self.input_scale.iter().map(|input| Entry::new(&input.name, Dtype::F32, input.shape.clone())));
        entries.extend(self.mark.iter().map(|(name, bytes)| Entry::new(name, Dtype::U8, [bytes.len()])));
        entries
    }

    /// Writes the scales of a layer.
    pub(super) fn write_scales(&self, writer: &mut CheckpointWriter, scales: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = match self.scales_dtype {
            Dtype::F32 => scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(),
            // The biased exponent of a power of two. It is 0 for 2⁻¹²⁷, which is subnormal in f32.
            _ => scales.iter().map(|scale| (scale.to_bits() >> 23) as u8).collect(),
        };
        writer.append(&self.scales, &bytes)?;
        if let Some(input) = &self.input_scale {
            writer.append(&input.name, &input.value.to_le_bytes())?;
        }
        match &self.mark {
            Some((name, bytes)) => writer.append(name, bytes),
            None => Ok(()),
        }
    }
}
