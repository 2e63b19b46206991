//! Quantizes a checkpoint into another one, a piece of a tensor at a time.

use std::path::Path;

use candle_core::DType;

use super::companions::add_companions;
use super::config::{CONFIG, read, without_quantization};
use super::layer_spec::{Kind, LayerSpec, TensorLayout};
use super::reader::Checkpoint;
use super::save::Writer;
use super::source::{Piece, Reading, Source};
use super::writer::{CheckpointWriter, Entry};
use crate::model::names::{layer_of_weight, looks_like_embedding, looks_like_router};
use crate::model::{Action, LayerFacts, LayerReport, QuantConfig, QuantReport, Rulebook, SkipReason, natural_order};
use crate::quantizer::{DistortionSums, Fp8Tensor, Granularity, Rounding, ScaleEncoding, check_finite, stream};
use crate::slot::{Operation, Recipe};
use crate::{Error, ModelError, Result, TensorError};

/// The progress of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The tensor that is being converted.
    pub tensor: &'a str,
    /// Number of bytes of the original checkpoint that were read so far.
    pub done: usize,
    /// Number of bytes of the whole original checkpoint.
    pub total: usize,
}

/// A tensor of the original checkpoint, and what becomes of it.
struct Plan<'c> {
    source: Source<'c>,
    layer: Option<Layer>,
}

/// A matrix, or a stack of them, of the original checkpoint.
struct Layer {
    path: String,
    /// What it becomes, or why it stays as it is.
    becomes: Result<LayerConversion, SkipReason>,
}

struct LayerConversion {
    recipe: Recipe,
    spec: LayerSpec,
    layout: TensorLayout,
}

/// A head that is tied to an embedding and therefore has no tensor of its own.
struct TiedHead {
    path: &'static str,
    /// The tensor that it is tied to.
    to: String,
}

