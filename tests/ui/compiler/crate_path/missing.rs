//! A path at which there is nothing.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(crate = my_framework::altgrad)]
struct Model {
    layer: Linear,
}

fn main() {}
