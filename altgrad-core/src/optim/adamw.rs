//! AdamW: its settings and its rule.

use altgrad_kernels::optim as kernels;
use altgrad_kernels::optim::Moment;
use candle_nn::ParamsAdamW;

use super::Moments;
use super::stepper::{Common, Rule, Stepper, check};
use crate::Result;

/// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019). With moments in f32, steps are those
/// of candle's optimizer.
pub type AdamW = Stepper<AdamWConfig>;

/// The settings of [`AdamW`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdamWConfig {
    common: Common,
    betas: [f64; 2],
    eps: f64,
}

impl AdamWConfig {
    /// β = (0.9, 0.999), eps = 1e-8, weight decay 0.01, moments in f32, no clipping: the defaults of PyTorch and of
    /// candle.
    #[must_use]
    pub fn new(learning_rate: f64) -> Self {
        Self { common: Common::new(learning_rate, 0.01), betas: [0.9, 0.999], eps: 1e-8 }
    }

    /// How much of the first and of the second moment each step keeps, both from 0 to below 1.
    #[must_use]
    pub fn betas(self, first: f64, second: f64) -> Self {
        Self { betas: [first, second], ..self }
    }

    /// What is added to the root of the second moment.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// The share of a weight, times the learning rate, that it loses in each step.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.common.weight_decay = weight_decay;
        self
    }

    /// How moments are stored.
    #[must_use]
    pub fn moments(mut self, moments: Moments) -> Self {
        self.common.moments = moments;
        self
    }

    /// Scales the gradients of a step down where the norm of all of them together is larger, as PyTorch's
    /// `clip_grad_norm_` does.
    #[must_use]
    pub fn clip(mut self, largest_norm: f64) -> Self {
        self.common.clip = Some(largest_norm);
        self
    }
}

impl From<ParamsAdamW> for AdamWConfig {
    fn from(params: ParamsAdamW) -> Self {
        let ParamsAdamW { lr, beta1, beta2, eps, weight_decay } = params;
        Self::new(lr).betas(beta1, beta2).eps(eps).weight_decay(weight_decay)
    }
}

impl Rule for AdamWConfig {
    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn moments(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn validate(&self) -> Result<()> {
        check("eps", self.eps, self.eps.is_finite() && self.eps >= 0.0, "a finite number from 0 on")?;
        let [first, second] = self.betas;
        for (setting, beta) in [("the first beta", first), ("the second beta", second)] {
            check(setting, beta, (0.0..1.0).contains(&beta), "at least 0 and below 1")?;
        }
        Ok(())
    }

    fn step(&self, steps: u64, factor: f32, weights: &mut [f32], gradients: &[f32], moments: &mut [Moment]) {
        let Common { learning_rate, weight_decay, .. } = self.common;
        let rule = kernels::AdamW {
            learning_rate: learning_rate as f32,
            decay: (1.0 - learning_rate * weight_decay) as f32,
            betas: self.betas.map(|beta| beta as f32),
            rests: self.betas.map(|beta| (1.0 - beta) as f32),
            corrections: self.betas.map(|beta| (1.0 / (1.0 - beta.powf(steps as f64))) as f32),
            eps: self.eps as f32,
            gradient_factor: factor,
        };
        if let [first, second] = moments {
            kernels::adamw(rule, weights, gradients, first, second);
        }
    }
}
