//! A configuration without `ignore`.

use altgrad::{Linear, Quantizable};

struct Config {
    hidden: usize,
}

#[derive(Quantizable)]
struct Model {
    config: Config,
    layer: Linear,
}

fn main() {}
