//! An attribute of fields, put on the enum.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(ignore)]
enum Model {
    Dense(Linear),
}

fn main() {}
