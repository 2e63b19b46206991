//! Tokens that are no expression.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(recipe = Fp8::)]
    path: Linear,
    #[quant(recipe = + Fp8::E3M4)]
    sign: Linear,
    #[quant(recipe = Fp8::E3M4 Fp8::E4M3)]
    two: Linear,
}

fn main() {}
