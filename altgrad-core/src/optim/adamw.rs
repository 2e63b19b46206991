//! AdamW over the variables of a model.

use std::collections::HashMap;

use altgrad_kernels::optim as kernels;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW};

use super::Moments;
use super::variables::{Variables, check, clip_factor, numbered};
use crate::Result;

/// The names of the moments, which PyTorch gives them.
const NAMES: &[&str] = &["exp_avg", "exp_avg_sq"];

/// The settings of [`AdamW`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdamWConfig {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    moments: Moments,
    clip: Option<f64>,
}

impl AdamWConfig {
    /// β = (0.9, 0.999), eps = 1e-8, weight decay 0.01, moments in f32, no clipping: the defaults of PyTorch and candle.
    #[must_use]
    pub fn new(learning_rate: f64) -> Self {
        let (betas, moments) = ((0.9, 0.999), Moments::F32);
        Self { learning_rate, betas, eps: 1e-8, weight_decay: 0.01, moments, clip: None }
    }

    /// How much of the first and of the second moment each step keeps, both from 0 to below 1.
    #[must_use]
    pub fn betas(self, first: f64, second: f64) -> Self {
        Self { betas: (first, second), ..self }
    }

    /// What is added to the root of the second moment.
    #[must_use]
    pub fn eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// The share of a weight, times the learning rate, that it loses in each step.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }

    /// How moments are stored.
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
        let from_zero = |value: f64| value.is_finite() && value >= 0.0;
        let AdamWConfig { learning_rate, betas, eps, weight_decay, clip, .. } = *self;
        let settings = [("the learning rate", learning_rate), ("eps", eps), ("the weight decay", weight_decay)];
        for (setting, value) in settings {
            check(setting, value, from_zero(value), "a finite number from 0 on")?;
        }
        for (setting, beta) in [("the first beta", betas.0), ("the second beta", betas.1)] {
            check(setting, beta, (0.0..1.0).contains(&beta), "at least 0 and below 1")?;
        }
        clip.map_or(Ok(()), |clip| check("the largest norm", clip, clip > 0.0, "a number above 0"))
    }
}

impl From<ParamsAdamW> for AdamWConfig {
    fn from(params: ParamsAdamW) -> Self {
        let ParamsAdamW { lr, beta1, beta2, eps, weight_decay } = params;
        Self::new(lr).betas(beta1, beta2).eps(eps).weight_decay(weight_decay)
    }
}

/// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).
///
/// With moments in f32, steps are those of candle's optimizer. A variable without a gradient is left alone, and its
/// number of steps does not grow. If a gradient is not finite, the step is an error and changes nothing. A variable that
/// is given several times is stepped once.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    variables: Variables,
    norm: f64,
}

impl AdamW {
    /// An optimizer of variables with paths, such as those of [`variables`](super::variables) or
    /// [`Trainable`](crate::Trainable).
    ///
    /// # Errors
    ///
    /// [`OptimError::InvalidSetting`](crate::OptimError::InvalidSetting).
    pub fn named(variables: impl IntoIterator<Item = (String, Var)>, config: AdamWConfig) -> Result<Self> {
        config.validate()?;
        let moments = config.moments;
        Ok(Self { config, variables: Variables::new(variables, NAMES, |len| moments.zeros(len)), norm: 0.0 })
    }

    /// The norm of all gradients of the last step, before they were clipped.
    #[must_use]
    pub fn gradient_norm(&self) -> f64 {
        self.norm
    }

    /// Bytes of the moments.
    #[must_use]
    pub fn moment_bytes(&self) -> usize {
        self.variables.moment_bytes()
    }

    /// What the optimizer remembers as named tensors: `<path>.step`, `<path>.exp_avg` and `<path>.exp_avg_sq`, and
    /// for moments of codes `<path>.exp_avg_scale` and so on. Settings are not part of it.
    ///
    /// # Errors
    ///
    /// Those of candle.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        self.variables.save()
    }

    /// Takes up the state of an optimizer of the same variables with the same type of moments: steps go on with the
    /// same bits.
    ///
    /// # Errors
    ///
    /// [`OptimError::InvalidState`](crate::OptimError::InvalidState) if a tensor is missing, does not fit or belongs to
    /// no variable; then nothing is changed.
    pub fn load_state(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.variables.load(tensors)
    }

    fn try_step(&mut self, gradients: &GradStore) -> Result<()> {
        let AdamWConfig { learning_rate, betas, eps, weight_decay, clip, .. } = self.config;
        let (gradients, norm) = self.variables.gradients(gradients)?;
        self.norm = norm;
        for (variable, gradient) in self.variables.all.iter_mut().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            variable.steps += 1;
            let steps = variable.steps as f64;
            let betas = [betas.0, betas.1];
            let rule = kernels::AdamW {
                learning_rate: learning_rate as f32,
                decay: (1.0 - learning_rate * weight_decay) as f32,
                betas: betas.map(|beta| beta as f32),
                rests: betas.map(|beta| (1.0 - beta) as f32),
                corrections: betas.map(|beta| (1.0 / (1.0 - beta.powf(steps))) as f32),
                eps: eps as f32,
                gradient_factor: clip_factor(clip, norm),
            };
            variable.update(gradient, |weights, gradients, moments| {
                if let [first, second] = moments {
                    kernels::adamw(rule, weights, gradients, first, second);
                }
            })?;
        }
        Ok(())
    }
}

impl Optimizer for AdamW {
    type Config = AdamWConfig;

    /// As [`named`](Self::named), with the variables' numbers for paths.
    fn new(vars: Vec<Var>, config: AdamWConfig) -> candle_core::Result<Self> {
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
