//! Gradient descent: its settings and its rule.

use altgrad_kernels::optim as kernels;
use altgrad_kernels::optim::Moment;

use super::Moments;
use super::stepper::{Common, Rule, Stepper, check};
use crate::Result;

/// Stochastic gradient descent by the rules of PyTorch's `SGD` without dampening.
pub type Sgd = Stepper<SgdConfig>;

/// The settings of [`Sgd`].
#[derive(Clone, Debug, PartialEq)]
pub struct SgdConfig {
    common: Common,
    momentum: f64,
    nesterov: bool,
}

impl SgdConfig {
    /// No momentum, no weight decay, no clipping: the defaults of PyTorch.
    #[must_use]
    pub fn new(learning_rate: f64) -> Self {
        Self { common: Common::new(learning_rate, 0.0), momentum: 0.0, nesterov: false }
    }

    /// How much of the velocity each step keeps, from 0 to below 1.
    #[must_use]
    pub fn momentum(self, momentum: f64) -> Self {
        Self { momentum, ..self }
    }

    /// Whether updates look ahead along the velocity (Nesterov).
    #[must_use]
    pub fn nesterov(self, nesterov: bool) -> Self {
        Self { nesterov, ..self }
    }

    /// The share of a weight that is added to its gradient.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.common.weight_decay = weight_decay;
        self
    }

    /// How velocities are stored.
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

impl Rule for SgdConfig {
    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn moments(&self) -> &'static [&'static str] {
        if self.momentum > 0.0 { &["momentum_buffer"] } else { &[] }
    }

    fn validate(&self) -> Result<()> {
        check("the momentum", self.momentum, (0.0..1.0).contains(&self.momentum), "at least 0 and below 1")
    }

    fn step(&self, _: u64, factor: f32, weights: &mut [f32], gradients: &[f32], moments: &mut [Moment]) {
        let rule = kernels::Sgd {
            learning_rate: self.common.learning_rate as f32,
            weight_decay: self.common.weight_decay as f32,
            momentum: self.momentum as f32,
            nesterov: self.nesterov,
            gradient_factor: factor,
        };
        kernels::sgd(rule, weights, gradients, moments.first_mut());
    }
}
