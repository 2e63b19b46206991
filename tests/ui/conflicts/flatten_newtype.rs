//! `flatten` where nothing is left to flatten.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Wrapper(#[quant(flatten)] Linear);

#[derive(Quantizable)]
enum Model {
    Dense(#[quant(flatten)] Linear),
}

fn main() {}
