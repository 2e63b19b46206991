//! What does FP8 cost a GPT, or a LLaMA? Trains the same model from the same initial weights under several recipes, and
//! compares them.
//!
//! A loss also depends on luck: differences of a few hundredths mean something only if they hold over several
//! `--seed`s.
//!
//! ```text
//! cargo run --release --example train_gpt
//! cargo run --release --example train_gpt -- --model llama
//! cargo run --release --example train_gpt -- --recipe full,E5M2,mxfp8 --config my.toml --steps 500 --text book.txt
//! ```
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

mod args;
mod chart;
mod gpt;
mod model;
mod output;
mod progress;
mod results;
mod run;
mod sample;
mod text;
mod train;
mod weights;

use anyhow::{Context, Result};
use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;

use args::Args;
use output::OutputFolder;
use results::{Outcome, RunResult};
use text::Text;
use train::{Trained, Untrained};

const CHART: &str = "losses.svg";
const RESULTS: &str = "results.json";

fn main() -> Result<()> {
    let args = Args::parse();
    // Everything that can be checked is checked before the first step.
    let config = args.model_config()?;
    let output = OutputFolder::prepare(&args.output, &[CHART, RESULTS])?;
    let text = match &args.text {
        Some(file) => Text::from_file(file, args.context)?,
        None => Text::from_repository(args.context)?,
    };
    let runs = args.runs()?;
    for run in &runs {
        // A rule that matches no layer, for example.
        Untrained::new(run, &config, args.seed)?;
    }
    println!("{text}");

    let mut results: Vec<RunResult> = Vec::new();
    let mut best: Option<Trained> = None;
    for run in &runs {
        let untrained = Untrained::new(run, &config, args.seed)?;
        if let Some(report) = untrained.report.as_ref().filter(|_| results.iter().all(|result| result.run.is_full())) {
            println!("\nwhat `model.quantize` does to the model {}:\n{report}\n", run.manner);
        }
        let name = &run.name;
        let trained = untrained.train(&args, &text).with_context(|| format!("training {}", run.manner))?;
        let loss = trained.result.validation_loss;
        println!("{name}: validation loss {loss:.4} after {:.1} s", trained.result.seconds);
        results.push(trained.result.clone());
        if !run.is_full() && best.as_ref().is_none_or(|best| loss < best.result.validation_loss) {
            best = Some(trained);
        }
    }

    results::compare(&mut results);
    println!("\n{}", results::table(&results));
    let sample = match &best {
        Some(best) => Some(sample_frozen(best, &args, &text)?),
        None => None,
    };
    let chart = output.write(CHART, chart::loss_curves(&results)?.as_bytes())?;
    let json = Outcome::new(&args, &text, results, sample).to_json()?;
    let json = output.write(RESULTS, json.as_bytes())?;
    println!("\nloss curves: {}\nresults: {}", chart.display(), json.display());
    Ok(())
}

/// Shows that the frozen model has the loss of the trained one, and a sample of its text.
fn sample_frozen(best: &Trained, args: &Args, text: &Text) -> Result<String> {
    let RunResult { run, validation_loss, .. } = &best.result;
    let frozen = || format!("the model that was trained {} and frozen", run.manner);
    let loss = train::evaluate(&best.model, args, text).with_context(|| format!("evaluating {}", frozen()))?;
    println!(
        "\n{}, the best of the quantized models: loss {validation_loss:.6} before freezing, {loss:.6} frozen",
        run.name
    );
    let prompt = text.prompt();
    let mut rng = StdRng::seed_from_u64(args.seed);
    let bytes = sample::generate(&best.model, prompt, args.context, &mut rng)
        .with_context(|| format!("sampling from {}", frozen()))?;
    let sample = sample::printable(&bytes);
    println!("─── held-out text ───\n{}\n─── the frozen model continues ───\n{sample}", sample::printable(prompt));
    Ok(sample)
}
