//! An attribute without a list, with an empty one, with a value in its place.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant]
struct Model {
    #[quant]
    bare: Linear,
    #[quant()]
    empty: Linear,
    #[quant = "skip"]
    value: Linear,
}

fn main() {}
