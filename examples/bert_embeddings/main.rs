//! How much do a BERT's sentence embeddings change if its weights are quantized? The model comes from
//! candle-transformers.
//!
//! Each format and granularity is tried twice: on the fly, through a `QuantizedVarBuilder` over the checkpoint in full
//! precision, and from an FP8 checkpoint on disk, quantized from it, through `checkpoint::var_builder`. Both must
//! agree.

#![allow(clippy::print_stdout, reason = "an example prints its answer")]

use std::fs;
use std::path::{Path, PathBuf};

use altgrad::checkpoint::{self, Checkpoint, Dialect, Writer};
use altgrad::{Fp8, Granularity, QuantConfig, QuantizedVarBuilder, Quantizer};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use clap::Parser;
use tokenizers::{Encoding, PaddingParams, Tokenizer, TruncationParams};

#[derive(Debug, Parser)]
struct Arguments {
    /// A folder with `model.safetensors`, `config.json` and `tokenizer.json` of a BERT such as all-MiniLM-L6-v2.
    #[arg(long)]
    model: PathBuf,
    /// The text to embed, a line of more than 100 bytes at a time.
    #[arg(long)]
    text: PathBuf,
    /// Lines to embed.
    #[arg(long, default_value_t = 64)]
    lines: usize,
}

/// Number of lines in one batch.
const BATCH: usize = 16;
/// Maximum number of tokens of a line; the rest is cut off.
const TOKENS: usize = 128;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let device = Device::Cpu;
    let original = Checkpoint::open(&[&arguments.model])?;
    let vb = original.var_builder(DType::F32, &device);
    let encoder = Encoder::new(&arguments)?;
    let expected = encoder.embed(vb.clone())?;
    println!("{} lines, embeddings of {} numbers", expected.dim(0)?, expected.dim(1)?);
    println!("weights in  scales    mean cosine   least cosine   the same from disk");
    for (_, format) in Fp8::NAMED.into_iter().take(8) {
        for (name, granularity) in [("tensor", Granularity::PerTensor), ("row", Granularity::PerRow)] {
            let config = QuantConfig::new(Quantizer::new(format).granularity(granularity));
            let quantized = QuantizedVarBuilder::new(vb.clone(), config.clone())?;
            let embeddings = encoder.embed(quantized.builder())?;
            let (mean, least) = cosines(&expected, &embeddings)?;

            let folder = tempfile::tempdir()?;
            let folder = folder.path().join("fp8");
            let writer = Writer::new(Dialect::Altgrad);
            writer.quantize(&original, config, &folder, |_| ())?;
            let from_disk = encoder.embed(checkpoint::var_builder(&[&folder], DType::F32, &device)?)?;
            let is_same = from_disk.to_vec2::<f32>()? == embeddings.to_vec2::<f32>()?;
            println!("{:<11} a {name:<7} {mean:.6}      {least:.6}       {is_same}", format.to_string());
        }
    }
    Ok(())
}

/// The lines as tokens, and the configuration of the model.
struct Encoder {
    config: Config,
    /// Tokens, and a mask of those that are not padding, `(lines, tokens)`.
    batches: Vec<(Tensor, Tensor)>,
}

impl Encoder {
    fn new(arguments: &Arguments) -> Result<Self> {
        let file = |name: &str| arguments.model.join(name);
        let config = serde_json::from_slice(&read(&file("config.json"))?)?;
        let mut tokenizer = Tokenizer::from_file(file("tokenizer.json")).map_err(anyhow::Error::from_boxed)?;
        tokenizer.with_padding(Some(PaddingParams::default()));
        let truncation = TruncationParams { max_length: TOKENS, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(anyhow::Error::from_boxed)?;
        let text = String::from_utf8_lossy(&read(&arguments.text)?).into_owned();
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|text| text.len() > 100).take(arguments.lines).collect();
        ensure!(!lines.is_empty(), "`{}` has no line of more than 100 bytes", arguments.text.display());
        let batch = |lines: &[&str]| {
            let encodings = tokenizer.encode_batch(lines.to_vec(), true).map_err(anyhow::Error::from_boxed)?;
            let tensor = |numbers: Vec<&[u32]>| Tensor::new(numbers, &Device::Cpu);
            let tokens = tensor(encodings.iter().map(Encoding::get_ids).collect())?;
            let mask = tensor(encodings.iter().map(Encoding::get_attention_mask).collect())?;
            Ok((tokens, mask))
        };
        Ok(Self { config, batches: lines.chunks(BATCH).map(batch).collect::<Result<_>>()? })
    }

    /// The mean of the last hidden states of each line, normalized to length 1.
    fn embed(&self, vb: VarBuilder<'_>) -> Result<Tensor> {
        let model = BertModel::load(vb, &self.config)?;
        let embed = |(tokens, mask): &(Tensor, Tensor)| {
            let states = model.forward(tokens, &tokens.zeros_like()?, Some(mask))?;
            let mask = mask.to_dtype(DType::F32)?.unsqueeze(2)?;
            let mean = states.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?;
            mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?)
        };
        Ok(Tensor::cat(&self.batches.iter().map(embed).collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    }
}

/// The mean and the lowest cosine of embeddings of length 1.
fn cosines(one: &Tensor, other: &Tensor) -> Result<(f32, f32)> {
    let cosines = (one * other)?.sum(1)?.to_vec1::<f32>()?;
    let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
    Ok((mean, cosines.into_iter().fold(f32::INFINITY, f32::min)))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))
}
