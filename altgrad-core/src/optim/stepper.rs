//! What all optimizers share: the variables, the check of their gradients, and state; the rule is that of the settings.

use std::collections::HashMap;

use altgrad_kernels::optim::Moment;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::Optimizer;

use super::Moments;
use super::variables::{Variables, numbered};
use crate::{OptimError, Result};

/// An optimizer with the rule and the settings of `C`: [`AdamW`](super::AdamW) or [`Sgd`](super::Sgd).
///
/// A variable without a gradient is left alone, and its number of steps does not grow. If a gradient is not finite, or a
/// setting out of its range, the step is an error and changes nothing. A variable that is given several times is stepped
/// once.
#[derive(Clone, Debug)]
pub struct Stepper<C> {
    config: C,
    variables: Variables,
    norm: f64,
}

/// Settings that every rule has.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
    pub(super) moments: Moments,
    pub(super) clip: Option<f64>,
}

/// Settings that have a rule.
pub trait Rule {
    /// The settings that every rule has.
    fn common(&self) -> &Common;

    /// The same, to be changed.
    fn common_mut(&mut self) -> &mut Common;

    /// The names of the moments.
    fn moments(&self) -> &'static [&'static str];

    /// Fails if a setting of this rule alone is out of its range.
    fn validate(&self) -> Result<()>;

    /// Steps the elements of a variable for the `steps`th time, with gradients times `factor`.
    fn step(&self, steps: u64, factor: f32, weights: &mut [f32], gradients: &[f32], moments: &mut [Moment]);
}

impl Common {
    pub(super) fn new(learning_rate: f64, weight_decay: f64) -> Self {
        Self { learning_rate, weight_decay, moments: Moments::F32, clip: None }
    }

    fn validate(&self) -> Result<()> {
        let Self { learning_rate, weight_decay, clip, .. } = *self;
        for (setting, value) in [("the learning rate", learning_rate), ("the weight decay", weight_decay)] {
            check(setting, value, value.is_finite() && value >= 0.0, "a finite number from 0 on")?;
        }
        clip.map_or(Ok(()), |clip| check("the largest norm", clip, clip > 0.0, "a number above 0"))
    }

    /// What gradients are multiplied by for their norm to be at most the limit, as PyTorch's `clip_grad_norm_` has it.
    fn gradient_factor(&self, norm: f64) -> f32 {
        self.clip.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0) as f32)
    }
}

/// The error of a setting that is not in its range.
pub(super) fn check(setting: &'static str, value: f64, is_valid: bool, expected: &'static str) -> Result<()> {
    if is_valid { Ok(()) } else { Err(OptimError::InvalidSetting { setting, value, expected }.into()) }
}

impl<C: Rule> Stepper<C> {
    /// An optimizer of variables with paths, such as those of [`variables`](super::variables) or
    /// [`Trainable`](crate::Trainable).
    ///
    /// # Errors
    ///
    /// [`OptimError::InvalidSetting`].
    pub fn named(variables: impl IntoIterator<Item = (String, Var)>, config: C) -> Result<Self> {
        config.common().validate()?;
        config.validate()?;
        let moments = config.common().moments;
        let variables = Variables::new(variables, config.moments(), |len| moments.zeros(len));
        Ok(Self { config, variables, norm: 0.0 })
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

    /// What the optimizer remembers as named tensors, under the names that PyTorch has for them: `<path>.step`, for
    /// `AdamW` `<path>.exp_avg` and `<path>.exp_avg_sq`, for `Sgd` with momentum `<path>.momentum_buffer`, and with
    /// moments of codes the scales of each, such as `<path>.exp_avg_scale`. Settings are not part of it.
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
    /// [`OptimError::InvalidState`] if a tensor is missing, does not fit or belongs to no variable; then nothing is
    /// changed.
    pub fn load_state(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.variables.load(tensors)
    }

    fn try_step(&mut self, gradients: &GradStore) -> Result<()> {
        // The learning rate may have been set to anything.
        self.config.common().validate()?;
        let (gradients, norm) = self.variables.gradients(gradients)?;
        self.norm = norm;
        let factor = self.config.common().gradient_factor(norm);
        for (variable, gradient) in self.variables.all.iter_mut().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            variable.steps += 1;
            let steps = variable.steps;
            variable.update(gradient, |weights, gradients, moments| {
                self.config.step(steps, factor, weights, gradients, moments);
            })?;
        }
        Ok(())
    }
}

impl<C: Rule> Optimizer for Stepper<C> {
    type Config = C;

    /// As [`named`](Self::named), with the variables' numbers for paths.
    fn new(vars: Vec<Var>, config: C) -> candle_core::Result<Self> {
        Ok(Self::named(numbered(vars), config)?)
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        Ok(self.try_step(gradients)?)
    }

    fn learning_rate(&self) -> f64 {
        self.config.common().learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.config.common_mut().learning_rate = learning_rate;
    }
}
