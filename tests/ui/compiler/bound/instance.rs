//! A generic model of a part that does not implement the trait.

use altgrad::Quantizable;

#[derive(Quantizable)]
struct Stack<L> {
    layers: Vec<L>,
}

fn quantize(stack: &mut Stack<candle_nn::Linear>) {
    let _ = stack.quantize(altgrad::Fp8::E4M3);
}

fn main() {}
