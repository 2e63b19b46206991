//! The arguments of the command line.

use std::path::PathBuf;

use altgrad::{Fp8, Recipe};
use clap::{Parser, Subcommand};

/// Runs a model of the LLaMA family (LLaMA, Mistral, Qwen2, Qwen3, `SmolLM`) in full precision or in FP8.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// A hub folder: `config.json`, `tokenizer.json`, and the weights in safetensors files, in full precision or in any
    /// FP8 dialect that altgrad reads
    pub(crate) model: PathBuf,
    #[command(subcommand)]
    pub(crate) task: Task,
    /// Quantize the layers by a recipe (tensorwise, rowwise, hybrid, blockwise or mxfp8), or their weights alone by a
    /// format such as E4M3, with one scale per row; the embedding and a head that is tied to it become one table
    #[arg(long, global = true, value_name = "RECIPE", conflicts_with = "config")]
    pub(crate) recipe: Option<Recipe>,
    /// Quantize the layers as a TOML or JSON file says
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Keep keys and values in this format, each token and head under its own scale, instead of in full precision; with
    /// the scales of the checkpoint, if it has some for keys and values
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) kv_cache: Option<Fp8>,
    /// Read activations rounded to bf16, which is faster on processors that multiply bf16
    #[arg(long, global = true)]
    pub(crate) bf16_activations: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Continues a text, and says how fast
    Generate {
        /// The text to continue
        #[arg(long)]
        prompt: String,
        /// Tokens to generate at most
        #[arg(long, default_value_t = 128)]
        tokens: usize,
        /// 0 takes the most likely token each time, more is more random
        #[arg(long, default_value_t = 0.0)]
        temperature: f64,
        /// Seed of the random choice
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Measures how well the model predicts a text
    Perplexity {
        /// A file with UTF-8 text
        #[arg(long)]
        text: PathBuf,
        /// Tokens that are predicted in one piece, each from those before it in the piece
        #[arg(long, default_value_t = 512)]
        context: usize,
        /// Pieces to measure at most
        #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
        pieces: usize,
    },
    /// Prints the logits of each token of a sequence as JSON
    Logits {
        /// The tokens' numbers, separated by commas
        #[arg(long, value_delimiter = ',', required = true)]
        tokens: Vec<u32>,
    },
}
