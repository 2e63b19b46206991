//! `None`, which a rule takes, where `skip` is meant.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(recipe = None)]
    layer: Linear,
}

fn main() {}
