//! Rotary position embeddings.

use std::f64::consts::TAU;

use altgrad::nn::rotary_emb::rope;
use candle_core::{DType, Device, Result, Tensor};

use crate::config::{Config, RopeScaling};

/// The angle that each pair of elements of a head turns by from one position to the next.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    frequencies: Tensor,
    dtype: DType,
}

/// The cosines and sines of the angles at some positions.
pub(crate) struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    pub(crate) fn new(config: &Config, dtype: DType, device: &Device) -> Result<Self> {
        let dim = config.head_dim;
        let frequency = |pair: usize| config.rope.theta.powf(-((2 * pair) as f64) / dim as f64);
        let scaled = |frequency: f64| match config.rope.scaling {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low, high, original } => {
                let turns = original * frequency / TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                kept * frequency + (1.0 - kept) * frequency / factor
            }
        };
        let frequencies: Vec<f32> = (0..dim / 2).map(|pair| scaled(frequency(pair)) as f32).collect();
        Ok(Self { frequencies: Tensor::from_vec(frequencies, (1, dim / 2), device)?, dtype })
    }

    /// The angles of `tokens` positions from `first` on.
    pub(crate) fn angles(&self, first: usize, tokens: usize) -> Result<Angles> {
        let positions = Tensor::arange(first as u32, (first + tokens) as u32, self.frequencies.device())?;
        let angles = positions.to_dtype(DType::F32)?.unsqueeze(1)?.matmul(&self.frequencies)?;
        Ok(Angles { cos: angles.cos()?.to_dtype(self.dtype)?, sin: angles.sin()?.to_dtype(self.dtype)? })
    }
}

impl Angles {
    /// Turns `(batch, heads, tokens, head size)`.
    pub(crate) fn turn(&self, x: &Tensor) -> Result<Tensor> {
        rope(&x.contiguous()?, &self.cos, &self.sin)
    }
}
