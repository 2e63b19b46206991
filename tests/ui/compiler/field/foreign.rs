//! Fields of others' types without `ignore`.

use altgrad::{Linear, Quantizable};
use candle_core::Tensor;

#[derive(Quantizable)]
struct Model {
    started: std::time::Instant,
    activation: fn(&Tensor) -> candle_core::Result<Tensor>,
    variables: candle_nn::VarMap,
    layer: Linear,
}

fn main() {}
