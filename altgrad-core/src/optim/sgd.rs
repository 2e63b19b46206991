//! Gradient descent over the variables of a model.

use std::collections::HashMap;

use altgrad_kernels::optim as kernels;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::Optimizer;

use super::Moments;
use super::variables::{Variables, check, clip_factor, numbered};
use crate::Result;

/// The settings of [`Sgd`].
#[derive(Clone, Debug, PartialEq)]
pub struct SgdConfig {
    learning_rate: f64,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    moments: Moments,
    clip: Option<f64>,
}

impl SgdConfig {
    /// No momentum, no weight decay, no clipping: the defaults of PyTorch.
    #[must_use]
    pub fn new(learning_rate: f64) -> Self {
        let moments = Moments::F32;
        Self { learning_rate, momentum: 0.0, nesterov: false, weight_decay: 0.0, moments, clip: None }
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
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }

    /// How velocities are stored.
    #[must_use]
    pub fn moments(self, moments: Moments) -> Self {
        Self { moments, ..self }
    }

    /// Scales the gradients of a step down where the norm of all of them together is larger, as PyTorch's
    /// `clip_grad_norm_` does.
    #[must_use]
    pub fn clip(self, largest_norm: f64) -> Self {
        Self { clip: Some(largest_norm), ..self }
    }

    fn validate(&self) -> Result<()> {
        let SgdConfig { learning_rate, momentum, weight_decay, clip, .. } = *self;
        for (setting, value) in [("the learning rate", learning_rate), ("the weight decay", weight_decay)] {
            check(setting, value, value.is_finite() && value >= 0.0, "a finite number from 0 on")?;
        }
        check("the momentum", momentum, (0.0..1.0).contains(&momentum), "at least 0 and below 1")?;
        clip.map_or(Ok(()), |clip| check("the largest norm", clip, clip > 0.0, "a number above 0"))
    }
}

/// Stochastic gradient descent by the rules of PyTorch's `SGD` without dampening; a variable without a gradient is left
/// alone. If a gradient is not finite, the step is an error and changes nothing.
#[derive(Clone, Debug)]
pub struct Sgd {
    config: SgdConfig,
    variables: Variables,
    norm: f64,
}

impl Sgd {
    /// An optimizer of variables with paths, such as those of [`variables`](super::variables) or
    /// [`Trainable`](crate::Trainable).
    ///
    /// # Errors
    ///
    /// [`OptimError::InvalidSetting`](crate::OptimError::InvalidSetting).
    pub fn named(variables: impl IntoIterator<Item = (String, Var)>, config: SgdConfig) -> Result<Self> {
        config.validate()?;
        let (moments, names): (_, &[&str]) =
            (config.moments, if config.momentum > 0.0 { &["momentum_buffer"] } else { &[] });
        Ok(Self { config, variables: Variables::new(variables, names, |len| moments.zeros(len)), norm: 0.0 })
    }

    /// The norm of all gradients of the last step, before they were clipped.
    #[must_use]
    pub fn gradient_norm(&self) -> f64 {
        self.norm
    }

    /// Bytes of the velocities.
    #[must_use]
    pub fn moment_bytes(&self) -> usize {
        self.variables.moment_bytes()
    }

    /// What the optimizer remembers as named tensors: `<path>.step` and `<path>.momentum_buffer`.
    ///
    /// # Errors
    ///
    /// Those of candle.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        self.variables.save()
    }

    /// Takes up the state of an optimizer of the same variables: steps go on with the same bits.
    ///
    /// # Errors
    ///
    /// [`OptimError::InvalidState`](crate::OptimError::InvalidState) if a tensor is missing, does not fit or belongs to
    /// no variable; then nothing is changed.
    pub fn load_state(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.variables.load(tensors)
    }

    fn try_step(&mut self, gradients: &GradStore) -> Result<()> {
        let (gradients, norm) = self.variables.gradients(gradients)?;
        self.norm = norm;
        let rule = kernels::Sgd {
            learning_rate: self.config.learning_rate as f32,
            weight_decay: self.config.weight_decay as f32,
            momentum: self.config.momentum as f32,
            nesterov: self.config.nesterov,
            gradient_factor: clip_factor(self.config.clip, norm),
        };
        for (variable, gradient) in self.variables.all.iter_mut().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            variable.steps += 1;
            variable.update(gradient, |weights, gradients, moments| {
                kernels::sgd(rule, weights, gradients, moments.first_mut());
            })?;
        }
        Ok(())
    }
}

impl Optimizer for Sgd {
    type Config = SgdConfig;

    /// As [`named`](Self::named), with the variables' numbers for paths.
    fn new(vars: Vec<Var>, config: SgdConfig) -> candle_core::Result<Self> {
        Ok(Self::named(numbered(vars), config)?)
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        Ok(self.try_step(gradients)?)
    }

    fn learning_rate(&self) -> f64 {
        self.config.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.config.learning_rate = learning_rate;
    }
}
