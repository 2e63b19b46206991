//! A small GPT learns in 8 bits about as fast as in full precision.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "tests")]

mod common;

use altgrad::{Fp8, Quantizable, Recipe};
use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Optimizer};
use common::{VOCABULARY, gpt, tokens};

/// A real text that does not change: enough of it that a small model cannot learn it by heart.
const TEXT: &[u8] = include_bytes!("../LICENSE-APACHE");

/// The losses of some steps from the same weights over the same data, tokens `(batch, time)` for each step.
fn train(recipe: Option<Recipe>, steps: usize, data: impl Fn(usize) -> Tensor) -> Vec<f64> {
    let (mut model, variables) = gpt(DType::F32, 30);
    if let Some(recipe) = recipe {
        model.quantize(recipe).unwrap();
    }
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 5e-3).unwrap();
    let step = |step: usize| {
        let loss = model.loss(&data(step)).unwrap();
        optimizer.backward_step(&loss).unwrap();
        common::first(&loss)
    };
    (0..steps).map(step).collect()
}

fn repeating(step: usize) -> Tensor {
    tokens(8, 13, 3 * step)
}

/// Windows of the real text, from other places in each step.
fn real(step: usize) -> Tensor {
    let (batch, time) = (16, 13);
    let token = |index: usize| {
        let (row, column) = (index / time, index % time);
        let start = (step * batch + row) * 797 % (TEXT.len() - time);
        u32::from(TEXT[start + column].to_ascii_lowercase()) % VOCABULARY as u32
    };
    let tokens: Vec<u32> = (0..batch * time).map(token).collect();
    Tensor::from_vec(tokens, (batch, time), &Device::Cpu).unwrap()
}

#[test]
fn a_gpt_learns_in_e4m3_within_five_percent_of_full_precision() {
    let full = train(None, 50, repeating);
    let e4m3 = train(Some(Fp8::E4M3.into()), 50, repeating);
    assert!(e4m3[49] < 0.7 * e4m3[0], "from {} to {}", e4m3[0], e4m3[49]);
    assert_ne!(full, e4m3, "quantization has an effect");
    for (step, (full, e4m3)) in full.iter().zip(&e4m3).enumerate() {
        assert!((e4m3 - full).abs() <= 0.05 * full, "step {step}: {e4m3} against {full}");
    }
}

#[test]
fn training_is_reproducible_to_the_last_bit() {
    assert_eq!(train(Some(Recipe::hybrid()), 20, repeating), train(Some(Recipe::hybrid()), 20, repeating));
}

#[test]
fn a_gpt_learns_under_every_named_recipe_within_three_percent_of_full_precision() {
    /// The mean of the last losses, which jump from step to step with the text.
    fn last(losses: &[f64]) -> f64 {
        losses[losses.len() - 20..].iter().sum::<f64>() / 20.0
    }
    let full = last(&train(None, 200, real));
    let recipes = Recipe::NAMED.map(|(name, recipe)| (name, recipe()));
    for (name, recipe) in [("E4M3", Recipe::from(Fp8::E4M3))].into_iter().chain(recipes) {
        let loss = last(&train(Some(recipe), 200, real));
        let difference = loss / full - 1.0;
        println!("{name}: {loss:.4} against {full:.4}, {:+.2} %", 100.0 * difference);
        assert!(difference <= 0.03, "{name}: {loss} against {full}");
    }
}
