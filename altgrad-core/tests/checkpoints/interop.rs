//! Checkpoints for `interop/read_back.py`: a small LLaMA in each dialect that is written, with the values to be read
//! back.

use std::collections::HashMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use altgrad_core::checkpoint::{Checkpoint, Dialect, Writer};
use altgrad_core::visit::{Path, Visit, Visitor, VisitorMut};
use altgrad_core::{
    E8M0Rule, Fp8, Granularity, Linear, Quantizable, Quantizer, Recipe, Result, ScaleEncoding, Scaling,
};
use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::{Layers, quantized, weight};

const HIDDEN: usize = 64;
const INTERMEDIATE: usize = 160;
const VOCABULARY: usize = 32;

/// A LLaMA of one block.
struct Llama {
    layers: Layers,
    tensors: Vec<(&'static str, Tensor)>,
}

impl Llama {
    fn new(recipe: &Recipe) -> Self {
        let linear = |name, outputs, inputs, seed| {
            let Linear::Quantized(layer) = quantized(outputs, inputs, seed, recipe.clone()) else { unreachable!() };
            let without_bias = candle_nn::Linear::new(layer.weight().clone(), None);
            let mut layer = Linear::from(without_bias);
            layer.quantize(recipe.clone()).unwrap();
            (name, layer)
        };
        let layers = Layers::from([
            linear("model.layers.0.self_attn.q_proj", HIDDEN, HIDDEN, 1),
            linear("model.layers.0.self_attn.k_proj", HIDDEN / 2, HIDDEN, 2),
            linear("model.layers.0.self_attn.v_proj", HIDDEN / 2, HIDDEN, 3),
            linear("model.layers.0.self_attn.o_proj", HIDDEN, HIDDEN, 4),
            linear("model.layers.0.mlp.gate_proj", INTERMEDIATE, HIDDEN, 5),
            linear("model.layers.0.mlp.up_proj", INTERMEDIATE, HIDDEN, 6),
            linear("model.layers.0.mlp.down_proj", HIDDEN, INTERMEDIATE, 7),
            ("lm_head", candle_nn::Linear::new(weight(VOCABULARY, HIDDEN, 8), None).into()),
        ]);
        let norm = Tensor::ones(HIDDEN, DType::F32, &Device::Cpu).unwrap();
        let tensors = vec![
            ("model.embed_tokens.weight", weight(VOCABULARY, HIDDEN, 9)),
            ("model.layers.0.input_layernorm.weight", norm.copy().unwrap()),
            ("model.layers.0.post_attention_layernorm.weight", norm.copy().unwrap()),
            ("model.norm.weight", norm),
        ];
        Self { layers, tensors }
    }
}

impl Visit for Llama {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        for (name, tensor) in &self.tensors {
            visitor.tensor(&path.field(name), tensor)?;
        }
        self.layers.visit(path, visitor)
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        for (name, tensor) in &self.tensors {
            visitor.tensor(&path.field(name), tensor)?;
        }
        self.layers.visit_mut(path, visitor)
    }
}

fn config() -> serde_json::Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": false,
    })
}

/// Every way to quantize that a dialect of another library has.
fn cases() -> Vec<(&'static str, Dialect, Recipe)> {
    let block = |rows, cols| Granularity::PerBlock { rows, cols };
    let e4m3 = |granularity| Quantizer::new(Fp8::E4M3).granularity(granularity).scaling(Scaling::Current);
    let fixed = || e4m3(Granularity::PerTensor).scaling(Scaling::Static(0.013));
    let mx = |rule| e4m3(block(1, 32)).scale_encoding(ScaleEncoding::E8M0(rule));
    let both = |weights: Quantizer, inputs: Quantizer| Recipe::weight_only(weights).activations(inputs);
    let (tensor, row) = (Granularity::PerTensor, Granularity::PerRow);
    let ct = Dialect::CompressedTensors;
    vec![
        ("compressed-tensors-tensor-static", ct, both(e4m3(tensor), fixed())),
        ("compressed-tensors-tensor-dynamic", ct, both(e4m3(tensor), e4m3(tensor))),
        ("compressed-tensors-channel-token", ct, both(e4m3(row), e4m3(row))),
        ("compressed-tensors-channel-weight-only", ct, e4m3(row).into()),
        ("compressed-tensors-block", ct, both(e4m3(block(48, 32)), e4m3(block(1, 32)))),
        ("compressed-tensors-group", ct, e4m3(block(1, 16)).into()),
        ("compressed-tensors-mxfp8", ct, both(mx(E8M0Rule::RoundUp), mx(E8M0Rule::Floor))),
        ("transformers-block", Dialect::Transformers, both(e4m3(block(32, 32)), e4m3(block(1, 32)))),
        ("transformers-block-ragged", Dialect::Transformers, both(e4m3(block(128, 128)), e4m3(block(1, 128)))),
        ("transformers-block-static", Dialect::Transformers, both(e4m3(block(32, 32)), fixed())),
        ("transformers-tensor", Dialect::Transformers, both(e4m3(tensor), e4m3(row))),
        ("modelopt-fp8", Dialect::ModelOpt, both(e4m3(tensor), fixed())),
        ("modelopt-channel", Dialect::ModelOpt, both(e4m3(row), e4m3(row))),
        ("modelopt-block", Dialect::ModelOpt, e4m3(block(128, 128)).into()),
        ("modelopt-mxfp8", Dialect::ModelOpt, both(mx(E8M0Rule::Floor), mx(E8M0Rule::RoundUp))),
    ]
}

fn folder() -> PathBuf {
    FilePath::new(env!("CARGO_TARGET_TMPDIR")).join("interop")
}

#[test]
#[ignore = "writes files that `interop/read_back.py` reads; see `interop/README.md`"]
fn write_for_other_libraries() {
    let _ = fs::remove_dir_all(folder());
    for (name, dialect, recipe) in cases() {
        let mut model = Llama::new(&recipe);
        model.freeze().unwrap();
        let folder = folder().join(name);
        fs::create_dir_all(&folder).unwrap();
        let own_config = folder.join("config.json");
        fs::write(&own_config, serde_json::to_vec(&config()).unwrap()).unwrap();
        let out = folder.join("checkpoint");
        let writer = Writer::new(dialect).config_from(&own_config).unwrap();
        writer.shard_bytes(30_000).save(&model, &out).unwrap();
        let mut expected: HashMap<String, Tensor> = HashMap::new();
        for (path, layer) in &model.layers {
            expected.insert(format!("{path}.weight"), layer.weight().unwrap());
        }
        expected.extend(model.tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())));
        fs::create_dir_all(folder.join("expected")).unwrap();
        candle_core::safetensors::save(&expected, folder.join("expected/expected.safetensors")).unwrap();
        assert_eq!(Checkpoint::open(&[&out]).unwrap().quantized().unwrap().len(), 7, "{name}");
    }
}
