//! The attribute on a type that does not derive.

use altgrad::Linear;

struct Model {
    #[quant(skip)]
    layer: Linear,
}

fn main() {}
