//! Attributes that need a value, without one.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(crate, bound =)]
struct Model<T> {
    #[quant(rename)]
    no_equals: Linear,
    #[quant(rename =)]
    nothing_after_equals: Linear,
    #[quant(recipe, flatten)]
    inner: T,
}

fn main() {}
