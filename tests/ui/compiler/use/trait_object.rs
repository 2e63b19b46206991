//! Quantizing through a reference to an object, which has no size.

use altgrad::Quantizable;

fn quantize(model: &mut dyn Quantizable) {
    let _ = model.quantize(altgrad::Fp8::E4M3);
}

fn main() {}
