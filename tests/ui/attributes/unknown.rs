//! Names that are no attributes: misspelt, borrowed from other derives, invented.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(krate = altgrad, rename_all = "snake_case")]
struct Model {
    #[quant(skp)]
    misspelt: Linear,
    #[quant(skipped)]
    inflected: Linear,
    #[quant(name = "h")]
    abbreviated: Linear,
    #[quant(freeze)]
    invented: Linear,
    #[quant(default = "Linear::zeros")]
    from_serde: Linear,
}

fn main() {}
