//! Several fields at fault: each once.

use altgrad::{Linear, Quantizable};

struct Config;
struct Tokenizer;

#[derive(Quantizable)]
struct Model {
    config: Config,
    tokenizer: Tokenizer,
    head: candle_nn::Linear,
    layer: Linear,
}

fn main() {}
