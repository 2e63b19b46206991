//! The derive without an import.

use altgrad::Linear;

#[derive(Quantizable)]
struct Model {
    #[quant(skip)]
    layer: Linear,
}

fn main() {}
