//! Values in parentheses instead of behind an equals sign.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(crate(altgrad), bound("T: Quantizable"))]
struct Model<T> {
    #[quant(rename("h"))]
    layers: Vec<T>,
    #[quant(recipe(Fp8::E3M4))]
    head: Linear,
}

fn main() {}
