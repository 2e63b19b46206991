//! Candle's own linear layer, which cannot be replaced in place.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Mlp {
    c_fc: Linear,
    c_proj: candle_nn::Linear,
}

fn main() {}
