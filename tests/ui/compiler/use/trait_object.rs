//! An object of the trait with generic methods.

use altgrad::Quantizable;

fn freeze(model: &mut dyn Quantizable) {
    let _ = model.freeze();
}

fn main() {}
