//! Quantizing a checkpoint into another one, a piece of a tensor at a time.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{TensorInfo, TensorView};
use serde_json::Value;

use super::config::{CONFIG, HF_QUANT_CONFIG, read};
use super::outline::{Outline, Spelling};
use super::reader::Checkpoint;
use super::save::Writer;
use super::shards::Shards;
use super::writer::{CheckpointWriter, Entry};
use crate::layer::Recipe;
use crate::model::names::{layer_of_weight, looks_like_embedding};
use crate::model::{Action, LayerReport, QuantConfig, QuantReport, Rulebook, SkipReason, Undecided};
use crate::quantizer::{
    DistortionSums, Fp8Tensor, Granularity, Quantizer, Rounding, ScaleEncoding, Scaling, check_finite, stream,
};
use crate::{Error, Result};

/// About as many bytes are read at once.
const PIECE: usize = 4 << 20;
/// The files beside a checkpoint that belong to the model.
const COMPANIONS: [&str; 6] = ["json", "txt", "model", "jinja", "tiktoken", "py"];

/// How far [`Writer::quantize`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The tensor at hand.
    pub tensor: &'a str,
    /// Bytes of the original checkpoint that were read so far.
    pub done: usize,
    /// All of its bytes.
    pub total: usize,
}

/// A tensor of the original checkpoint, and what becomes of it.
struct Plan<'c> {
    name: &'c str,
    info: &'c TensorInfo,
    bytes: usize,
    layer: Option<Layer>,
}

/// A linear layer of the original checkpoint.
struct Layer {
    path: String,
    /// What it becomes, or why it stays as it is.
    becomes: Result<Quantized, SkipReason>,
}

struct Quantized {
    recipe: Recipe,
    outline: Outline,
    spelling: Spelling,
}

