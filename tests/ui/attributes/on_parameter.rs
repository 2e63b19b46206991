//! Attributes of fields, put on generic parameters.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model<#[quant(skip)] T, #[quant(ignore)] const N: usize> {
    layers: [T; N],
    head: Linear,
}

fn main() {}
