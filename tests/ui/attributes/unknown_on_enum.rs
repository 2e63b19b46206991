//! A name that is no attribute, on an enum.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(tag = "type")]
enum Model {
    Dense(Linear),
}

fn main() {}