impl Writer {
    /// Quantizes a checkpoint in full precision into a new folder, as
    /// [`Quantizable::quantize`](crate::Quantizable::quantize) and [`save`](Self::save) would do with its model, and
    /// copies its configuration. If the original was opened as a folder or an index, its tokenizer and its own code are
    /// copied too.
    ///
    /// A linear weight is a matrix whose name ends with `weight`. Every other matrix or stack of matrices, such as
    /// those of fused experts, is left as it is and reported with the reason. Files do not distinguish embeddings and
    /// the routers of experts from other linear layers, so layers whose paths look like theirs (`embed_tokens`,
    /// `mlp.gate`, `router`) stay in full precision unless a rule names them. The dialect of ComfyUI is an exception,
    /// since diffusion models have no conventions for such names. A head that is tied to the embedding
    /// (`tie_word_embeddings`) has no tensor of its own; it is reported as `lm_head`, and rules may name it. The
    /// quantizers that recipes have for gradients are ignored. Only a piece of a tensor and the codes of a row of
    /// blocks are in memory at a time; however, a tensor that is rounded stochastically is in memory as a whole, and so
    /// are the scales of a tensor that is quantized already.
    ///
    /// A checkpoint that is quantized already is an error, unless the writer is told to
    /// [`requantize`](Self::requantize).
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
    /// As [`save`](Self::save) and [`Quantizable::quantize`](crate::Quantizable::quantize), and a tensor that is
    /// quantized already or cannot be read. In case of an error, nothing is left in the folder.
    pub fn quantize(
        &self,
        original: &Checkpoint,
        config: impl Into<QuantConfig>,
        folder: impl AsRef<Path>,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<QuantReport> {
        let shards = original.shards();
        if let (Some(stored), false) = (original.quantized()?.first(), self.requantizes()) {
            return Err(shards.invalid(
                &stored.name,
                "is quantized already; start from a checkpoint in full precision, or allow it with \
                 `Writer::requantize` (on the command line with `--requantize`), which quantizes the rounded values \
                 once more",
            ));
        }
        let fields = read(&shards.folder().join(CONFIG))?.map(|(_, config)| config).unwrap_or_default();
        let head = tied_head(original, &fields);
        let (plans, rulebook) = self.plan(original, config.into(), head.as_ref())?;
        let layers = || plans.iter().filter_map(|plan| plan.layer.as_ref());
        let specs: Vec<LayerSpec> =
            layers().filter_map(|layer| Some(layer.becomes.as_ref().ok()?.spec.clone())).collect();
        // A layer that looks like an embedding may be a linear layer, and then other libraries must be told that it is
        // in full precision. Telling them so about an embedding does no harm.
        let left = layers().filter(|layer| layer.becomes.is_err()).map(|layer| layer.path.clone());
        let full_precision: Vec<String> = left.chain(head.iter().map(|head| head.path.to_owned())).collect();
        let description = self.dialect().describe(&specs, &full_precision)?;

        let entries: Vec<Entry> = plans.iter().flat_map(Plan::entries).collect();
        let mut writer = CheckpointWriter::create(folder.as_ref(), &entries, self.largest_shard())?;
        let total = plans.iter().map(|plan| plan.source.bytes).sum();
        let mut done = 0;
        let mut reports = Vec::new();
        for plan in &plans {
            let mut tick = |read: usize| {
                progress(Progress { tensor: plan.source.name, done, total });
                done += read;
            };
            reports.extend(plan.write(&mut writer, &mut tick)?);
        }
        let mut config = without_quantization(fields);
        config.extend(self.fields().clone());
        description.add_to(&mut writer, config)?;
        add_companions(shards, &mut writer)?;
        writer.finish()?;
        reports.extend(head.map(|head| head.report(&rulebook)));
        reports.sort_by(|a, b| natural_order(&a.path, &b.path));
        let paths: Vec<&str> = specs.iter().map(|spec| spec.path.as_str()).collect();
        Ok(QuantReport { warnings: warnings(&full_precision, &paths), layers: reports })
    }

    fn plan<'c>(
        &self,
        original: &'c Checkpoint,
        config: QuantConfig,
        head: Option<&TiedHead>,
    ) -> Result<(Vec<Plan<'c>>, Rulebook)> {
        let rulebook = Rulebook::new(config)?;
        rulebook.config().check()?;
        let sources = original.names().map(|name| Source::new(original, name)).collect::<Result<Vec<_>>>()?;
        let is_linear = |source: &&Source<'_>| source.shape.len() == 2 && layer_of_weight(source.name).is_some();
        if !sources.iter().any(|source| is_linear(&source)) {
            let why = "it has no linear weight: a matrix whose name ends with `weight`".to_owned();
            return Err(super::file::invalid(original.shards().folder(), None, why));
        }
        let paths = sources.iter().filter_map(path_of).chain(head.map(|head| head.path));
        rulebook.check_rules(paths.collect::<Vec<_>>().into_iter())?;
        let plan = |source: Source<'c>| {
            let path = path_of(&source).map(str::to_owned);
            let layer =
                path.map(|path| Ok::<_, Error>(Layer { becomes: self.decide(&rulebook, &path, &source)?, path }));
            Ok(Plan { layer: layer.transpose()?, source })
        };
        let plans = sources.into_iter().map(plan).collect::<Result<_>>()?;
        Ok((plans, rulebook))
    }

    fn decide(
        &self,
        rulebook: &Rulebook,
        path: &str,
        source: &Source<'_>,
    ) -> Result<Result<LayerConversion, SkipReason>> {
        let unsupported = |why: String| Ok(Err(SkipReason::Unsupported(why)));
        let facts = LayerFacts { path, skipped: false, recipe: None, tied_to: None, dtype: None };
        let decision = rulebook.decide(&facts);
        if let Err(reason @ SkipReason::Rule(_)) = decision {
            return Ok(Err(reason));
        }
        let [outputs, inputs] = source.shape[..] else {
            return unsupported(format!("tensor of {} dimensions", source.shape.len()));
        };
        if layer_of_weight(source.name).is_none() {
            return unsupported("matrix that is not called `weight`".to_owned());
        }
        if !source.is_float() {
            return unsupported(format!("weight of dtype {}", source.dtype));
        }
        if outputs == 0 || inputs == 0 {
            return unsupported("weight without elements".to_owned());
        }
        let is_told_by_name = self.dialect().has_language_models() && !rulebook.names(path);
        let may_be_embedding = self.dialect().has_language_models() && looks_like_embedding(path);
        let recipe = match decision {
            Ok(_) if is_told_by_name && may_be_embedding => return Ok(Err(SkipReason::Embedding)),
            Ok(_) if is_told_by_name && looks_like_router(path) => return Ok(Err(SkipReason::Router)),
            Ok(recipe) => recipe.clone(),
            Err(reason) => return Ok(Err(reason)),
        };
        // Nothing has been measured before the first step.
        for (role, quantizer) in [("weights", Some(&recipe.weights)), ("activations", recipe.activations.as_ref())] {
            if quantizer.is_some_and(|quantizer| quantizer.scaling.needs_measurement()) {
                return Err(Error::Model(ModelError::NoHistory { role }).at(path));
            }
        }
        let spec = LayerSpec {
            kind: if may_be_embedding { Kind::MaybeEmbedding } else { Kind::Linear },
            path: path.to_owned(),
            dims: vec![outputs, inputs],
            format: recipe.weights.format,
            granularity: recipe.weights.granularity,
            exponents: matches!(recipe.weights.scale_encoding, ScaleEncoding::PowerOfTwo | ScaleEncoding::E8M0(_)),
            // The input of an embedding is indices, which cannot be quantized.
            activations: recipe.activations.clone().filter(|_| !may_be_embedding),
        };
        let layout = self.dialect().layout(&spec)?;
        Ok(Ok(LayerConversion { recipe, spec, layout }))
    }
}

