//! The command `altgrad`: quantizes, inspects and compares checkpoints.

mod arguments;
mod progress;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use altgrad_core::checkpoint::{self, Checkpoint, Dialect, Writer};
use anyhow::Result;
use clap::Parser;
use serde::Serialize;

use arguments::{Arguments, Command, Quantize, Source};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard output is for results alone.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Quantize(quantize) => print(&quantize_checkpoint(quantize)?, arguments),
        Command::Inspect(Source { paths, from }) => print(&open(paths, *from)?.inspect()?, arguments),
        Command::Compare { first, second, first_from, second_from } => {
            let (first, second) = (open(&[first], *first_from)?, open(&[second], *second_from)?);
            print(&checkpoint::compare(&first, &second)?, arguments)
        }
    }
}

fn quantize_checkpoint(quantize: &Quantize) -> Result<altgrad_core::QuantReport> {
    let config = quantize.config()?;
    let original = open(&quantize.source.paths, quantize.source.from)?;
    let writer = Writer::new(quantize.dialect).shard_bytes(quantize.shard_bytes);
    let bar = progress::Bar::new();
    let report = writer.quantize(&original, config, &quantize.output, |progress| bar.show(progress));
    bar.finish();
    Ok(report?)
}

fn open<P: AsRef<Path>>(paths: &[P], dialect: Option<Dialect>) -> altgrad_core::Result<Checkpoint> {
    match dialect {
        Some(dialect) => Checkpoint::open_as(paths, dialect),
        None => Checkpoint::open(paths),
    }
}

/// Prints a result as a table as wide as the terminal, or as JSON.
fn print(result: &(impl Serialize + Display), arguments: &Arguments) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let printed = if arguments.json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(result)?)
    } else {
        writeln!(stdout, "{result:width$}", width = arguments.width())
    };
    match printed {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}
