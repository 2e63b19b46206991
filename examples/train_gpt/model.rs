//! The model: a GPT as candle users write it, with `altgrad::nn` for `candle_nn` and one derive per struct.

use altgrad::nn::attention::scaled_dot_product_attention;
use altgrad::nn::{LayerNorm, VarBuilder, layer_norm, ops};
use altgrad::{Linear, Mask, Quantizable, linear};
use candle_core::{Module, Result, Tensor};
use candle_nn::{Embedding, embedding};
use serde::Serialize;

/// Tokens are bytes.
pub(crate) const VOCABULARY: usize = 256;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Config {
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) context: usize,
}

#[derive(Quantizable)]
pub(crate) struct Gpt {
    wte: Embedding,
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
        let lm_head = Linear::new(wte.embeddings().clone(), None);
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

    /// The embedding, which the head shares.
    pub(crate) fn wte(&self) -> &Tensor {
        self.wte.embeddings()
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
        let (batch, time, width) = x.dims3()?;
        let head = width / self.heads;
        let qkv = self.c_attn.forward(x)?.reshape((batch, time, 3, self.heads, head))?;
        let part = |i| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
        let scale = (head as f32).sqrt().recip();
        let y = scaled_dot_product_attention(&part(0)?, &part(1)?, &part(2)?, scale, Mask::Causal)?;
        self.c_proj.forward(&y.transpose(1, 2)?.reshape((batch, time, width))?)
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

#[cfg(test)]
mod tests {
    use altgrad::{Fp8, Quantizable, Recipe};
    use candle_core::{DType, Device, IndexOp, Tensor};
    use candle_nn::{VarBuilder, VarMap};

    use super::{Config, Gpt};

    fn small() -> anyhow::Result<(Gpt, VarMap)> {
        let config = Config { layers: 2, width: 16, heads: 2, context: 8 };
        let variables = VarMap::new();
        let model = Gpt::new(&config, &VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
        crate::weights::initialize(&variables, &config, 1)?;
        Ok((model, variables))
    }

    /// Full precision, a format and every recipe that has a name.
    fn recipes() -> Vec<Option<Recipe>> {
        let named = Recipe::NAMED.iter().map(|(_, named)| Some(named()));
        [None, Some(Fp8::E4M3.into())].into_iter().chain(named).collect()
    }

    #[test]
    fn gradients_reach_every_variable_by_every_recipe() -> anyhow::Result<()> {
        let bytes = Tensor::new(&[[1u32, 2, 3, 4, 5, 6, 7, 8]], &Device::Cpu)?;
        for recipe in recipes() {
            let (mut model, variables) = small()?;
            if let Some(recipe) = recipe {
                model.quantize(recipe)?;
            }
            let grads = model.forward(&bytes)?.i((.., .., 0))?.sqr()?.sum_all()?.backward()?;
            for (name, var) in crate::weights::sorted(&variables) {
                let grad = grads.get(&var).ok_or_else(|| anyhow::anyhow!("no gradient reaches {name}"))?;
                anyhow::ensure!(grad.abs()?.sum_all()?.to_scalar::<f32>()? > 0.0, "the gradient of {name} is zero");
            }
        }
        Ok(())
    }

    #[test]
    fn freezing_changes_no_bit_of_the_logits() -> anyhow::Result<()> {
        let bytes = Tensor::new(&[[1u32, 2, 3, 4, 5, 6, 7, 8]], &Device::Cpu)?;
        for recipe in recipes().into_iter().flatten() {
            let (mut model, _) = small()?;
            model.quantize(recipe)?;
            for _ in 0..2 {
                // What histories remember is part of the model.
                model.forward(&bytes)?;
            }
            model.eval()?;
            let trained = model.forward(&bytes)?.to_vec3::<f32>()?;
            model.freeze()?;
            assert_eq!(model.forward(&bytes)?.to_vec3::<f32>()?, trained);
        }
        Ok(())
    }

    #[test]
    fn nobody_looks_ahead() -> anyhow::Result<()> {
        let (model, _) = small()?;
        let logits = |last: u32| model.forward(&Tensor::new(&[[1u32, 2, 3, last]], &Device::Cpu)?)?.i(0);
        let (a, b) = (logits(4)?.to_vec2::<f32>()?, logits(5)?.to_vec2::<f32>()?);
        assert_eq!(a[..3], b[..3]);
        assert_ne!(a[3], b[3]);
        Ok(())
    }
}
