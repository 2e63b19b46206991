//! How fast is a whole model? A LLaMA in FP8 against full precision and candle's `quantized_llama` in `Q8_0`: reading a
//! prompt (prefill) and generating (decode).
//!
//! `cargo bench --bench llama -- 135M` measures the models with that in their names. `llama_peers.py` measures
//! llama.cpp and PyTorch.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::io::Cursor;
use std::rc::Rc;
use std::time::Instant;

use altgrad::kernels::Level;
use altgrad::{Compute, Fp8, Granularity, KvCache, QuantConfig, Quantizable, Quantizer, Recipe, TiePolicy};
use altgrad_llama::{Config, Llama, Logits};
use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::quantized_llama::ModelWeights;
use rayon::prelude::*;

const PROMPT: usize = 256;
const GENERATED: usize = 64;
const ROUNDS: usize = 3;

/// Shapes of published models.
const MODELS: [(&str, &str); 2] = [
    (
        "SmolLM2-135M",
        r#"{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "rms_norm_eps": 1e-5,
            "rope_theta": 100000, "max_position_embeddings": 8192, "tie_word_embeddings": true}"#,
    ),
    (
        "LLaMA-3.2-1B",
        r#"{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "rms_norm_eps": 1e-5,
            "rope_theta": 500000, "max_position_embeddings": 131072, "tie_word_embeddings": true}"#,
    ),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let bandwidth = bandwidth();
    println!("instruction set {}, memory {:.1} GB/s", Level::detect(), bandwidth / 1e9);
    for (name, config) in MODELS {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part)) {
            compare(name, &Config::from_json(config).unwrap(), bandwidth);
        }
    }
}

/// Lets the contestants take turns, and prints the medians of their rates.
fn compare(name: &str, config: &Config, bandwidth: f64) {
    let weights = Weights::random(config);
    let elements: usize = weights.0.iter().map(|weight| weight.tensor.elem_count()).sum();
    let full = Rc::new(RefCell::new(weights.full(config)));
    let (frozen, of_frozen) = resident(|| Rc::new(RefCell::new(weights.frozen(config))));
    let (q8_0, of_q8_0) = resident(|| weights.q8_0(config));
    drop(weights);
    let slots = |model: &Rc<RefCell<Llama>>, compute, cache| Box::new(Slots::new(model.clone(), compute, cache));
    let in_fp8 = KvCache::new(Fp8::E4M3).unwrap();
    let full_cache = KvCache::full_precision;
    let mut contestants: Vec<(&str, usize, Box<dyn Contestant>)> = vec![
        ("E4M3", of_frozen, slots(&frozen, Some(Compute::Full), full_cache())),
        ("E4M3, E4M3 cache", of_frozen, slots(&frozen, Some(Compute::Full), in_fp8)),
        ("E4M3, bf16 activations", of_frozen, slots(&frozen, Some(Compute::Bf16Activations), full_cache())),
        ("full precision", 4 * elements, slots(&full, None, full_cache())),
        ("candle Q8_0", of_q8_0, Box::new(Candle(q8_0))),
    ];
    let mut rates = vec![(Vec::new(), Vec::new()); contestants.len()];
    for round in 0..=ROUNDS {
        for ((_, _, contestant), (prefill, decode)) in contestants.iter_mut().zip(&mut rates) {
            let measured = run(contestant.as_mut(), config);
            // The first round warms caches and clocks.
            if round > 0 {
                prefill.push(measured.0);
                decode.push(measured.1);
            }
        }
    }
    println!("{name}: prefill of {PROMPT} and decode of {GENERATED}, tokens/s");
    let medians: Vec<(f64, f64)> =
        rates.into_iter().map(|(prefill, decode)| (median(prefill), median(decode))).collect();
    for ((what, bytes, contestant), (prefill, decode)) in contestants.iter().zip(&medians) {
        let (first, read) = (medians[0], contestant.bytes_per_element() * elements as f64);
        println!(
            "  {what:24} prefill {prefill:7.1}, ratio {:5.2}×; decode {decode:6.1}, ratio {:5.2}×, {:3.0} % of the \
             memory bandwidth; resident {:7.1} MB",
            first.0 / prefill,
            first.1 / decode,
            100.0 * read * decode / bandwidth,
            *bytes as f64 / 1e6,
        );
    }
}

