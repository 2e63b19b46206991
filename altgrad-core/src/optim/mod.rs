//! Optimizers that take one pass over memory for a variable, on several threads, with moments in 4, 2 or 1 bytes.
//!
//! They are [`candle_nn::Optimizer`]s. Steps are computed in f32, whatever the dtype of a variable, and rounded to it;
//! on devices other than the CPU, a variable and its gradient are copied there and back. Where variables are given with
//! their paths, errors and saved state name them:
//!
//! ```
//! use altgrad::optim::{AdamW, AdamWConfig, Moments};
//! use altgrad::{Quantizable, Recipe, nn};
//! use candle_core::backprop::GradStore;
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_nn::{Optimizer, VarBuilder, VarMap};
//!
//! let variables = VarMap::new();
//! let mut layer = nn::linear(64, 64, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).pp("layer"))?;
//! layer.quantize(Recipe::tensorwise())?;
//! let config = AdamWConfig::new(1e-3).betas(0.9, 0.95).moments(Moments::E4M3).clip(1.0);
//! let mut optimizer = AdamW::named(altgrad::optim::variables(&variables), config)?;
//! let x = Tensor::randn(0f32, 1.0, (16, 64), &Device::Cpu)?;
//! let mut gradients = GradStore::default();
//! for _ in 0..3 {
//!     altgrad::backward_into(&layer.forward(&x)?.sqr()?.mean_all()?, &mut gradients)?;
//!     optimizer.step(&gradients)?;
//! }
//! let state = optimizer.state()?;                    // named tensors, as `layer.weight.exp_avg`
//! optimizer.load_state(&state)?;
//! # Ok::<(), altgrad::Error>(())
//! ```

mod adamw;
mod moments;
mod sgd;
mod stepper;
mod variables;

pub use adamw::{AdamW, AdamWConfig};
pub use moments::Moments;
pub use sgd::{Sgd, SgdConfig};
pub use stepper::Stepper;
pub use variables::variables;
