//! A part of one's own that does not derive, in a container.

use altgrad::{Linear, Quantizable};

struct Block {
    attn: Linear,
}

#[derive(Quantizable)]
struct Gpt {
    h: Vec<Block>,
    last: Option<Box<Block>>,
}

fn main() {}
