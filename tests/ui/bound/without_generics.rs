//! A bound on a type that has nothing to bind.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(bound = "Linear: Quantizable")]
struct Model {
    layer: Linear,
}

fn main() {}
