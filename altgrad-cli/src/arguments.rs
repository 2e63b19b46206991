//! The arguments of the command line.

use std::path::PathBuf;

use altgrad_core::checkpoint::Dialect;
use altgrad_core::{Fp8, Granularity, QuantConfig, Quantizer, Recipe};
use anyhow::{Context, Result, bail};
use candle_core::DType;
use clap::{Args, Parser, Subcommand};
use console::Term;

/// Quantizes, dequantizes, inspects and compares FP8 checkpoints.
#[derive(Debug, Parser)]
#[command(name = "altgrad", version, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Width of a table in columns; by default that of the terminal.
    #[arg(long, global = true)]
    width: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Quantize a checkpoint in full precision into a new folder, and report what was done to each layer. If the
    /// checkpoint is a folder, its configuration, its tokenizer and the model's own code are copied.
    Quantize(Box<Quantize>),
    /// Write a checkpoint in full precision into a new folder, from the values of its codes. If the checkpoint is a
    /// folder, its configuration (without quantization), its tokenizer and the model's own code are copied.
    Dequantize(Dequantize),
    /// Show a checkpoint's dialect, and the format, shape, scales and bytes of each tensor.
    Inspect(Source),
    /// Show how far the tensors of the second checkpoint are from those of the first.
    Compare {
        /// A folder, an index or a file.
        first: PathBuf,
        /// A folder, an index or a file.
        second: PathBuf,
        /// The dialect of the first, instead of the detected one.
        #[arg(long, value_name = "DIALECT")]
        first_from: Option<Dialect>,
        /// The dialect of the second, instead of the detected one.
        #[arg(long, value_name = "DIALECT")]
        second_from: Option<Dialect>,
    },
}

/// Where a checkpoint is.
#[derive(Args, Debug)]
pub(crate) struct Source {
    /// A folder, an index (`model.safetensors.index.json`), or all files of a checkpoint.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// The dialect that it is written in, instead of the detected one: compressed-tensors, transformers, torchao,
    /// modelopt, fbgemm, quark, mistral, tensorrt-llm, comfyui, plain or altgrad.
    #[arg(long, value_name = "DIALECT")]
    pub(crate) from: Option<Dialect>,
}

#[derive(Args, Debug)]
pub(crate) struct Quantize {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The folder to write to: a new one, or an empty one.
    #[arg(long, short)]
    pub(crate) output: PathBuf,
    /// A recipe (tensorwise, rowwise, blockwise, mxfp8), or a format such as E4M3 for weights alone. The default is
    /// E4M3; for the dialect transformers it is `blockwise`, for modelopt E4M3 with the granularity 128x128, and for
    /// comfyui E4M3 with one scale per tensor.
    #[arg(long, conflicts_with = "config")]
    recipe: Option<Recipe>,
    /// With a format as the recipe: `tensor`, `row` (the default), or the rows and columns of a block such as 128x128.
    #[arg(long, value_parser = granularity, conflicts_with = "config")]
    granularity: Option<Granularity>,
    /// Layers to keep in full precision, as patterns over paths such as `lm_head` or `model.layers.0`; can be repeated.
    #[arg(long, value_name = "PATTERN", conflicts_with = "config")]
    skip: Vec<String>,
    /// A TOML or JSON file with all of this: recipe, rules and ties. A format in it means one scale per tensor.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The dialect to write: compressed-tensors, transformers, modelopt, comfyui or altgrad.
    #[arg(long, default_value = "compressed-tensors")]
    pub(crate) dialect: Dialect,
    /// The size above which the checkpoint is split into several files; by default 5 GB, and for comfyui one file.
    #[arg(long, value_name = "BYTES")]
    pub(crate) shard_bytes: Option<usize>,
    /// Quantize a checkpoint that is quantized already, from the values of its codes. Prefer the original if you have
    /// it.
    #[arg(long)]
    pub(crate) requantize: bool,
    /// Print a row for each layer instead of one for each group of similar layers.
    #[arg(long)]
    pub(crate) layers: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Dequantize {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The folder to write to: a new one, or an empty one.
    #[arg(long, short)]
    pub(crate) output: PathBuf,
    /// The dtype of the values: bf16, f16 or f32.
    #[arg(long, default_value = "bf16", value_parser = dtype)]
    pub(crate) dtype: DType,
}

impl Arguments {
    /// The width of a table: as wide as it needs to be if the output is not a terminal, so that each row is one line.
    pub(crate) fn width(&self) -> usize {
        // A format string takes no larger width.
        let terminal = || Term::stdout().size_checked().map(|(_, columns)| columns);
        self.width.or_else(terminal).unwrap_or(u16::MAX).into()
    }
}

impl Quantize {
    /// How the checkpoint is quantized.
    pub(crate) fn config(&self) -> Result<QuantConfig> {
        if let Some(file) = &self.config {
            return Ok(QuantConfig::from_file(file)?);
        }
        let recipe = self.recipe.clone();
        let recipe = match (recipe, self.granularity) {
            (None, None) => default_recipe(self.dialect),
            (Some(recipe), Some(_)) if recipe.activations.is_some() || recipe.gradients.is_some() => bail!(
                "`--granularity` needs a format as the recipe, such as E4M3; this recipe defines its own \
                 granularities, which a file with `--config` can change"
            ),
            (Some(recipe), None) if recipe.activations.is_some() || recipe.gradients.is_some() => recipe,
            (recipe, granularity) => {
                let weights = recipe.map_or(Quantizer::new(Fp8::E4M3), |recipe| recipe.weights);
                Recipe::weight_only(weights.granularity(granularity.unwrap_or(Granularity::PerRow)))
            }
        };
        Ok(self.skip.iter().fold(QuantConfig::new(recipe), QuantConfig::skip))
    }
}

/// The recipe that other libraries support best, among those that the dialect can express without calibration.
fn default_recipe(dialect: Dialect) -> Recipe {
    let weights = Quantizer::new(Fp8::E4M3);
    match dialect {
        Dialect::Transformers => Recipe::blockwise(),
        Dialect::ModelOpt => Recipe::weight_only(weights.granularity(Granularity::PerBlock { rows: 128, cols: 128 })),
        Dialect::ComfyUi => Recipe::weight_only(weights.granularity(Granularity::PerTensor)),
        _ => Recipe::weight_only(weights.granularity(Granularity::PerRow)),
    }
}

fn dtype(text: &str) -> Result<DType> {
    match text {
        "bf16" => Ok(DType::BF16),
        "f16" => Ok(DType::F16),
        "f32" => Ok(DType::F32),
        _ => bail!("`{text}` is not a dtype of values; use `bf16`, `f16` or `f32`"),
    }
}

fn granularity(text: &str) -> Result<Granularity> {
    match text {
        "tensor" => Ok(Granularity::PerTensor),
        "row" => Ok(Granularity::PerRow),
        block => {
            let Some((rows, cols)) = block.split_once('x') else {
                bail!("`{text}` is not a granularity; use `tensor`, `row`, or rows and columns such as 128x128");
            };
            let size =
                |size: &str| size.trim().parse().with_context(|| format!("`{size}` in `{text}` is not a number"));
            Ok(Granularity::PerBlock { rows: size(rows)?, cols: size(cols)? })
        }
    }
}
