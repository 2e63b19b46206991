//! `ignore` beside attributes that concern a visited field.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(ignore, skip)]
    skip: usize,
    #[quant(rename = "h", ignore)]
    rename: usize,
    #[quant(ignore)]
    #[quant(flatten, recipe = Fp8::E3M4)]
    both: usize,
    layer: Linear,
}

fn main() {}
