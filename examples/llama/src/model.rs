//! The model: blocks of attention and MLP between an embedding and a head, all of whose layers can be quantized.

use altgrad::nn::attention::{merge_heads, scaled_dot_product_attention, split_heads};
use altgrad::nn::{Embedding, Linear, RmsNorm, VarBuilder, embedding, linear_b, ops, rms_norm};
use altgrad::{KvCache, Mask, Quantizable};
use candle_core::{Module, Result, Tensor};

use crate::config::{Config, Family};
use crate::rotary::{Angles, Rotary};

/// A model of the LLaMA family. Its layers have the paths of transformers, such as `model.layers.0.mlp.up_proj`.
#[derive(Debug, Quantizable)]
pub struct Llama {
    model: Decoder,
    lm_head: Linear,
    #[quant(ignore)]
    rotary: Rotary,
    #[quant(ignore)]
    config: Config,
}

/// For which tokens logits are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// For all.
    All,
    /// For the last one, which is enough to go on with a text.
    Last,
}

#[derive(Debug, Quantizable)]
struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
}

#[derive(Debug, Quantizable)]
struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

#[derive(Debug, Quantizable)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Qwen3 normalizes queries and keys per head.
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    head_dim: usize,
    #[quant(ignore)]
    mask: Mask,
}

#[derive(Debug, Quantizable)]
#[allow(clippy::struct_field_names, reason = "the names of the checkpoint's tensors")]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Llama {
    /// Builds the model over the tensors of a checkpoint, or over variables. The layers of an FP8 checkpoint keep their
    /// codes.
    pub fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let decoder = vb.pp("model");
        let blocks = decoder.pp("layers");
        let model = Decoder {
            embed_tokens: embedding(config.vocab_size, config.hidden_size, decoder.pp("embed_tokens"))?,
            layers: (0..config.layers).map(|number| Block::new(config, &blocks.pp(number))).collect::<Result<_>>()?,
            norm: rms_norm(config.hidden_size, config.rms_norm_eps, decoder.pp("norm"))?,
        };
        let lm_head = if config.tied_head {
            model.embed_tokens.tied_linear(None)?
        } else {
            linear_b(config.hidden_size, config.vocab_size, false, vb.pp("lm_head"))?
        };
        let rotary = Rotary::new(config, vb.dtype(), vb.device())?;
        Ok(Self { model, lm_head, rotary, config: config.clone() })
    }

    /// What the model was built from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Logits for tokens `(batch, tokens)` that follow those in `caches`, of which there is one for each block, in
    /// order. Gives `(batch, tokens, vocabulary)`, with one token for [`Logits::Last`].
    pub fn forward(&self, tokens: &Tensor, caches: &mut [KvCache], logits: Logits) -> Result<Tensor> {
        // From outside of the thread pool, each of candle's operations would hand its work in and wait to be woken up.
        rayon::scope(|_| self.forward_in_pool(tokens, caches, logits))
    }

    fn forward_in_pool(&self, tokens: &Tensor, caches: &mut [KvCache], logits: Logits) -> Result<Tensor> {
        let Decoder { embed_tokens, layers, norm } = &self.model;
        if caches.len() != layers.len() {
            candle_core::bail!("the model has {} blocks, but there are {} caches", layers.len(), caches.len());
        }
        let (_, count) = tokens.dims2()?;
        let angles = self.rotary.angles(caches.first().map_or(0, KvCache::len), count)?;
        let mut x = embed_tokens.forward(tokens)?;
        for (block, cache) in layers.iter().zip(caches) {
            x = block.forward(&x, &angles, Some(cache))?;
        }
        if logits == Logits::Last {
            x = x.narrow(1, count - 1, 1)?;
        }
        self.lm_head.forward(&norm.forward(&x.contiguous()?)?)
    }

    /// Logits `(batch, tokens, vocabulary)` of whole sequences `(batch, tokens)`, to train with: gradients do not pass
    /// through a cache.
    pub fn forward_without_cache(&self, tokens: &Tensor) -> Result<Tensor> {
        let (_, count) = tokens.dims2()?;
        let angles = self.rotary.angles(0, count)?;
        let mut x = self.model.embed_tokens.forward(tokens)?;
        for block in &self.model.layers {
            x = block.forward(&x, &angles, None)?;
        }
        self.lm_head.forward(&self.model.norm.forward(&x)?)
    }
}

impl Block {
    fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let norm = |name| rms_norm(config.hidden_size, config.rms_norm_eps, vb.pp(name));
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::new(config, &vb.pp("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::new(config, &vb.pp("mlp"))?,
        })
    }

    fn forward(&self, x: &Tensor, angles: &Angles, cache: Option<&mut KvCache>) -> Result<Tensor> {
        let x = (x + self.self_attn.forward(&self.input_layernorm.forward(x)?, angles, cache)?)?;
        &x + self.mlp.forward(&self.post_attention_layernorm.forward(&x)?)?
    }
}

impl Attention {
    fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let &Config { hidden_size, heads, kv_heads, head_dim, rms_norm_eps, attention_bias, .. } = config;
        let of_inputs = |name, heads| linear_b(hidden_size, heads * head_dim, attention_bias.0, vb.pp(name));
        let norm = |name| {
            let has_norm = config.family == Family::Qwen3;
            has_norm.then(|| rms_norm(head_dim, rms_norm_eps, vb.pp(name))).transpose()
        };
        Ok(Self {
            q_proj: of_inputs("q_proj", heads)?,
            k_proj: of_inputs("k_proj", kv_heads)?,
            v_proj: of_inputs("v_proj", kv_heads)?,
            o_proj: linear_b(heads * head_dim, hidden_size, attention_bias.1, vb.pp("o_proj"))?,
            q_norm: norm("q_norm")?,
            k_norm: norm("k_norm")?,
            head_dim,
            mask: config.window.map_or(Mask::Causal, Mask::Window),
        })
    }

    fn forward(&self, x: &Tensor, angles: &Angles, cache: Option<&mut KvCache>) -> Result<Tensor> {
        let split = |x: Tensor| split_heads(&x, x.dims()[2] / self.head_dim);
        let norm = |norm: &Option<RmsNorm>, x: Tensor| norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x));
        let q = norm(&self.q_norm, split(self.q_proj.forward(x)?)?)?;
        let k = norm(&self.k_norm, split(self.k_proj.forward(x)?)?)?;
        let v = split(self.v_proj.forward(x)?)?;
        let (q, k) = (angles.turn(&q)?, angles.turn(&k)?);
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        let y = match cache {
            Some(cache) => {
                cache.append(&k, &v)?;
                cache.attend(&q, scale, self.mask)?
            }
            None => scaled_dot_product_attention(&q, &k, &v, scale as f32, self.mask)?,
        };
        self.o_proj.forward(&merge_heads(&y)?)
    }
}

impl Mlp {
    fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let &Config { hidden_size, intermediate_size, mlp_bias, .. } = config;
        Ok(Self {
            gate_proj: linear_b(hidden_size, intermediate_size, mlp_bias, vb.pp("gate_proj"))?,
            up_proj: linear_b(hidden_size, intermediate_size, mlp_bias, vb.pp("up_proj"))?,
            down_proj: linear_b(intermediate_size, hidden_size, mlp_bias, vb.pp("down_proj"))?,
        })
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down_proj.forward(&ops::silu_mul(&self.gate_proj.forward(x)?, &self.up_proj.forward(x)?)?)
    }
}
