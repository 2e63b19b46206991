//! How does a LLaMA run in FP8? Generates text, measures perplexity, or prints logits.
//!
//! ```sh
//! cargo run --release --example llama -- SmolLM2-135M --recipe E4M3 generate --prompt "The river"
//! ```

#![allow(clippy::print_stderr, reason = "an example prints its answer")]

mod args;
mod load;
mod memory;
mod text;

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use altgrad_llama::{Logits, mean_loss};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use clap::Parser;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use args::{Args, Task};
use load::Loaded;
use text::Text;

fn main() -> Result<()> {
    let args = Args::parse();
    let start = Instant::now();
    let loaded = Loaded::new(&args)?;
    eprintln!("loaded in {:.2} s: {}", start.elapsed().as_secs_f64(), loaded.description()?);
    match &args.task {
        Task::Generate { prompt, tokens, temperature, seed } => {
            generate(&loaded, &args, prompt, *tokens, *temperature, *seed)
        }
        Task::Perplexity { text, context, pieces } => {
            let text = std::fs::read_to_string(text).with_context(|| format!("cannot read `{}`", text.display()))?;
            perplexity(&loaded, &args, &text, *context, *pieces)
        }
        Task::Logits { tokens } => {
            let logits = loaded.logits(tokens, &mut loaded.caches(), Logits::All)?;
            writeln!(stdout(), "{}", serde_json::to_string(&logits.squeeze(0)?.to_vec2::<f32>()?)?)?;
            Ok(())
        }
    }
}

/// Continues a text, a token at a time.
fn generate(loaded: &Loaded, args: &Args, prompt: &str, most: usize, temperature: f64, seed: u64) -> Result<()> {
    let text = Text::of_folder(&args.model)?;
    let mut random = StdRng::seed_from_u64(seed);
    let config = loaded.model.config();
    let mut tokens = text.encode(prompt)?;
    ensure!(!tokens.is_empty(), "the prompt has no tokens; give some text to continue");
    let mut caches = loaded.caches();
    write!(stdout(), "{prompt}")?;
    let mut next = text.stream();
    let (prompt_len, mut prefill, mut count) = (tokens.len(), Duration::ZERO, 0);
    let mut start = Instant::now();
    while count < most {
        let logits = loaded.logits(&tokens, &mut caches, Logits::Last)?;
        if count == 0 {
            prefill = start.elapsed();
            start = Instant::now();
        }
        let token = choose(&logits.flatten_all()?.to_vec1()?, temperature, &mut random);
        if config.eos.contains(&token) {
            break;
        }
        count += 1;
        tokens = vec![token];
        write!(stdout(), "{}", next(token)?)?;
        stdout().flush()?;
    }
    writeln!(stdout())?;
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    eprintln!("prompt: {prompt_len} tokens, {:.1} tokens/s", rate(prompt_len, prefill));
    if count > 1 {
        eprintln!("generated: {count} tokens, {:.1} tokens/s", rate(count - 1, start.elapsed()));
    }
    let bytes: usize = caches.iter().map(altgrad::KvCache::bytes).sum();
    eprintln!("keys and values: {}; {}", memory::megabytes(bytes), memory::peak());
    Ok(())
}

/// The token with the largest logit, or one drawn from the softmax at a temperature.
fn choose(logits: &[f32], temperature: f64, random: &mut StdRng) -> u32 {
    let (place, largest) = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (place, logit)| if *logit > best.1 { (place, *logit) } else { best });
    if temperature <= 0.0 {
        return place as u32;
    }
    let weights: Vec<f64> = logits.iter().map(|logit| (f64::from(logit - largest) / temperature).exp()).collect();
    let mut rest = random.random::<f64>() * weights.iter().sum::<f64>();
    let drawn = weights.iter().position(|weight| {
        rest -= weight;
        rest < 0.0
    });
    drawn.unwrap_or(place) as u32
}

/// The perplexity of a text, which is read in pieces that know nothing of one another.
fn perplexity(loaded: &Loaded, args: &Args, text: &str, context: usize, most: usize) -> Result<()> {
    ensure!(context > 1, "a piece of {context} tokens predicts nothing; use a context of at least 2");
    let tokens = Text::of_folder(&args.model)?.encode(text)?;
    loaded.check(&tokens)?;
    let start = Instant::now();
    let (mut sum, mut count) = (0.0, 0);
    for piece in tokens.chunks(context).filter(|piece| piece.len() > 1).take(most) {
        let loss = mean_loss(&loaded.model, &Tensor::new(piece, &Device::Cpu)?, &mut loaded.caches())?;
        sum += loss * (piece.len() - 1) as f64;
        count += piece.len() - 1;
        eprint!("\r{count} tokens, perplexity {:.4} ", (sum / count as f64).exp());
    }
    eprintln!();
    ensure!(count > 0, "the text has no two tokens");
    let rate = count as f64 / start.elapsed().as_secs_f64();
    writeln!(stdout(), "perplexity {:.4} of {count} tokens, {rate:.1} tokens/s", (sum / count as f64).exp())?;
    eprintln!("{}", memory::peak());
    Ok(())
}
