//! Text from a model, byte by byte.

use anyhow::Result;
use candle_core::{D, Device, IndexOp, Tensor};
use candle_nn::ops;
use rand::RngExt;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;

use crate::model::Model;

const LENGTH: usize = 400;
const TEMPERATURE: f64 = 0.8;

/// The text that the model writes after `prompt`, looking back over `context` bytes.
pub(crate) fn generate(model: &Model, prompt: &[u8], context: usize, rng: &mut StdRng) -> Result<Vec<u8>> {
    let mut bytes = prompt.to_vec();
    for _ in 0..LENGTH {
        let window = &bytes[bytes.len().saturating_sub(context)..];
        let input: Vec<u32> = window.iter().map(|byte| u32::from(*byte)).collect();
        let logits = model.forward(&Tensor::new(input, &Device::Cpu)?.unsqueeze(0)?)?.i((0, window.len() - 1))?;
        let probabilities = ops::softmax(&(logits / TEMPERATURE)?, D::Minus1)?.to_vec1::<f32>()?;
        bytes.push(u8::try_from(rng.sample(WeightedIndex::new(probabilities)?))?);
    }
    Ok(bytes.split_off(prompt.len()))
}

/// The bytes as text that is safe to print to a terminal.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(bytes).chars().map(shown).collect()
}
