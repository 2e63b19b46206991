//! Attributes of fields, put on variants.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
enum Model {
    #[quant(skip)]
    Dense(Linear),
    #[quant(rename = "experts")]
    Sparse { gate: Linear, experts: Vec<Linear> },
    #[quant(ignore)]
    Nothing,
}

fn main() {}
