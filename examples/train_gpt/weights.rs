//! The initial weights, the same for every run: GPT-2's initialization, adapted to this width, from a seed.

use altgrad::optim;
use anyhow::{Context, Result};
use candle_core::{Tensor, Var};
use candle_nn::VarMap;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::Normal;

use crate::model::Config;

/// Sets every variable, in the order of their names: biases to 0, norms to 1, matrices to normal values, smaller where
/// they feed the residual stream.
///
/// Candle's own generator on the CPU takes no seed.
pub(crate) fn initialize(variables: &VarMap, config: &Config, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    for (name, variable) in optim::variables(variables) {
        initialize_one(&name, &variable, config, &mut rng).with_context(|| format!("initializing {name}"))?;
    }
    Ok(())
}

fn initialize_one(name: &str, variable: &Var, config: &Config, rng: &mut StdRng) -> Result<()> {
    let Config { layers, width, .. } = *config;
    let (layer, kind) = name.rsplit_once('.').unwrap_or(("", name));
    let value = if kind == "bias" {
        variable.zeros_like()?
    } else if variable.rank() == 1 {
        variable.ones_like()?
    } else {
        let residual = ["c_proj", "o_proj", "down_proj"].iter().any(|name| layer.ends_with(name));
        // GPT-2 uses 0.02 at its width of 768. Such a small value at a small width delays learning by an unpredictable
        // number of steps, and a comparison after a few hundred steps would measure only that.
        let usual = 0.02 * (768.0 / width as f32).sqrt();
        let deviation = if residual { usual / (2.0 * layers as f32).sqrt() } else { usual };
        let values = rng.sample_iter(Normal::new(0.0, deviation)?).take(variable.elem_count()).collect();
        Tensor::from_vec(values, variable.shape(), variable.device())?
    };
    Ok(variable.set(&value)?)
}
