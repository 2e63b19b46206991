//! A part of one's own that does not derive.

use altgrad::{Linear, Quantizable};

struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
}

#[derive(Quantizable)]
struct Block {
    attn: Linear,
    mlp: Mlp,
}

fn main() {}
