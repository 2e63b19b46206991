//! A part of one's own that does not derive, in a variant.

use altgrad::{Linear, Quantizable};

struct Dense {
    layer: Linear,
}

#[derive(Quantizable)]
enum Layer {
    Dense(Dense),
    Sparse { experts: [Dense; 4] },
}

fn main() {}
