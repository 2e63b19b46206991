//! Values that are no path of a module.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(crate = altgrad())]
struct Call {
    layer: Linear,
}

#[derive(Quantizable)]
#[quant(crate = Self::altgrad)]
struct InSelf {
    layer: Linear,
}

#[derive(Quantizable)]
#[quant(crate = Vec<u8>)]
struct Type {
    layer: Linear,
}

#[derive(Quantizable)]
#[quant(crate = ::crate::altgrad)]
struct Misplaced {
    layer: Linear,
}

fn main() {}
