//! Many mistakes in one type: all of them at once, and no error about the type's uses.

use altgrad::{Linear, Quantizable};

#[derive(Quantizable)]
#[quant(skip, crate = "altgrad")]
struct Block<T> {
    #[quant(skp)]
    ln: candle_nn::LayerNorm,
    #[quant(rename)]
    attn: Linear,
    #[quant(ignore, flatten)]
    config: usize,
    #[quant(rename = "ln")]
    mlp: T,
}

#[derive(Quantizable)]
struct Gpt {
    h: Vec<Block<Linear>>,
    lm_head: Linear,
}

fn quantize(model: &mut Gpt) -> altgrad::Result<()> {
    model.quantize(altgrad::Fp8::E4M3)?;
    model.h[0].layer_mut("attn")?;
    model.freeze()?;
    Ok(())
}

fn main() {}
