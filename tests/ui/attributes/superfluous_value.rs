//! Attributes that take no value, with one.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(skip = true)]
    bool: Linear,
    #[quant(ignore("not a layer"))]
    reason: usize,
    #[quant(flatten = "mlp")]
    name: Vec<Linear>,
}

fn main() {}
