#![doc = include_str!("../README.md")]

pub use altgrad_core::*;
/// Derives the trait [`trait@Quantizable`] for a model: see the macro's page for the attributes.
pub use altgrad_macros::Quantizable;
