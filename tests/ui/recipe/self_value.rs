//! An expression that needs the model, of which there is none in its scope.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    format: usize,
    #[quant(recipe = self.recipe())]
    layer: Linear,
}

impl Model {
    fn recipe(&self) -> altgrad::Recipe {
        altgrad::Fp8::E4M3.into()
    }
}

fn main() {}
