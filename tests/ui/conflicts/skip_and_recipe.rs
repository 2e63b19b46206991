//! A field that is to stay in full precision and to have a recipe.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(skip, recipe = altgrad::Fp8::E3M4)]
    layer: Linear,
}

fn main() {}