impl Writer {
    /// Quantizes a checkpoint in full precision into a new folder, as [`Quantizable::quantize`](crate::Quantizable::quantize) and
    /// [`save`](Self::save) would do with its model, and copies its configuration and, of a folder or an index, its tokenizer and
    /// its own code.
    ///
    /// A linear weight is a matrix whose name ends with `weight`; tensors of three dimensions, such as those of fused experts, are
    /// reported and left as they are. Files do not tell embeddings from linear layers, so a path
    /// that looks like that of an embedding stays in full precision unless a rule names it. Gradients of recipes are of no
    /// use here, and passed over. No more than a piece of a tensor and the codes of a row of blocks are in memory at a time,
    /// but a tensor that is rounded stochastically is, as a whole.
    ///
    /// `progress` is called before each piece.
    ///
    /// ```no_run
    /// use altgrad::checkpoint::{Checkpoint, Dialect, Writer};
    /// use altgrad::{Fp8, Granularity, QuantConfig, Quantizer};
    ///
    /// let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    /// let config = QuantConfig::new(rows).skip("lm_head");
    /// let original = Checkpoint::open(&["Qwen3-8B"])?;
    /// let report = Writer::new(Dialect::CompressedTensors).quantize(&original, config, "Qwen3-8B-FP8", |_| ())?;
    /// println!("{report}");
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save) and [`Quantizable::quantize`](crate::Quantizable::quantize), and a tensor that is quantized
    /// already. Then nothing is left.
    pub fn quantize(
        &self,
        original: &Checkpoint,
        config: impl Into<QuantConfig>,
        folder: impl AsRef<Path>,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<QuantReport> {
        let shards = original.shards();
        if let Some(stored) = original.quantized()?.first() {
            return Err(shards.invalid(&stored.name, "is quantized already; start from a checkpoint in full precision"));
        }
        let plans = self.plan(shards, config.into())?;
        let layers = || plans.iter().filter_map(|plan| plan.layer.as_ref());
        let outlines: Vec<Outline> =
            layers().filter_map(|layer| Some(layer.becomes.as_ref().ok()?.outline.clone())).collect();
        // What looks like an embedding may be a linear layer, which other libraries have to be told to leave alone; to be told
        // so of an embedding does them no harm.
        let full_precision: Vec<String> =
            layers().filter(|layer| layer.becomes.is_err()).map(|layer| layer.path.clone()).collect();
        let description = self.dialect().describe(&outlines, &full_precision)?;

        let entries: Vec<Entry> = plans.iter().flat_map(Plan::entries).collect();
        let mut writer = CheckpointWriter::create(folder.as_ref(), &entries, self.largest_shard())?;
        let total = plans.iter().map(|plan| plan.bytes).sum();
        let mut done = 0;
        let mut reports = Vec::new();
        for plan in &plans {
            let mut tick = |read: usize| {
                progress(Progress { tensor: plan.name, done, total });
                done += read;
            };
            reports.extend(plan.write(shards, &mut writer, &mut tick)?);
        }
        let mut config = self.config(shards.folder())?;
        config.insert("quantization_config".to_owned(), description.quantization);
        writer.add_json(CONFIG, &Value::Object(config))?;
        if let Some(config) = description.hf_quant {
            writer.add_json(HF_QUANT_CONFIG, &config)?;
        }
        // Among files that were given one by one there may be any others.
        if shards.is_whole_folder() {
            for file in companions(shards.folder())? {
                writer.add_copy(&file)?;
            }
        }
        writer.finish()?;
        Ok(QuantReport { layers: reports })
    }

    /// The fields of the original `config.json`, under those that the writer was given.
    fn config(&self, folder: &Path) -> Result<serde_json::Map<String, Value>> {
        let mut config = read(&folder.join(CONFIG))?.map(|(_, config)| config).unwrap_or_default();
        config.extend(self.fields().clone());
        Ok(config)
    }

    fn plan<'c>(&self, shards: &'c Shards, config: QuantConfig) -> Result<Vec<Plan<'c>>> {
        let rulebook = Rulebook::new(config)?;
        rulebook.config().check()?;
        let paths: Vec<&str> = shards.tensors().filter_map(|(name, info)| path_of_weight(name, info)).collect();
        if paths.is_empty() {
            let why = "it has no linear weight: a matrix whose name ends with `weight`".to_owned();
            return Err(super::file::invalid(shards.folder(), None, why));
        }
        rulebook.check_rules(paths.iter().copied())?;
        let plan = |(name, info): (&'c str, &'c TensorInfo)| {
            let layer = match path_of_weight(name, info) {
                Some(path) => Some(Layer { path: path.to_owned(), becomes: self.decide(&rulebook, path, info)? }),
                None => None,
            };
            let (begin, end) = info.data_offsets;
            Ok(Plan { name, info, bytes: end - begin, layer })
        };
        shards.tensors().map(plan).collect()
    }

    fn decide(&self, rulebook: &Rulebook, path: &str, info: &TensorInfo) -> Result<Result<Quantized, SkipReason>> {
        let [outputs, inputs] = info.shape[..] else {
            return Ok(Err(SkipReason::Unsupported(format!("weight of {} dimensions", info.shape.len()))));
        };
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) {
            return Ok(Err(SkipReason::Unsupported(format!("weight of dtype {}", info.dtype))));
        }
        let undecided = Undecided { path, skipped: false, recipe: None, tied_to: None, dtype: None };
        let recipe = match rulebook.decide(&undecided) {
            Ok(_) if looks_like_embedding(path) && !rulebook.names(path) => return Ok(Err(SkipReason::Embedding)),
            Ok(recipe) => recipe.clone(),
            Err(reason) => return Ok(Err(reason)),
        };
        // Nothing is measured before the first step.
        for (role, quantizer) in [("weights", Some(&recipe.weights)), ("activations", recipe.activations.as_ref())] {
            if quantizer.is_some_and(|quantizer| matches!(quantizer.scaling, Scaling::Delayed { .. })) {
                return Err(Error::NoHistory { role }.at(path));
            }
        }
        let may_be_embedding = looks_like_embedding(path);
        let outline = Outline {
            may_be_embedding,
            path: path.to_owned(),
            shape: [outputs, inputs],
            format: recipe.weights.format,
            granularity: recipe.weights.granularity,
            exponents: matches!(recipe.weights.scale_encoding, ScaleEncoding::PowerOfTwo | ScaleEncoding::E8M0(_)),
            // The input of an embedding is no tensor to quantize.
            activations: recipe.activations.clone().filter(|_| !may_be_embedding),
        };
        let spelling = self.dialect().spell(&outline)?;
        Ok(Ok(Quantized { recipe, outline, spelling }))
    }
}

