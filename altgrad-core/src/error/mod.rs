//! The errors of altgrad: every fallible function returns one error type, nested by level.
//!
//! This module knows nothing of higher levels; a dialect, for example, is a name here.

mod checkpoint;
mod config;
mod model;
mod optim;
mod quantizer;
mod tensor;
mod text;

pub use checkpoint::CheckpointError;
pub use config::ConfigError;
pub use model::ModelError;
pub use optim::OptimError;
pub use quantizer::QuantizerError;
pub use tensor::TensorError;
pub(crate) use text::did_you_mean;

use altgrad_kernels::{FormatError, ParseError};

/// What every fallible function of altgrad returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
///
/// Converts from and into [`candle_core::Error`], so `?` works in functions that return either. An error that passes
/// through a function of candle, such as `Module::forward`, is recovered unchanged:
///
/// ```
/// use altgrad::{Error, Fp8, Linear, Quantizable, TensorError};
/// use candle_core::{DType, Device, Module, Tensor};
///
/// let mut model = vec![Linear::new(Tensor::ones((3, 4), DType::F32, &Device::Cpu)?, None)];
/// model.quantize(Fp8::E4M3)?;
/// let through_candle = model[0].forward(&Tensor::ones((2, 5), DType::F32, &Device::Cpu)?).unwrap_err();
/// let Error::Layer { path, source } = Error::from(through_candle) else { panic!("it names the layer") };
/// assert_eq!(path, "0");
/// assert!(matches!(*source, Error::Tensor(TensorError::ShapeMismatch { .. })));
/// # Ok::<(), altgrad::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something went wrong in or with one layer.
    #[error("layer `{path}`: {source}")]
    Layer {
        /// Dotted path of the layer.
        path: String,
        /// What went wrong there.
        source: Box<Error>,
    },

    /// A quantizer of a recipe is invalid.
    #[error("{role}: {source}")]
    Role {
        /// Which one: `weights`, `activations` or `gradients`.
        role: &'static str,
        /// What is wrong with it.
        source: Box<Error>,
    },

    /// A format or a kernel refused something.
    #[error(transparent)]
    Format(#[from] FormatError),

    /// A text is not the name of a format, a recipe or a dialect.
    #[error(transparent)]
    Parse(#[from] ParseError),

    /// Something is wrong with a tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),

    /// Something is wrong with how a model is to be quantized.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// An operation cannot be applied to a model.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// Something is wrong with a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),

    /// An optimizer refused a step or a state.
    #[error(transparent)]
    Optim(#[from] OptimError),

    /// Candle reported an error.
    #[error(transparent)]
    Candle(candle_core::Error),
}

impl Error {
    /// The same error, attributed to one quantizer of a recipe.
    pub(crate) fn of(self, role: &'static str) -> Self {
        Self::Role { role, source: Box::new(self) }
    }

    /// The same error, attributed to the layer at `path`; unchanged if it already names a layer, or if the model is a
    /// single layer, whose path is empty.
    #[must_use]
    pub fn at(self, path: &str) -> Self {
        match self {
            Self::Layer { .. } => self,
            other if path.is_empty() => other,
            other => Self::Layer { path: path.to_owned(), source: Box::new(other) },
        }
    }
}

impl From<candle_core::Error> for Error {
    /// Recovers an error of altgrad that an error of candle carries.
    fn from(error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::Io(error) => match error.downcast::<Self>() {
                Ok(own) => own,
                Err(error) => Self::Candle(candle_core::Error::Io(error)),
            },
            candle_core::Error::WithBacktrace { inner, backtrace } => match Self::from(*inner) {
                Self::Candle(inner) => {
                    Self::Candle(candle_core::Error::WithBacktrace { inner: Box::new(inner), backtrace })
                }
                own => own,
            },
            other => Self::Candle(other),
        }
    }
}

impl From<Error> for candle_core::Error {
    /// Among candle's errors that can carry another error, only `Io` allows recovering it.
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => Self::Io(std::io::Error::other(other)),
        }
    }
}

impl From<QuantizerError> for Error {
    fn from(error: QuantizerError) -> Self {
        Self::Config(ConfigError::InvalidQuantizer(error))
    }
}
