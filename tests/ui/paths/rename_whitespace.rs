//! A name with whitespace in it.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(rename = "c fc")]
    inside: Linear,
    #[quant(rename = " c_fc")]
    before: Linear,
}

fn main() {}
