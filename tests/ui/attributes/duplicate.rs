//! An attribute that is there twice, in one list and in two.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(crate = altgrad, crate = ::altgrad)]
struct Model {
    #[quant(skip, skip)]
    one_list: Linear,
    #[quant(rename = "a")]
    #[quant(rename = "b")]
    two_lists: Linear,
}

fn main() {}
