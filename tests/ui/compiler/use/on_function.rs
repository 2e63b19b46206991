//! The derive on something that is no type.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
fn model() -> Linear {
    unimplemented!()
}

fn main() {}
