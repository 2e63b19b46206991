//! A crate without a prelude, in which even `core` and `std` are other modules.

#![no_implicit_prelude]
#![deny(warnings)]
#![allow(dead_code)]

mod core {}
mod std {}
mod altgrad {}

#[derive(::altgrad::Quantizable)]
#[quant(bound = "T: ::altgrad::Quantizable")]
struct Model<T> {
    #[quant(recipe = ::altgrad::Fp8::E4M3)]
    layer: ::altgrad::Linear,
    #[quant(skip, rename = "a.b")]
    part: T,
}

#[derive(::altgrad::Quantizable)]
enum Choice {
    A(::altgrad::Linear),
    B,
}

fn main() {}
