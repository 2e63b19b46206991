//! Candle's container of layers, which hides them.

use altgrad::{Linear, Quantizable};
use candle_nn::Sequential;

#[derive(Quantizable)]
struct Model {
    layers: Sequential,
    head: Linear,
}

fn main() {}
