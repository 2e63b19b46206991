//! A name that is not in scope, and a format that does not exist.

use altgrad::{Fp8, Linear, Quantizable};

mod without_import {
    #[derive(altgrad::Quantizable)]
    struct Model {
        #[quant(recipe = Fp8::E4M3)]
        layer: altgrad::Linear,
    }
}

#[derive(Quantizable)]
struct Model {
    #[quant(recipe = Fp8::E4M4)]
    layer: Linear,
    #[quant(recipe = Fp8::e4m3())]
    function: Linear,
}

fn main() {}
