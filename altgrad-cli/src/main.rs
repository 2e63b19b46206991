//! The command `altgrad`: quantizes, inspects and compares checkpoints.

#![allow(clippy::print_stdout, reason = "a program for the command line")]

mod arguments;
mod progress;

use std::process::ExitCode;

use altgrad_core::checkpoint::{self, Checkpoint, Writer};
use anyhow::Result;
use clap::Parser;
use serde::Serialize;

use arguments::{Arguments, Command, Quantize, Source};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard output is for results alone.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Quantize(quantize) => print(&quantize_checkpoint(quantize)?, arguments),
        Command::Inspect(source) => print(&open(source)?.inspect()?, arguments),
        Command::Compare { first, second } => {
            let [first, second] = [first, second].map(|path| Checkpoint::open(&[path]));
            print(&checkpoint::compare(&first?, &second?)?, arguments)
        }
    }
}

fn quantize_checkpoint(quantize: &Quantize) -> Result<altgrad_core::QuantReport> {
    let config = quantize.config()?;
    let original = open(&quantize.source)?;
    let writer = Writer::new(quantize.dialect).shard_bytes(quantize.shard_bytes);
    let bar = progress::Bar::new();
    let report = writer.quantize(&original, config, &quantize.output, |progress| bar.show(progress));
    bar.finish();
    Ok(report?)
}

fn open(source: &Source) -> altgrad_core::Result<Checkpoint> {
    match source.from {
        Some(dialect) => Checkpoint::open_as(&source.paths, dialect),
        None => Checkpoint::open(&source.paths),
    }
}

/// Prints a result as a table as wide as the terminal, or as JSON.
fn print(result: &(impl Serialize + std::fmt::Display), arguments: &Arguments) -> Result<()> {
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(result)?);
    } else {
        println!("{result:width$}", width = arguments.width());
    }
    Ok(())
}
