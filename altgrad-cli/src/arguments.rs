//! What can be said on the command line.

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
    /// Columns of a table, if not those of the terminal.
    #[arg(long, global = true)]
    width: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Quantize a checkpoint in full precision into a new folder, and report what was done to each layer. Of a folder
    /// the configuration, the tokenizer and the model's own code are copied.
    Quantize(Box<Quantize>),
    /// Write a checkpoint in full precision into a new folder, from the values of its codes. Of a folder the
    /// configuration, less what it says of quantization, the tokenizer and the model's own code are copied.
    Dequantize(Dequantize),
    /// Show a checkpoint's dialect, and of each tensor format, shape, scales and bytes.
    Inspect(Source),
    /// Show how far the tensors of the second checkpoint lie from those of the first.
    Compare {
        /// A folder, an index or a file.
        first: PathBuf,
        /// The same.
        second: PathBuf,
        /// The dialect of the first, whatever its configuration says.
        #[arg(long, value_name = "DIALECT")]
        first_from: Option<Dialect>,
        /// The dialect of the second.
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
    /// The dialect that it is written in, whatever its configuration says: compressed-tensors, transformers, torchao,
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
    /// A recipe (tensorwise, rowwise, blockwise, mxfp8), or a format such as E4M3 for weights alone. If nothing is
    /// said: E4M3; for the dialect transformers `blockwise`, for modelopt E4M3 with the granularity 128x128, and for
    /// comfyui with one scale a tensor.
    #[arg(long, conflicts_with = "config")]
    recipe: Option<Recipe>,
    /// With a format as the recipe: `tensor`, `row` (if nothing is said), or the rows and columns of a block such as
    /// 128x128.
    #[arg(long, value_parser = granularity, conflicts_with = "config")]
    granularity: Option<Granularity>,
    /// Layers to keep in full precision, as patterns over paths such as `lm_head` or `model.layers.0`; can be repeated.
    #[arg(long, value_name = "PATTERN", conflicts_with = "config")]
    skip: Vec<String>,
    /// A file in TOML or JSON that says all of this: recipe, rules and ties. A format in it has one scale a tensor.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The dialect to write: compressed-tensors, transformers, modelopt, comfyui or altgrad.
    #[arg(long, default_value = "compressed-tensors")]
    pub(crate) dialect: Dialect,
    /// The size above which the checkpoint is cut into several files, if not 5 GB; for comfyui it is one file.
    #[arg(long, value_name = "BYTES")]
    pub(crate) shard_bytes: Option<usize>,
    /// Quantize a checkpoint that is quantized already, from the values of its codes. The original is the better start.
    #[arg(long)]
    pub(crate) requantize: bool,
    /// Print a row for each layer, and not one for each group of like layers.
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
    /// Columns of a table: as many as it needs if it is not for a terminal, so that each row is one line there.
    pub(crate) fn width(&self) -> usize {
        // No format string takes more.
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
                "`--granularity` is for a format as the recipe, such as E4M3; what else this recipe says is in its \
                 definition, and a file with `--config` can say it otherwise"
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

/// What other libraries do best with, of what the dialect can express without calibration.
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
        _ => bail!("`{text}` is not a dtype of values; say `bf16`, `f16` or `f32`"),
    }
}

fn granularity(text: &str) -> Result<Granularity> {
    match text {
        "tensor" => Ok(Granularity::PerTensor),
        "row" => Ok(Granularity::PerRow),
        block => {
            let Some((rows, cols)) = block.split_once('x') else {
                bail!("`{text}` is no granularity; say `tensor`, `row`, or rows and columns such as 128x128");
            };
            let size = |size: &str| size.trim().parse().with_context(|| format!("`{size}` in `{text}` is no number"));
            Ok(Granularity::PerBlock { rows: size(rows)?, cols: size(cols)? })
        }
    }
}
