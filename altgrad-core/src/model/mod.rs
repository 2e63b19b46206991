//! Whole models: finding linear layers by path and replacing them in place.

mod config;
mod impls;
mod inspect;
mod path;
mod pattern;
mod quantizable;
mod report;
mod surgery;
mod visitor;

pub use config::{QuantConfig, Rule, TiePolicy};
pub use path::Path;
pub use quantizable::Quantizable;
pub use report::{Action, LayerReport, QuantReport, SkipReason};
pub use visitor::{Visitor, VisitorMut};
