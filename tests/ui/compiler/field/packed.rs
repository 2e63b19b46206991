//! A layer in a packed struct, which nothing may refer to.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[repr(packed)]
struct Model {
    layer: Linear,
}

fn main() {}