/// Tokens per second of prefill and decode.
fn run(contestant: &mut dyn Contestant, config: &Config) -> (f64, f64) {
    let token = |place: usize| (place * 7919 % config.vocab_size) as u32;
    let tokens = |places: std::ops::Range<usize>| {
        Tensor::from_iter(places.map(token), &Device::Cpu).unwrap().unsqueeze(0).unwrap()
    };
    contestant.clear();
    let start = Instant::now();
    black_box(contestant.forward(&tokens(0..PROMPT), 0));
    let prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for place in PROMPT..PROMPT + GENERATED {
        black_box(contestant.forward(&tokens(place..place + 1), place));
    }
    (PROMPT as f64 / prefill, GENERATED as f64 / start.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A model that can be measured.
trait Contestant {
    /// Forgets all tokens.
    fn clear(&mut self);
    /// The logits of the last of some tokens that follow `past` others.
    fn forward(&mut self, tokens: &Tensor, past: usize) -> Tensor;
    /// Bytes that are read for each element of a weight when a token is generated.
    fn bytes_per_element(&self) -> f64;
}

/// The example's model, which several contestants may share.
struct Slots {
    model: Rc<RefCell<Llama>>,
    compute: Option<Compute>,
    empty: KvCache,
    caches: Vec<KvCache>,
}

impl Slots {
    fn new(model: Rc<RefCell<Llama>>, compute: Option<Compute>, empty: KvCache) -> Self {
        Self { model, compute, empty, caches: Vec::new() }
    }
}

impl Contestant for Slots {
    fn clear(&mut self) {
        let mut model = self.model.borrow_mut();
        if let Some(compute) = self.compute {
            model.set_compute(compute).unwrap();
        }
        self.caches = vec![self.empty.clone(); model.config().layers];
    }

    fn forward(&mut self, tokens: &Tensor, _: usize) -> Tensor {
        self.model.borrow().forward(tokens, &mut self.caches, Logits::Last).unwrap()
    }

    fn bytes_per_element(&self) -> f64 {
        if self.compute.is_some() { 1.0 } else { 4.0 }
    }
}

struct Candle(ModelWeights);

impl Contestant for Candle {
    fn clear(&mut self) {
        self.0.clear_kv_cache();
    }

    fn forward(&mut self, tokens: &Tensor, past: usize) -> Tensor {
        self.0.forward(tokens, past).unwrap()
    }

    fn bytes_per_element(&self) -> f64 {
        34.0 / 32.0
    }
}

/// Random weights of a model.
struct Weights(Vec<Weight>);

struct Weight {
    /// In a hub folder, and in a GGUF file.
    names: (String, String),
    tensor: Tensor,
}

impl Weights {
    fn random(config: &Config) -> Self {
        let noise = Tensor::randn(0f32, 0.02, 1 << 20, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        let mut weights = Vec::new();
        let mut add = |hub: String, gguf: String, dims: &[usize]| {
            let count = dims.iter().product();
            // Norms are near one; matrices begin at different places of the noise.
            let values = match dims {
                [_] => vec![1.0; count],
                _ => noise.iter().cycle().skip(weights.len() * 4099 % noise.len()).take(count).copied().collect(),
            };
            let tensor = Tensor::from_vec(values, dims, &Device::Cpu).unwrap();
            weights.push(Weight { names: (format!("{hub}.weight"), format!("{gguf}.weight")), tensor });
        };
        let &Config { hidden_size, intermediate_size, vocab_size, .. } = config;
        let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        add("model.embed_tokens".into(), "token_embd".into(), &[vocab_size, hidden_size]);
        add("model.norm".into(), "output_norm".into(), &[hidden_size]);
        for layer in 0..config.layers {
            for (hub, gguf, dims) in [
                ("self_attn.q_proj", "attn_q", &[queries, hidden_size] as &[usize]),
                ("self_attn.k_proj", "attn_k", &[keys, hidden_size]),
                ("self_attn.v_proj", "attn_v", &[keys, hidden_size]),
                ("self_attn.o_proj", "attn_output", &[hidden_size, queries]),
                ("mlp.gate_proj", "ffn_gate", &[intermediate_size, hidden_size]),
                ("mlp.up_proj", "ffn_up", &[intermediate_size, hidden_size]),
                ("mlp.down_proj", "ffn_down", &[hidden_size, intermediate_size]),
                ("input_layernorm", "attn_norm", &[hidden_size]),
                ("post_attention_layernorm", "ffn_norm", &[hidden_size]),
            ] {
                add(format!("model.layers.{layer}.{hub}"), format!("blk.{layer}.{gguf}"), dims);
            }
        }
        Self(weights)
    }

    fn full(&self, config: &Config) -> Llama {
        let tensors: HashMap<_, _> =
            self.0.iter().map(|weight| (weight.names.0.clone(), weight.tensor.clone())).collect();
        Llama::new(config, &VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap()
    }

    /// One scale per row; embedding and head are one table.
    fn frozen(&self, config: &Config) -> Llama {
        let mut model = self.full(config);
        let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
        model.quantize(QuantConfig::new(Recipe::weight_only(rows)).ties(TiePolicy::Quantize)).unwrap();
        model.freeze().unwrap();
        model.eval().unwrap();
        model
    }

    fn q8_0(&self, config: &Config) -> ModelWeights {
        let tensors: Vec<QTensor> = self.0.par_iter().map(Weight::q8_0).collect();
        let tensors: Vec<(&str, &QTensor)> =
            self.0.iter().map(|weight| weight.names.1.as_str()).zip(&tensors).collect();
        let count = |count: usize| Value::U32(count as u32);
        let metadata = [
            ("general.architecture", Value::String("llama".into())),
            ("llama.attention.head_count", count(config.heads)),
            ("llama.attention.head_count_kv", count(config.kv_heads)),
            ("llama.block_count", count(config.layers)),
            ("llama.embedding_length", count(config.hidden_size)),
            ("llama.rope.dimension_count", count(config.head_dim)),
            ("llama.rope.freq_base", Value::F32(config.rope.theta as f32)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32)),
        ];
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (*name, value)).collect();
        let mut file = Cursor::new(Vec::new());
        gguf_file::write(&mut file, &metadata, &tensors).unwrap();
        file.set_position(0);
        let content = Content::read(&mut file).unwrap();
        ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap()
    }
}

impl Weight {
    fn q8_0(&self) -> QTensor {
        let dtype = if self.tensor.rank() == 1 { GgmlDType::F32 } else { GgmlDType::Q8_0 };
        QTensor::quantize(&self.tensor, dtype).unwrap()
    }
}

/// What a function makes, and by how much it raised the resident memory of the process; 0 where the system does not
/// say.
fn resident<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let pages = || fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<usize>().ok();
    let before = pages();
    let result = make();
    let pages = before.zip(pages()).map_or(0, |(before, after)| after.saturating_sub(before));
    (result, pages * 4096)
}

/// Bytes per second of reading memory with all threads.
fn bandwidth() -> f64 {
    let bytes = 512 << 20;
    let buffer: Vec<u64> = (0..bytes as u64 / 8).collect();
    let part = buffer.len().div_ceil(rayon::current_num_threads());
    let rate = |()| {
        let start = Instant::now();
        let sum: u64 = buffer.par_chunks(part).map(|part| part.iter().fold(0, |sum, word| sum ^ word)).sum();
        black_box(sum);
        bytes as f64 / start.elapsed().as_secs_f64()
    };
    [(); 10].map(rate).into_iter().fold(0.0, f64::max)
}
