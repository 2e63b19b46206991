//! A written bound that does not suffice.

use altgrad::Quantizable;

#[derive(Quantizable)]
#[quant(bound = "")]
struct Stack<L> {
    layers: Vec<L>,
}

fn main() {}
