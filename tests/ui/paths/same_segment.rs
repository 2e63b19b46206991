//! Two fields with the same path, by one or two new names.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct FieldAndName {
    c_fc: Linear,
    #[quant(rename = "c_fc")]
    c_proj: Linear,
}

#[derive(Quantizable)]
struct NameAndField {
    #[quant(rename = "c_proj")]
    c_fc: Linear,
    c_proj: Linear,
}

#[derive(Quantizable)]
enum TwoNames {
    Dense {
        #[quant(rename = "mlp.0")]
        up: Linear,
        #[quant(rename = "mlp.0")]
        down: Linear,
    },
}

#[derive(Quantizable)]
struct Tuple(#[quant(rename = "1")] Linear, Linear);

fn main() {}
