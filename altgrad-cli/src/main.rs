//! The command `altgrad`: quantizes, dequantizes, inspects and compares checkpoints.

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

use arguments::{Arguments, Command, Dequantize, Quantize, Source};

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
        Command::Quantize(quantize) => {
            let report = quantize_checkpoint(quantize)?;
            if quantize.layers || arguments.json {
                print(&report, arguments)
            } else {
                show(&report.grouped(), arguments)
            }
        }
        Command::Dequantize(dequantize) => {
            let count = dequantize_checkpoint(dequantize)?;
            let (output, dtype) = (dequantize.output.display(), dequantize.dtype.as_str());
            let text = format!("{count} tensors dequantized to {dtype} in {output}");
            if arguments.json { write(&serde_json::json!({ "dequantized": count }).to_string()) } else { write(&text) }
        }
        Command::Inspect(Source { paths, from }) => print(&open(paths, *from)?.inspect()?, arguments),
        Command::Compare { first, second, first_from, second_from } => {
            let (first, second) = (open(&[first], *first_from)?, open(&[second], *second_from)?);
            print(&checkpoint::compare(&first, &second)?, arguments)
        }
    }
}

fn quantize_checkpoint(quantize: &Quantize) -> Result<altgrad_core::report::QuantReport> {
    let config = quantize.config()?;
    let original = open(&quantize.source.paths, quantize.source.from)?;
    let writer = Writer::new(quantize.dialect);
    let writer = match quantize.shard_bytes {
        Some(bytes) => writer.shard_bytes(bytes),
        None => writer,
    };
    let writer = if quantize.requantize { writer.requantize() } else { writer };
    let bar = progress::Bar::new();
    let report = writer.quantize(&original, config, &quantize.output, |progress| bar.show(progress));
    bar.finish();
    Ok(report?)
}

fn dequantize_checkpoint(dequantize: &Dequantize) -> Result<usize> {
    let checkpoint = open(&dequantize.source.paths, dequantize.source.from)?;
    let bar = progress::Bar::new();
    let count = checkpoint.dequantize(dequantize.dtype, &dequantize.output, |progress| bar.show(progress));
    bar.finish();
    Ok(count?)
}

fn open<P: AsRef<Path>>(paths: &[P], dialect: Option<Dialect>) -> altgrad_core::Result<Checkpoint> {
    match dialect {
        Some(dialect) => Checkpoint::open_as(paths, dialect),
        None => Checkpoint::open(paths),
    }
}

/// Prints a result as a table as wide as the terminal, or as JSON.
fn print(result: &(impl Serialize + Display), arguments: &Arguments) -> Result<()> {
    if arguments.json { write(&serde_json::to_string_pretty(result)?) } else { show(result, arguments) }
}

/// Prints a table as wide as the terminal.
fn show(result: &impl Display, arguments: &Arguments) -> Result<()> {
    write(&format!("{result:width$}", width = arguments.width()))
}

fn write(text: &str) -> Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        // The reader needs no more output, as with `head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}
