//! Attributes of fields, put on the struct.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(skip)]
#[quant(recipe = Fp8::E3M4)]
struct Model {
    layer: Linear,
}

fn main() {}