impl Plan<'_> {
    fn entries(&self) -> Vec<Entry> {
        match self.layer.as_ref().map(|layer| &layer.becomes) {
            Some(Ok(quantized)) => quantized.layout.entries(&quantized.spec),
            _ if self.source.is_quantized() => {
                vec![Entry::new(self.source.name, safetensors::Dtype::BF16, self.source.shape)]
            }
            _ => vec![Entry::new(self.source.name, self.source.dtype, self.source.shape)],
        }
    }

    /// Writes the tensor, and says of a layer what became of it.
    fn write(&self, writer: &mut CheckpointWriter, tick: &mut dyn FnMut(usize)) -> Result<Option<LayerReport>> {
        if let Some(Layer { path, becomes: Ok(quantized) }) = &self.layer {
            return self.quantize(path, quantized, writer, tick).map(Some);
        }
        if self.source.is_quantized() {
            let reading = self.source.read()?;
            for piece in reading.pieces(1) {
                tick(piece.bytes);
                // BF16 is the precision of most models.
                writer.append(self.source.name, &safetensors::View::data(&reading.load(&piece, DType::BF16)?))?;
            }
        } else {
            self.source.copy(|bytes| {
                tick(bytes.len());
                writer.append(self.source.name, bytes)
            })?;
        }
        let bytes_after = self.entries().iter().map(Entry::bytes).sum();
        Ok(self.layer.as_ref().map(|layer| {
            let reason = layer.becomes.as_ref().err().cloned().unwrap_or(SkipReason::NotQuantized);
            let shape = self.source.shape.to_vec();
            LayerReport { shape, bytes_before: self.source.bytes, bytes_after, ..left_alone(&layer.path, reason) }
        }))
    }

    fn quantize(
        &self,
        path: &str,
        quantized: &LayerConversion,
        writer: &mut CheckpointWriter,
        tick: &mut dyn FnMut(usize),
    ) -> Result<LayerReport> {
        let LayerConversion { recipe, spec, layout } = quantized;
        let weights = &recipe.weights;
        let block_rows = match (weights.rounding, weights.granularity) {
            // Random draws are numbered across the whole tensor.
            (Rounding::Stochastic { .. }, _) => spec.dims[0],
            (_, Granularity::PerBlock { rows, .. }) => rows,
            _ => 1,
        };
        let reading = self.source.read()?;
        let pieces = reading.pieces(block_rows);
        // One scale per tensor needs the amax of the whole tensor first; finer scales follow from each piece.
        let amax = if pieces.len() > 1 && weights.granularity == Granularity::PerTensor {
            let mut largest = 0f32;
            for piece in &pieces {
                tick(0);
                largest = largest.max(load(&reading, path, piece)?.1);
            }
            Some(largest)
        } else {
            None
        };
        let (mut scales, mut sums) = (Vec::new(), DistortionSums::default());
        for piece in &pieces {
            tick(piece.bytes);
            let (values, _) = load(&reading, path, piece)?;
            let conversion = match amax {
                Some(amax) => weights.conversion_under(&values, amax),
                None => weights.first_step(&values, stream(&format!("{path}.weights")))?,
            };
            let codes = Fp8Tensor::convert(&values, &conversion, weights.granularity)?;
            writer.append(&layout.codes, &codes.codes().flatten_all()?.to_vec1::<u8>()?)?;
            sums.add(&values, &codes)?;
            match amax {
                Some(_) => scales = codes.scale_values()?,
                None => scales.extend(codes.scale_values()?),
            }
        }
        layout.write_scales(writer, &scales)?;
        let bytes = quantized.layout.entries(spec).iter().map(Entry::bytes).sum();
        Ok(LayerReport {
            path: path.to_owned(),
            kind: KIND,
            shape: self.source.shape.to_vec(),
            action: Action::Quantized,
            format: Some(spec.format),
            recipe: Some(recipe.clone()),
            activations: spec.activations.as_ref().map(|quantizer| quantizer.format),
            gradients: None,
            distortion: Some(sums.distortion()),
            bytes_frozen: Some(bytes),
            bytes_before: self.source.bytes,
            bytes_after: bytes,
        })
    }
}

