//! Text that is no where predicate.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(bound = "T")]
struct Parameter<T> {
    inner: T,
    head: Linear,
}

#[derive(Quantizable)]
#[quant(bound = "where T: Quantizable")]
struct Where<T> {
    inner: T,
}

#[derive(Quantizable)]
#[quant(bound = "[T")]
struct Bracket<T> {
    inner: T,
}

#[derive(Quantizable)]
#[quant(bound = "T: Quantizable; U: Quantizable")]
struct Semicolon<T, U> {
    t: T,
    u: U,
}

fn main() {}
