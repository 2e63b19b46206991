//! An expression does not see the variables of the expansion.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
struct Model {
    #[quant(recipe = __path.recipe().unwrap().clone())]
    struct_field: Linear,
}

#[derive(Quantizable)]
enum Choice {
    A(Linear, #[quant(recipe = __field0.format())] Linear),
}

fn main() {}
