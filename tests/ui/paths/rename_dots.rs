//! Names with segments that are empty.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(rename = ".h")]
    leading: Linear,
    #[quant(rename = "h.")]
    trailing: Linear,
    #[quant(rename = "h..0")]
    twice: Linear,
}

fn main() {}