/// The values of a piece, which must be finite, and their largest magnitude.
fn load(reading: &Reading<'_>, path: &str, piece: &Piece) -> Result<(candle_core::Tensor, f32)> {
    let values = reading.load(piece, DType::F32)?;
    let amax = check_finite(&values, "the weight").map_err(|error| match error {
        Error::Tensor(TensorError::NotFinite { what, value, mut index }) => {
            index[0] += piece.rows.start;
            Error::Tensor(TensorError::NotFinite { what, value, index }).at(path)
        }
        error => error.at(path),
    })?;
    Ok((values, amax))
}

/// The path of the layer whose weight a matrix, or a stack of them, is; its name, if that does not end with `weight`.
fn path_of<'n>(source: &Source<'n>) -> Option<&'n str> {
    (source.shape.len() > 1).then(|| layer_of_weight(source.name).unwrap_or(source.name))
}

/// The head, if the configuration ties it to the embedding and the checkpoint has no tensor for it.
fn tied_head(original: &Checkpoint, fields: &serde_json::Map<String, serde_json::Value>) -> Option<TiedHead> {
    const HEAD: &str = "lm_head";
    const FIELD: &str = "tie_word_embeddings";
    let is_tied = |fields: &serde_json::Map<String, serde_json::Value>| fields.get(FIELD)?.as_bool();
    let of_text = || fields.get("text_config").and_then(|text| is_tied(text.as_object()?));
    if !is_tied(fields).or_else(of_text).unwrap_or(false)
        || original.names().any(|name| name.ends_with("lm_head.weight"))
    {
        return None;
    }
    let is_embedding = |name: &&str| layer_of_weight(name).is_some_and(looks_like_embedding);
    let to = original.names().find(is_embedding).unwrap_or("the embedding").to_owned();
    Some(TiedHead { path: HEAD, to })
}

impl TiedHead {
    fn report(self, rulebook: &Rulebook) -> LayerReport {
        let facts = LayerFacts { path: self.path, skipped: false, recipe: None, tied_to: Some(&self.to), dtype: None };
        let reason = match rulebook.decide(&facts) {
            Err(reason @ SkipReason::Rule(_)) => reason,
            _ => SkipReason::Tied(self.to.clone()),
        };
        left_alone(self.path, reason)
    }
}

/// The kind of slot that weights of a checkpoint are taken for.
const KIND: &str = <candle_nn::Linear as Operation>::KIND;

/// The report of a layer that stays as it is, without facts about its tensor.
fn left_alone(path: &str, reason: SkipReason) -> LayerReport {
    LayerReport {
        path: path.to_owned(),
        kind: KIND,
        shape: Vec::new(),
        action: Action::Skipped(reason),
        format: None,
        recipe: None,
        activations: None,
        gradients: None,
        distortion: None,
        bytes_frozen: None,
        bytes_before: 0,
        bytes_after: 0,
    }
}

/// Warns if other libraries may misread the list of layers in full precision: most match a name at the beginning, at
/// the end or anywhere in the path of a layer, and would then treat a layer with codes as if it were in full precision.
fn warnings(full_precision: &[String], quantized: &[&str]) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in full_precision {
        let mut meant = quantized.iter().filter(|path| path.contains(name.as_str()));
        if let Some(first) = meant.next() {
            let more = match meant.count() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            warnings.push(format!(
                "`{name}` is listed as in full precision, and libraries that look for it in the names of layers find \
                 it in `{first}`{more}, which is quantized; if yours does, quantize both or neither"
            ));
        }
    }
    warnings
}
