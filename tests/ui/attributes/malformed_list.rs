//! A list that is not one of attributes with commas between them.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant("crate" = altgrad)]
struct Model {
    #[quant("skip")]
    string: Linear,
    #[quant(skip rename = "a")]
    no_comma: Linear,
    #[quant(skip, , flatten)]
    two_commas: Linear,
    #[quant(skip::all)]
    path: Linear,
    #[quant(!skip)]
    negated: Linear,
}

fn main() {}
