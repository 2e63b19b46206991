//! What a model gets cannot be overridden.

use altgrad::{Linear, QuantReport, Quantizable, Result};

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
