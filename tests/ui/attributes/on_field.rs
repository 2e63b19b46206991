//! Attributes of the struct, put on fields.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model<T> {
    #[quant(crate = altgrad)]
    layer: Linear,
    #[quant(bound = "T: Clone")]
    inner: T,
}

fn main() {}
