// The README's examples are run by `tests/readme.rs`, so that they need no lines that only a test wants.
#![cfg_attr(not(doctest), doc = include_str!("../README.md"))]

pub use altgrad_core::*;
/// Derives the trait [`trait@Quantizable`] for a model: see the macro's page for the attributes.
pub use altgrad_macros::Quantizable;
