//! A small GPT with a tied head, as a candle user would write it, and what the tests need around it.

#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "test support; each file uses its own part"
)]

use std::cell::Cell;

use altgrad::{Linear, Quantizable, linear};
use candle_core::{D, DType, Device, IndexOp, Module, Result, Tensor, Var};
use candle_nn::{Embedding, LayerNorm, VarBuilder, VarMap, embedding, layer_norm};

pub const VOCABULARY: usize = 32;
pub const WIDTH: usize = 16;
pub const CONTEXT: usize = 12;
pub const BLOCKS: usize = 2;

#[derive(Quantizable)]
pub struct Attention {
    pub c_attn: Linear,
    pub c_proj: Linear,
}

#[derive(Quantizable)]
pub struct Mlp {
    pub c_fc: Linear,
    pub c_proj: Linear,
}

#[derive(Quantizable)]
pub struct Block {
    pub ln_1: LayerNorm,
    pub attn: Attention,
    pub ln_2: LayerNorm,
    pub mlp: Mlp,
}

#[derive(Quantizable)]
pub struct Gpt {
    pub wte: Embedding,
    pub wpe: Embedding,
    pub h: Vec<Block>,
    pub ln_f: LayerNorm,
    /// Tied to `wte`, which no attribute says.
    pub lm_head: Linear,
}

impl Gpt {
    pub fn new(vb: &VarBuilder<'_>) -> Result<Self> {
        let block = |vb: VarBuilder<'_>| {
            let (attn, mlp) = (vb.pp("attn"), vb.pp("mlp"));
            Ok(Block {
                ln_1: layer_norm(WIDTH, 1e-5, vb.pp("ln_1"))?,
                attn: Attention {
                    c_attn: linear(WIDTH, 3 * WIDTH, attn.pp("c_attn"))?,
                    c_proj: linear(WIDTH, WIDTH, attn.pp("c_proj"))?,
                },
                ln_2: layer_norm(WIDTH, 1e-5, vb.pp("ln_2"))?,
                mlp: Mlp {
                    c_fc: linear(WIDTH, 4 * WIDTH, mlp.pp("c_fc"))?,
                    c_proj: linear(4 * WIDTH, WIDTH, mlp.pp("c_proj"))?,
                },
            })
        };
        let wte = embedding(VOCABULARY, WIDTH, vb.pp("wte"))?;
        Ok(Self {
            wpe: embedding(CONTEXT, WIDTH, vb.pp("wpe"))?,
            h: (0..BLOCKS).map(|index| block(vb.pp("h").pp(index))).collect::<Result<_>>()?,
            ln_f: layer_norm(WIDTH, 1e-5, vb.pp("ln_f"))?,
            lm_head: Linear::new(wte.embeddings().clone(), None),
            wte,
        })
    }

    /// Logits `(batch, time, vocabulary)` of tokens `(batch, time)`.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (_, time) = tokens.dims2()?;
        let positions = Tensor::arange(0, time as u32, tokens.device())?;
        let mut x = self.wte.forward(tokens)?.broadcast_add(&self.wpe.forward(&positions)?)?;
        for block in &self.h {
            x = (&x + block.attend(&norm(&block.ln_1, &x)?)?)?;
            let hidden = block.mlp.c_fc.forward(&norm(&block.ln_2, &x)?)?.gelu()?;
            x = (&x + block.mlp.c_proj.forward(&hidden)?)?;
        }
        self.lm_head.forward(&norm(&self.ln_f, &x)?)
    }

    /// Mean cross-entropy of predicting each next token.
    pub fn loss(&self, tokens: &Tensor) -> Result<Tensor> {
        let time = tokens.dim(1)?;
        let logits = self.forward(&tokens.narrow(1, 0, time - 1)?)?;
        let targets = tokens.narrow(1, 1, time - 1)?.flatten_all()?;
        candle_nn::loss::cross_entropy(&logits.flatten_to(1)?, &targets)
    }
}

impl Block {
    /// Causal attention with one head.
    fn attend(&self, x: &Tensor) -> Result<Tensor> {
        let (_, time, width) = x.dims3()?;
        let qkv = self.attn.c_attn.forward(x)?;
        let [q, k, v] = [0, 1, 2].map(|part| qkv.narrow(D::Minus1, part * width, width)?.contiguous());
        let scores = (q?.matmul(&k?.t()?)? / (width as f64).sqrt())?;
        let mask: Vec<f32> =
            (0..time).flat_map(|i| (0..time).map(move |j| if j > i { f32::NEG_INFINITY } else { 0.0 })).collect();
        let mask = Tensor::from_vec(mask, (time, time), x.device())?.to_dtype(x.dtype())?;
        let weights = candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?;
        self.attn.c_proj.forward(&weights.matmul(&v?)?)
    }
}

/// Layer normalization of which every step has a backward pass.
fn norm(layer: &LayerNorm, x: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let scaled = centred.broadcast_div(&(variance + 1e-5)?.sqrt()?)?.broadcast_mul(layer.weight())?;
    match layer.bias() {
        Some(bias) => scaled.broadcast_add(bias),
        None => Ok(scaled),
    }
}

/// A reproducible stream of numbers, uniform in [-1, 1): the same on every machine.
pub struct Numbers(Cell<u64>);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub fn next(&self) -> f32 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let mut bits = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn tensor(&self, shape: impl Into<candle_core::Shape>) -> Tensor {
        let shape = shape.into();
        let values: Vec<f32> = (0..shape.elem_count()).map(|_| self.next()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }
}

/// A GPT of reproducible weights with its variables.
pub fn gpt(dtype: DType, seed: u64) -> (Gpt, VarMap) {
    let variables = VarMap::new();
    let model = Gpt::new(&VarBuilder::from_varmap(&variables, dtype, &Device::Cpu)).unwrap();
    let numbers = Numbers::new(seed);
    for (name, variable) in sorted(&variables) {
        let is_norm_weight = name.contains("ln_") && name.ends_with("weight");
        let value = if is_norm_weight {
            Tensor::ones(variable.shape(), DType::F32, &Device::Cpu)
        } else {
            numbers.tensor(variable.shape()) * 0.2
        };
        variable.set(&value.unwrap().to_dtype(dtype).unwrap()).unwrap();
    }
    (model, variables)
}

/// The variables by name, in the order of their names.
pub fn sorted(variables: &VarMap) -> Vec<(String, Var)> {
    let mut entries: Vec<_> =
        variables.data().lock().unwrap().iter().map(|(name, variable)| (name.clone(), variable.clone())).collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries
}

/// Tokens `(batch, time)` of a repeating text that a small model can learn.
pub fn tokens(batch: usize, time: usize, offset: usize) -> Tensor {
    let text = b"the quick brown fox jumps over the lazy dog and runs away ";
    let values: Vec<u32> = (0..batch * time)
        .map(|index| {
            let (row, column) = (index / time, index % time);
            u32::from(text[(offset + 7 * row + column) % text.len()]) % VOCABULARY as u32
        })
        .collect();
    Tensor::from_vec(values, (batch, time), &Device::Cpu).unwrap()
}

/// All elements as `f64`, for exact comparison of any dtype.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The first element.
pub fn first(tensor: &Tensor) -> f64 {
    tensor.flatten_all().unwrap().i(0).unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}
