//! Values that are not the string that they must be.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(bound = T)]
struct Model<T> {
    #[quant(rename = h)]
    ident: T,
    #[quant(rename = 0)]
    number: Linear,
    #[quant(rename = 'h')]
    char: Linear,
    #[quant(rename = b"h")]
    bytes: Linear,
    #[quant(rename = concat!("h", ".0"))]
    by_macro: Linear,
}

fn main() {}
