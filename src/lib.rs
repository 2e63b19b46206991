//! Facade.

pub use altgrad_core::*;
pub use altgrad_macros::Quantizable;
