//! A union, which does not know what it holds.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
union Model {
    dense: std::mem::ManuallyDrop<Linear>,
    nothing: (),
}

fn main() {}
