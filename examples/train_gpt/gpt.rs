//! A GPT as candle users write it, with `altgrad::nn` for `candle_nn` and one derive per struct.

use altgrad::nn::attention::{merge_heads, scaled_dot_product_attention, split_qkv};
use altgrad::nn::{Embedding, LayerNorm, Linear, VarBuilder, embedding, layer_norm, linear, ops};
use altgrad::{Mask, Quantizable};
use candle_core::{Module, Result, Tensor};

use crate::model::{Config, VOCABULARY};

#[derive(Quantizable)]
pub(crate) struct Gpt {
    #[quant(skip)]
    wte: Embedding,
    #[quant(skip)]
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
    #[quant(skip)] // tied to `wte`: stays in full precision
    lm_head: Linear,
}

impl Gpt {
    pub(crate) fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let wte = embedding(VOCABULARY, config.width, vb.pp("wte"))?;
        let wpe = embedding(config.context, config.width, vb.pp("wpe"))?;
        let blocks = (0..config.layers).map(|i| Block::new(config, &vb.pp("h").pp(i)));
        let h = blocks.collect::<Result<_>>()?;
        let ln_f = layer_norm(config.width, 1e-5, vb.pp("ln_f"))?;
        let lm_head = wte.tied_linear(None)?;
        Ok(Self { wte, wpe, h, ln_f, lm_head })
    }

    /// From bytes `(batch, time)` to the logits of the next byte at each position, `(batch, time, VOCABULARY)`.
    pub(crate) fn forward(&self, bytes: &Tensor) -> Result<Tensor> {
        let (_, time) = bytes.dims2()?;
        let positions = Tensor::arange(0, time as u32, bytes.device())?;
        let mut x = self.wte.forward(bytes)?.broadcast_add(&self.wpe.forward(&positions)?)?;
        for block in &self.h {
            x = block.forward(&x)?;
        }
        self.lm_head.forward(&self.ln_f.forward(&x)?)
    }
}

#[derive(Quantizable)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            ln_1: layer_norm(config.width, 1e-5, vb.pp("ln_1"))?,
            attn: Attention::new(config, &vb.pp("attn"))?,
            ln_2: layer_norm(config.width, 1e-5, vb.pp("ln_2"))?,
            mlp: Mlp::new(config, &vb.pp("mlp"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.attn.forward(&self.ln_1.forward(x)?)?)?;
        &x + self.mlp.forward(&self.ln_2.forward(&x)?)?
    }
}

#[derive(Quantizable)]
struct Attention {
    c_attn: Linear,
    c_proj: Linear,
    heads: usize,
}

impl Attention {
    fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let width = config.width;
        Ok(Self {
            c_attn: linear(width, 3 * width, vb.pp("c_attn"))?,
            c_proj: linear(width, width, vb.pp("c_proj"))?,
            heads: config.heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (q, k, v) = split_qkv(&self.c_attn.forward(x)?, self.heads, self.heads)?;
        let scale = (q.dims()[3] as f32).sqrt().recip();
        let y = scaled_dot_product_attention(&q, &k, &v, scale, Mask::Causal)?;
        self.c_proj.forward(&merge_heads(&y)?)
    }
}

#[derive(Quantizable)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
}

impl Mlp {
    fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let width = config.width;
        Ok(Self { c_fc: linear(width, 4 * width, vb.pp("c_fc"))?, c_proj: linear(4 * width, width, vb.pp("c_proj"))? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.c_proj.forward(&ops::gelu(&self.c_fc.forward(x)?)?)
    }
}
