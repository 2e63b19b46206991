//! Steps that an optimizer cannot take, and state that it cannot take up.

/// What an optimizer refuses; nothing has been changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// A setting is out of its range.
    #[error("{setting} is {value}, expected {expected}")]
    InvalidSetting {
        /// Its name.
        setting: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },

    /// A gradient holds ∞ or NaN.
    #[error(
        "the gradient of `{path}` holds {value}, so no variable was changed; look for the first layer whose output is \
         not finite, try a smaller learning rate, or clip gradients"
    )]
    NotFiniteGradient {
        /// The variable's path, or its number if variables have no paths.
        path: String,
        /// The first such element.
        value: f32,
    },

    /// A gradient has another shape than its variable.
    #[error("the gradient of `{path}` has the shape {gradient:?}, the variable has {variable:?}")]
    GradientShape {
        /// The variable's path, or its number if variables have no paths.
        path: String,
        /// The gradient's shape.
        gradient: Vec<usize>,
        /// The variable's shape.
        variable: Vec<usize>,
    },

    /// Saved state lacks a tensor, or holds one that does not fit.
    #[error("the state does not fit the optimizer: `{key}` {why}")]
    InvalidState {
        /// The tensor's name.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}
