//! Converts a checkpoint back to full precision, a piece of a tensor at a time.

use std::path::Path;

use candle_core::DType;
use safetensors::{Dtype, View};
use serde_json::Value;

use super::companions::add_companions;
use super::config::{CONFIG, read, without_quantization};
use super::convert::Progress;
use super::reader::Checkpoint;
use super::source::Source;
use super::writer::{CheckpointWriter, Entry};
use crate::{Error, Result, TensorError};

/// The size above which a checkpoint is split into several files, as transformers does.
const SHARD_BYTES: usize = 5_000_000_000;

impl Checkpoint {
    /// Writes the checkpoint in full precision into a new folder: quantized tensors as their values in `dtype` (`F32`,
    /// `F16` or `BF16`), all others as they are, and the configuration without its fields about quantization. If the
    /// checkpoint was opened as a folder or an index, its tokenizer and its own code are copied too. Only a piece of a
    /// tensor and its scales are in memory at a time.
    ///
    /// Values are `decode(code) × scale` in `f32`, rounded to `dtype`. Returns the number of tensors that were
    /// quantized.
    ///
    /// ```no_run
    /// use altgrad::checkpoint::Checkpoint;
    /// use candle_core::DType;
    ///
    /// Checkpoint::open(&["Qwen3-8B-FP8"])?.dequantize(DType::BF16, "Qwen3-8B-from-FP8", |_| ())?;
    /// # Ok::<(), altgrad::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A tensor that cannot be read, no tensor that is quantized, another dtype, and errors of writing as in
    /// [`Writer::save`](super::Writer::save). In case of an error, nothing is left in the folder.
    pub fn dequantize(
        &self,
        dtype: DType,
        folder: impl AsRef<Path>,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<usize> {
        let (stored_dtype, name) = match dtype {
            DType::F32 => (Dtype::F32, "float32"),
            DType::F16 => (Dtype::F16, "float16"),
            DType::BF16 => (Dtype::BF16, "bfloat16"),
            dtype => {
                return Err(Error::Tensor(TensorError::UnsupportedDType { what: "the dequantized checkpoint", dtype }));
            }
        };
        let sources = self.names().map(|name| Source::new(self, name)).collect::<Result<Vec<_>>>()?;
        let count = sources.iter().filter(|source| source.is_quantized()).count();
        if count == 0 {
            let why = "no tensor of it is quantized, so there is nothing to dequantize".to_owned();
            return Err(super::file::invalid(self.shards().folder(), None, why));
        }
        let entries: Vec<Entry> = sources
            .iter()
            .map(|source| {
                let dtype = if source.is_quantized() { stored_dtype } else { source.dtype };
                Entry::new(source.name, dtype, source.shape)
            })
            .collect();
        let mut writer = CheckpointWriter::create(folder.as_ref(), &entries, SHARD_BYTES)?;
        let total = sources.iter().map(|source| source.bytes).sum();
        let mut done = 0;
        for source in &sources {
            let mut tick = |read: usize| {
                progress(Progress { tensor: source.name, done, total });
                done += read;
            };
            if source.is_quantized() {
                let reading = source.read()?;
                for piece in reading.pieces(1) {
                    tick(piece.bytes);
                    writer.append(source.name, &View::data(&reading.load(&piece, dtype)?))?;
                }
            } else {
                source.copy(|bytes| {
                    tick(bytes.len());
                    writer.append(source.name, bytes)
                })?;
            }
        }
        if let Some((_, config)) = read(&self.shards().folder().join(CONFIG))? {
            let mut config = without_quantization(config);
            for field in ["torch_dtype", "dtype"] {
                if let Some(value) = config.get_mut(field) {
                    *value = name.into();
                }
            }
            writer.add_json(CONFIG, &Value::Object(config))?;
        }
        add_companions(self.shards(), &mut writer)?;
        writer.finish()?;
        Ok(count)
    }
}
