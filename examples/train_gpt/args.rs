//! Arguments: what may be asked for, and what cannot be.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use altgrad::Fp8;
use anyhow::{Result, ensure};
use clap::Parser;
use serde::Serialize;

use crate::model::Config;

/// Trains the same small GPT in several number formats and compares what each costs.
///
/// Text is read byte by byte, so any text will do. All formats start from the same weights and see the same batches.
#[derive(Debug, Parser, Serialize)]
pub(crate) struct Args {
    /// Formats of the linear weights, separated by commas: `full` for full precision, or E0M7, E1M6, E2M5, E3M4, E4M3,
    /// E5M2, E6M1, E7M0, one of their variants such as `E4M3_FNUZ`, or a custom one such as `E4M3(bias=5, specials=none)`
    #[arg(long, default_value = "full,E4M3,E5M2,E3M4")]
    pub(crate) formats: Formats,
    /// UTF-8 file to train on [default: the sources and docs of this repository]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) text: Option<PathBuf>,
    /// Folder for results.json and losses.svg; it is created if need be
    #[arg(long, value_name = "FOLDER", default_value = "target/train_gpt")]
    #[serde(skip)]
    pub(crate) output: PathBuf,
    /// Training steps of each format
    #[arg(long, default_value = "1500", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) steps: usize,
    // The defaults keep every tensor below the size at which candle shares an elementwise operation among threads: on
    // cores that are busy with something else, waiting for the last of them takes longer than the operation.
    /// Sequences in a training batch
    #[arg(long, default_value = "4", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// Bytes that the model looks back over
    #[arg(long, default_value = "48", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) context: usize,
    /// Transformer blocks
    #[arg(long, default_value = "2", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) layers: usize,
    /// Width of the residual stream, a multiple of the number of heads
    #[arg(long, default_value = "64", value_parser = positive, allow_negative_numbers = true)]
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
    /// The model that was asked for, if there can be one.
    pub(crate) fn model_config(&self) -> Result<Config> {
        let Self { width, heads, .. } = *self;
        ensure!(
            width.is_multiple_of(heads),
            "--width {width} cannot be split among --heads {heads}; make the width a multiple of the number of heads"
        );
        Ok(Config { layers: self.layers, width, heads, context: self.context })
    }
}

/// What the weights of the linear layers are during training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Full,
    Fp8(Fp8),
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.pad("full precision"),
            Self::Fp8(format) => fmt::Display::fmt(format, f),
        }
    }
}

impl Serialize for Format {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "full" => Ok(Self::Full),
            name => name.parse().map(Self::Fp8).map_err(|error| format!("{error}; `full` is full precision")),
        }
    }
}

/// One or more formats, none of them twice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Formats(pub(crate) Vec<Format>);

impl FromStr for Formats {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut depth = 0;
        // The commas inside of a custom format's parentheses do not separate.
        let separates = |c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        };
        let mut formats = Vec::new();
        for name in text.split(separates) {
            let format = name.parse()?;
            if formats.contains(&format) {
                return Err(format!("{format} is there twice"));
            }
            formats.push(format);
        }
        Ok(Self(formats))
    }
}

fn positive(text: &str) -> Result<usize, String> {
    // Far more than any of these numbers can usefully be, and little enough to multiply a few of them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_formats_keep_their_commas() -> Result<(), String> {
        let formats: Formats = "full, E4M3(bias=5, specials=none),e5m2".parse()?;
        assert_eq!(formats.0.len(), 3);
        assert_eq!(formats.0[0], Format::Full);
        assert_eq!(formats.0[2], Format::Fp8(Fp8::E5M2));
        Ok(())
    }

    #[test]
    fn wrong_formats_are_refused() {
        for text in ["", "full,full", "E9M9", "E4M3,", "E4M3(bias=5"] {
            assert!(text.parse::<Formats>().is_err(), "{text}");
        }
    }
}
