//! A path in quotes, as serde takes it.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(crate = "my_framework::altgrad")]
struct Model {
    layer: Linear,
}

fn main() {}
