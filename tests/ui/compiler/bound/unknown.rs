//! A written bound that names what does not exist.

use altgrad::Quantizable;

#[derive(Quantizable)]
#[quant(bound = "T: Quantisable")]
struct Stack<T> {
    layers: Vec<T>,
}

fn main() {}
