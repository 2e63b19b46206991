//! Surgery on a model that does not derive.

use altgrad::{Linear, Quantizable};

struct Model {
    layer: Linear,
}

fn quantize(model: &mut Model) {
    let _ = model.quantize(altgrad::Fp8::E4M3);
    let _ = altgrad::Quantizable::freeze(model);
}

fn main() {}
