//! No name, where `flatten` is meant.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(rename = "")]
    layers: Vec<Linear>,
}

fn main() {}
