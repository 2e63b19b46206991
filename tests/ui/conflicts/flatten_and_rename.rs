//! A field that is to add no segment and one of another name.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(rename = "h", flatten)]
    layers: Vec<Linear>,
}

fn main() {}
