//! An expression that does not convert into a recipe.

use altgrad::{Fp8, Linear, Quantizable, Specials};

#[derive(Quantizable)]
struct Model {
    #[quant(recipe = Fp8::E3M4.to_string())]
    string: Linear,
    #[quant(recipe = Some(Fp8::E3M4))]
    option: Linear,
    #[quant(recipe = Fp8::new(4, 3, 7, Specials::None))]
    result: Linear,
}

fn main() {}
