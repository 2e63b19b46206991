//! What a model gets cannot be overridden.

use altgrad::{Linear, Quantizable, Result};
use altgrad::report::QuantReport;

#[derive(Quantizable)]
struct Model {
    layer: Linear,
}

impl Quantizable for Model {
    fn freeze(&mut self) -> Result<QuantReport> {
        todo!()
    }
}

fn main() {}
