//! A format as text or as a number instead of a value.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(recipe = "Fp8::E3M4")]
    quoted: Linear,
    #[quant(recipe = "E3M4")]
    name: Linear,
    #[quant(recipe = 8)]
    bits: Linear,
    #[quant(recipe = false)]
    bool: Linear,
}

fn main() {}
