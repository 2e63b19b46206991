//! A small GPT learns in 8 bits about as fast as in full precision.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use altgrad::{Fp8, Quantizable};
use candle_core::DType;
use candle_nn::{AdamW, Optimizer};
use common::{gpt, tokens};

/// The losses of 50 steps from the same weights over the same data.
fn train(format: Option<Fp8>) -> Vec<f64> {
    let (mut model, variables) = gpt(DType::F32, 30);
    if let Some(format) = format {
        model.quantize(format).unwrap();
    }
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 5e-3).unwrap();
    let step = |step: usize| {
        let loss = model.loss(&tokens(8, 13, 3 * step)).unwrap();
        optimizer.backward_step(&loss).unwrap();
        common::first(&loss)
    };
    (0..50).map(step).collect()
}

#[test]
fn a_gpt_learns_in_e4m3_within_five_percent_of_full_precision() {
    let full = train(None);
    let e4m3 = train(Some(Fp8::E4M3));
    assert!(e4m3[49] < 0.7 * e4m3[0], "from {} to {}", e4m3[0], e4m3[49]);
    assert_ne!(full, e4m3, "quantization has an effect");
    for (step, (full, e4m3)) in full.iter().zip(&e4m3).enumerate() {
        assert!((e4m3 - full).abs() <= 0.05 * full, "step {step}: {e4m3} against {full}");
    }
}

#[test]
fn training_is_reproducible_to_the_last_bit() {
    assert_eq!(train(Some(Fp8::E5M2)), train(Some(Fp8::E5M2)));
}
