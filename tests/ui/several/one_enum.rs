//! Many mistakes in one enum, in all places.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(rename = "h")]
enum Layer {
    #[quant(flatten)]
    Dense(#[quant(flatten)] Linear),
    Sparse {
        #[quant(skip, recipe = Fp8::E3M4)]
        gate: Linear,
        #[quant(bound = "")]
        experts: Vec<Linear>,
    },
    Shared(Linear, #[quant(rename = "0")] Linear, #[quant(skip = 1)] Linear),
}

fn layers(layer: &Layer) -> altgrad::Result<usize> {
    Ok(layer.layers()?.len())
}

fn main() {}