impl Plan<'_> {
    fn entries(&self) -> Vec<Entry> {
        match self.layer.as_ref().map(|layer| &layer.becomes) {
            Some(Ok(quantized)) => quantized.spelling.entries(&quantized.outline),
            _ => vec![Entry::new(self.name, self.info.dtype, self.info.shape.clone())],
        }
    }

    /// Writes the tensor, and says of a layer what became of it.
    fn write(
        &self,
        shards: &Shards,
        writer: &mut CheckpointWriter,
        tick: &mut dyn FnMut(usize),
    ) -> Result<Option<LayerReport>> {
        if let Some(Layer { path, becomes: Ok(quantized) }) = &self.layer {
            return self.quantize(shards, path, quantized, writer, tick).map(Some);
        }
        for offset in (0..self.bytes).step_by(PIECE) {
            let length = PIECE.min(self.bytes - offset);
            tick(length);
            writer.append(self.name, &shards.read_part(self.name, offset, length)?)?;
        }
        Ok(self.layer.as_ref().map(|layer| {
            let reason = layer.becomes.as_ref().err().cloned().unwrap_or(SkipReason::NotQuantized);
            LayerReport {
                path: layer.path.clone(),
                shape: self.info.shape.clone(),
                action: Action::Skipped(reason),
                format: None,
                recipe: None,
                activations: None,
                gradients: None,
                distortion: None,
                bytes_frozen: None,
                bytes_before: self.bytes,
                bytes_after: self.bytes,
            }
        }))
    }

    fn quantize(
        &self,
        shards: &Shards,
        path: &str,
        quantized: &Quantized,
        writer: &mut CheckpointWriter,
        tick: &mut dyn FnMut(usize),
    ) -> Result<LayerReport> {
        let Quantized { recipe, outline, spelling } = quantized;
        let weights = &recipe.weights;
        let pieces = self.pieces(weights);
        // One scale for all needs all of the tensor first; others follow from the piece at hand.
        let amax = if pieces.len() > 1 && weights.granularity == Granularity::PerTensor {
            let mut largest = 0f32;
            for piece in &pieces {
                tick(0);
                largest = largest.max(self.load(shards, path, piece)?.1);
            }
            Some(largest)
        } else {
            None
        };
        let (mut scales, mut sums) = (Vec::new(), DistortionSums::default());
        for piece in &pieces {
            tick(piece.bytes);
            let (values, _) = self.load(shards, path, piece)?;
            let conversion = match amax {
                Some(amax) => weights.conversion_under(&values, amax),
                None => weights.first_step(&values, stream(&format!("{path}.weights")))?,
            };
            let codes = Fp8Tensor::convert(&values, &conversion, weights.granularity)?;
            writer.append(&spelling.codes, &codes.codes().flatten_all()?.to_vec1::<u8>()?)?;
            sums.add(&values, &codes)?;
            match amax {
                Some(_) => scales = codes.scale_values()?,
                None => scales.extend(codes.scale_values()?),
            }
        }
        spelling.write_scales(writer, &scales)?;
        let bytes = quantized.spelling.entries(outline).iter().map(Entry::bytes).sum();
        Ok(LayerReport {
            path: path.to_owned(),
            shape: self.info.shape.clone(),
            action: Action::Quantized,
            format: Some(outline.format),
            recipe: Some(recipe.clone()),
            activations: outline.activations.as_ref().map(|quantizer| quantizer.format),
            gradients: None,
            distortion: Some(sums.distortion()),
            bytes_frozen: Some(bytes),
            bytes_before: self.bytes,
            bytes_after: bytes,
        })
    }
}

/// Some rows of a tensor.
struct Piece {
    first_row: usize,
    rows: usize,
    /// In bytes from the beginning of the tensor.
    offset: usize,
    bytes: usize,
}

impl Plan<'_> {
    /// The tensor cut between blocks, into pieces that are no longer than need be.
    fn pieces(&self, weights: &Quantizer) -> Vec<Piece> {
        let rows = self.info.shape.first().copied().unwrap_or(0);
        let row_bytes = self.bytes.checked_div(rows).unwrap_or(0);
        let block_rows = match weights.granularity {
            Granularity::PerBlock { rows, .. } => rows,
            _ => 1,
        };
        let step = match weights.rounding {
            // Random draws are numbered through the tensor.
            Rounding::Stochastic { .. } => rows,
            Rounding::NearestEven => (PIECE / row_bytes.max(1)).max(1).next_multiple_of(block_rows),
        };
        let piece = |first_row: usize| {
            let rows = step.min(rows - first_row);
            Piece { first_row, rows, offset: first_row * row_bytes, bytes: rows * row_bytes }
        };
        (0..rows).step_by(step.max(1)).map(piece).collect()
    }

    /// The values of a piece, which must be finite, and their largest magnitude.
    fn load(&self, shards: &Shards, path: &str, piece: &Piece) -> Result<(Tensor, f32)> {
        let bytes = shards.read_part(self.name, piece.offset, piece.bytes)?;
        let dims = vec![piece.rows, self.info.shape[1]];
        let view = TensorView::new(self.info.dtype, dims, &bytes)
            .map_err(|error| shards.invalid(self.name, error.to_string()))?;
        let values = view.load(&Device::Cpu)?;
        let amax = check_finite(&values, "the weight").map_err(|error| match error {
            Error::NotFinite { what, value, mut index } => {
                index[0] += piece.first_row;
                Error::NotFinite { what, value, index }.at(path)
            }
            error => error.at(path),
        })?;
        Ok((values, amax))
    }
}

/// The layer whose weight a tensor may be: a matrix that is called so, or one of several, such as those of fused experts, which
/// are not quantized, but must not be passed over in silence.
fn path_of_weight<'n>(name: &'n str, info: &TensorInfo) -> Option<&'n str> {
    match info.shape[..] {
        [_, _] => layer_of_weight(name),
        [_, _, _] if !info.shape.contains(&1) => layer_of_weight(name).or(Some(name)),
        _ => None,
    }
}

/// The files of a folder that belong to its model and are not written anew.
fn companions(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |source| Error::UnreadableFile { file: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let has_name = |names: &[&str]| path.file_name().is_some_and(|name| names.iter().any(|known| name == *known));
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_index = path.to_str().is_some_and(|path| path.ends_with(".index.json"));
        if path.is_file() && COMPANIONS.contains(&extension) && !is_index && !has_name(&[CONFIG, HF_QUANT_CONFIG]) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
