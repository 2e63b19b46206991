//! The arguments of the command line, and checks of their values.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;

use crate::model::{Architecture, Config};
use crate::run::{self, Run, Runs};

/// Trains the same small model under several quantization recipes and compares what each costs.
///
/// Text is read byte by byte, so any text will do. All runs start from the same weights and see the same batches.
#[derive(Debug, Parser, Serialize)]
pub(crate) struct Args {
    /// What kind of model to train
    #[arg(long, value_enum, value_name = "KIND", default_value = "gpt")]
    pub(crate) model: Architecture,
    /// What to train, separated by commas: `full` for full precision; a recipe for weights, activations and gradients
    /// (tensorwise, rowwise, hybrid, blockwise or mxfp8); or a format for the weights alone (E0M7, E1M6, E2M5, E3M4,
    /// E4M3, E5M2, E6M1, E7M0, one of their variants such as `E4M3_FNUZ`, or a custom one such as `E4M3(bias=5,
    /// specials=none)`). May be given several times
    #[arg(long, value_name = "LIST", default_value = "full,E4M3,tensorwise,mxfp8")]
    #[serde(skip)]
    pub(crate) recipe: Vec<Runs>,
    /// TOML or JSON file with a quantization config to train under as well; the run is named after the file, without
    /// its extension. May be given several times
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Vec<PathBuf>,
    /// UTF-8 file to train on [default: the sources and docs of this repository]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) text: Option<PathBuf>,
    /// Folder for results.json and losses.svg; it is created if necessary
    #[arg(long, value_name = "FOLDER", default_value = "target/train_gpt")]
    #[serde(skip)]
    pub(crate) output: PathBuf,
    /// Training steps of each run
    #[arg(long, default_value = "600", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) steps: usize,
    /// Sequences in a training batch
    #[arg(long, default_value = "16", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// Bytes that the model looks back over
    #[arg(long, default_value = "64", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) context: usize,
    /// Transformer blocks
    #[arg(long, default_value = "4", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) layers: usize,
    /// Width of the residual stream, a multiple of the number of heads
    #[arg(long, default_value = "128", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) width: usize,
    /// Attention heads of a block
    #[arg(long, default_value = "4", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) heads: usize,
    /// Learning rate at its peak, after a linear warm-up and before a cosine decay to a tenth
    #[arg(long, default_value = "0.002", value_parser = learning_rate, allow_negative_numbers = true)]
    pub(crate) learning_rate: f64,
    /// Seed of the first weights, the batches and the sample
    #[arg(long, default_value = "1")]
    pub(crate) seed: u64,
}

impl Args {
    /// The requested model; an error if there can be none.
    pub(crate) fn model_config(&self) -> Result<Config> {
        let Self { model: architecture, layers, width, heads, context, .. } = *self;
        let config = Config { architecture, layers, width, heads, context };
        config.check()?;
        Ok(config)
    }

    /// All runs, in order.
    pub(crate) fn runs(&self) -> Result<Vec<Run>> {
        run::all(&self.recipe, &self.config)
    }
}

fn positive(text: &str) -> Result<usize, String> {
    // Far above any useful value of these numbers, and small enough that a product of a few of them does not overflow.
    const MOST: usize = 1_000_000;
    match text.parse() {
        Ok(number @ 1..=MOST) => Ok(number),
        _ => Err(format!("it must be a whole number from 1 to {MOST}")),
    }
}

fn learning_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("it must be a finite number above 0".to_owned()),
    }
}
