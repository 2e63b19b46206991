//! Whole models: finds slots by path and replaces them in place.

mod calibrate;
mod config;
mod fault;
mod file;
mod grouped;
mod impls;
mod inspect;
pub(crate) mod names;
mod path;
mod pattern;
mod quantizable;
mod quantized_var_builder;
mod report;
mod rulebook;
mod state;
mod surgery;
mod table;
mod trainable;
mod visit;
mod visitor;

pub use calibrate::{CalibrationConfig, CalibrationReport, IdleLayers, LayerCalibration};
pub use config::{QuantConfig, Rule, TiePolicy};
pub use grouped::GroupedReport;
pub(crate) use inspect::nearest;
pub(crate) use names::natural_order;
pub use path::Path;
pub use quantizable::Quantizable;
pub use quantized_var_builder::QuantizedVarBuilder;
pub use report::{Action, LayerReport, QuantReport, SkipReason};
pub(crate) use rulebook::{LayerFacts, Rulebook};
pub(crate) use table::{Column, human_bytes, shape_text, write_table};
pub use trainable::{Constant, Trainable};
pub use visit::{MapKey, Visit};
pub use visitor::{Visitor, VisitorMut};
