//! Models of candle-transformers with random weights: they run, and compute with exactly the expected weights
//! quantized.

use altgrad::report::SkipReason;
use altgrad::{Fp8, Granularity, QuantConfig, QuantizedVarBuilder, Quantizer};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Activation, VarBuilder, VarMap};
use candle_transformers::models::{bert, bigcode, llama, mistral, modernbert, qwen2, t5, vit, whisper};

use crate::common::Numbers;
use crate::{bits, builder_of, by_hand, quantized_paths, randomize, skipped, small_llama};

/// Builds a model from a builder that is plain, one over weights that were quantized by hand, and a quantizing one, and
/// compares outputs and report with what is expected.
fn check(run: impl Fn(VarBuilder<'_>) -> Result<Tensor>, quantized: &[String], kept: &[(&str, SkipReason)]) {
    let variables = VarMap::new();
    run(builder_of(&variables)).unwrap();
    randomize(&variables, 1);
    let plain = run(builder_of(&variables)).unwrap();
    assert!(crate::common::values(&plain).iter().all(|value| value.is_finite()));

    for quantizer in [Quantizer::from(Fp8::E4M3), Quantizer::new(Fp8::E5M2).granularity(Granularity::PerRow)] {
        let builder = QuantizedVarBuilder::new(builder_of(&variables), quantizer.clone()).unwrap();
        let output = run(builder.builder()).unwrap();
        let map = by_hand(&variables, quantized, &quantizer);
        let expected = run(VarBuilder::from_tensors(map, DType::F32, &Device::Cpu)).unwrap();
        assert_eq!(bits(&output), bits(&expected));
        assert_ne!(bits(&output), bits(&plain), "quantization has an effect");

        let report = builder.report().unwrap();
        let mut found = quantized_paths(&report);
        let mut expected: Vec<&str> = quantized.iter().map(String::as_str).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(skipped(&report), kept);
    }
}

/// `prefix.part` for each part of each of two blocks; `{}` in the prefix is the block's number.
fn blocks(prefix: &str, parts: &[&str]) -> Vec<String> {
    let block = |index: usize| {
        let prefix = prefix.replace("{}", &index.to_string());
        parts.iter().map(move |part| format!("{prefix}.{part}"))
    };
    (0..2).flat_map(block).collect()
}

fn tokens(rows: usize) -> Tensor {
    Tensor::arange(1u32, 6 * rows as u32 + 1, &Device::Cpu).unwrap().reshape((rows, 6)).unwrap()
}

const LLAMA: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

const BERT: [&str; 6] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
];

fn llama_config(tie_word_embeddings: bool) -> llama::Config {
    llama::Config { tie_word_embeddings, ..small_llama::config() }
}

fn run_llama(vb: VarBuilder<'_>, config: &llama::Config) -> Result<Tensor> {
    let mut cache = llama::Cache::new(false, DType::F32, config, vb.device())?;
    llama::Llama::load(vb, config)?.forward(&tokens(2), 0, &mut cache)
}

#[test]
fn llama() {
    let quantized = [blocks("model.layers.{}", &LLAMA), vec!["lm_head".to_owned()]].concat();
    check(|vb| run_llama(vb, &llama_config(false)), &quantized, &[]);
    // A head that is a clone of the embedding is not asked for, and stays what it is.
    check(|vb| run_llama(vb, &llama_config(true)), &blocks("model.layers.{}", &LLAMA), &[]);
}

#[test]
fn rules_choose_layers_of_a_llama() {
    let config = llama_config(false);
    let run = |vb: VarBuilder<'_>| run_llama(vb, &config).unwrap();
    let variables = VarMap::new();
    run(builder_of(&variables));
    randomize(&variables, 2);

    let rules = QuantConfig::new(Fp8::E4M3).skip("model.layers.0").rule("**.down_proj", Fp8::E3M4).skip("lm_head");
    let builder = QuantizedVarBuilder::new(builder_of(&variables), rules).unwrap();
    let output = run(builder.builder());

    let layer = |name: &str| format!("model.layers.1.{name}");
    let others: Vec<String> = LLAMA[..6].iter().map(|name| layer(name)).collect();
    let mut map = by_hand(&variables, &others, &Fp8::E4M3.into());
    let down_proj = by_hand(&variables, &[layer("mlp.down_proj")], &Fp8::E3M4.into());
    let name = layer("mlp.down_proj.weight");
    map.insert(name.clone(), down_proj[&name].clone());
    assert_eq!(bits(&output), bits(&run(VarBuilder::from_tensors(map, DType::F32, &Device::Cpu))));

    let report = builder.report().unwrap();
    assert_eq!(report.layers.len(), 15);
    assert_eq!(quantized_paths(&report), blocks("model.layers.{}", &LLAMA)[7..]);
    assert_eq!(report.layer("model.layers.1.mlp.down_proj").unwrap().format, Some(Fp8::E3M4));
    let first_block = SkipReason::Rule("model.layers.0".to_owned());
    assert_eq!(skipped(&report)[0], ("lm_head", SkipReason::Rule("lm_head".to_owned())));
    assert!(skipped(&report)[1..].iter().all(|(_, reason)| *reason == first_block));
}

#[test]
fn bert() {
    let config = bert::Config {
        vocab_size: 32,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 24,
        max_position_embeddings: 16,
        ..bert::Config::default()
    };
    let run = |vb: VarBuilder<'_>| {
        let model = bert::BertForMaskedLM::load(vb, &config)?;
        model.forward(&tokens(2), &tokens(2).zeros_like()?, None)
    };
    let head = ["cls.predictions.transform.dense".to_owned(), "cls.predictions.decoder".to_owned()];
    check(run, &[blocks("bert.encoder.layer.{}", &BERT), head.to_vec()].concat(), &[]);
}

#[test]
fn t5() {
    let config = t5::Config {
        vocab_size: 32,
        d_model: 16,
        d_kv: 4,
        d_ff: 24,
        num_layers: 2,
        num_heads: 4,
        relative_attention_num_buckets: 8,
        ..t5::Config::default()
    };
    let run = |vb: VarBuilder<'_>| {
        let mut model = t5::T5ForConditionalGeneration::load(vb, &config)?;
        model.forward(&tokens(2), &tokens(2))
    };
    let attention = |layer: &str| ["q", "k", "v", "o"].map(|name| format!("{layer}.{name}"));
    let feed_forward = |layer: &str| ["wi", "wo"].map(|name| format!("{layer}.DenseReluDense.{name}"));
    let names = |parts: &[String], stack: &str| {
        blocks(&format!("{stack}.block.{{}}"), &parts.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let encoder = [attention("layer.0.SelfAttention").as_slice(), &feed_forward("layer.1")].concat();
    let decoder = [
        attention("layer.0.SelfAttention").as_slice(),
        &attention("layer.1.EncDecAttention"),
        &feed_forward("layer.2"),
    ]
    .concat();
    check(run, &[names(&encoder, "encoder"), names(&decoder, "decoder")].concat(), &[]);
}

#[test]
fn gpt_bigcode_with_a_head_that_asks_for_the_embedding_again() {
    let config = || bigcode::Config {
        vocab_size: 32,
        max_position_embeddings: 16,
        num_hidden_layers: 2,
        hidden_size: 16,
        layer_norm_epsilon: 1e-5,
        n_inner: Some(24),
        num_attention_heads: 4,
        multi_query: true,
        use_cache: false,
    };
    let run = |vb: VarBuilder<'_>| bigcode::GPTBigCode::load(vb, config())?.forward(&tokens(2), 0);
    let projections = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
    let tied = SkipReason::Tied("transformer.wte.weight".to_owned());
    check(run, &blocks("transformer.h.{}", &projections), &[("transformer.wte", tied)]);
}

#[test]
fn mistral() {
    let config = mistral::Config {
        vocab_size: 32,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        head_dim: None,
        num_key_value_heads: 2,
        max_position_embeddings: 16,
        ..mistral::Config::config_7b_v0_1(false)
    };
    let run = |vb: VarBuilder<'_>| mistral::Model::new(&config, vb)?.forward(&tokens(1), 0);
    check(run, &[blocks("model.layers.{}", &LLAMA), vec!["lm_head".to_owned()]].concat(), &[]);
}

#[test]
fn qwen2_with_a_tied_head() {
    let config = qwen2::Config {
        vocab_size: 32,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 16,
        sliding_window: 16,
        max_window_layers: 2,
        tie_word_embeddings: true,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    };
    let run = |vb: VarBuilder<'_>| qwen2::ModelForCausalLM::new(&config, vb)?.forward(&tokens(1), 0);
    check(run, &blocks("model.layers.{}", &LLAMA), &[]);
}

#[test]
fn a_vision_transformer() {
    let config = vit::Config {
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 24,
        image_size: 8,
        patch_size: 4,
        ..vit::Config::vit_base_patch16_224()
    };
    let image = Numbers::new(7).tensor((2, 3, 8, 8));
    let run = |vb: VarBuilder<'_>| vit::Model::new(&config, 5, vb)?.forward(&image);
    let attention =
        ["attention.query", "attention.key", "attention.value", "output.dense"].map(|x| format!("attention.{x}"));
    let parts: Vec<&str> = attention.iter().map(String::as_str).chain(["intermediate.dense", "output.dense"]).collect();
    check(run, &[blocks("vit.encoder.layer.{}", &parts), vec!["classifier".to_owned()]].concat(), &[]);
}

#[test]
fn whisper_whose_positions_are_asked_for_by_name_alone() {
    let config = || whisper::Config {
        num_mel_bins: 4,
        max_source_positions: 12,
        d_model: 16,
        encoder_attention_heads: 4,
        encoder_layers: 2,
        vocab_size: 32,
        max_target_positions: 12,
        decoder_attention_heads: 4,
        decoder_layers: 2,
        suppress_tokens: Vec::new(),
    };
    let sound = Numbers::new(8).tensor((1, 4, 12));
    let run = |vb: VarBuilder<'_>| {
        let mut model = whisper::model::Whisper::load(&vb, config())?;
        let features = model.encoder.forward(&sound, true)?;
        let output = model.decoder.forward(&tokens(1), &features, true)?;
        model.decoder.final_linear(&output)
    };
    let attention = |name: &str| ["q_proj", "v_proj", "k_proj", "out_proj"].map(|part| format!("{name}.{part}"));
    let layer = |parts: &[String], stack: &str| {
        let parts: Vec<&str> = parts.iter().map(String::as_str).chain(["fc1", "fc2"]).collect();
        blocks(&format!("model.{stack}.layers.{{}}"), &parts)
    };
    let encoder = layer(&attention("self_attn"), "encoder");
    let decoder = layer(&[attention("self_attn"), attention("encoder_attn")].concat(), "decoder");
    let positions = ("model.decoder.embed_positions", SkipReason::Embedding);
    check(run, &[encoder, decoder].concat(), &[positions]);
}

pub(crate) fn modernbert_config() -> modernbert::Config {
    modernbert::Config {
        vocab_size: 32,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 24,
        max_position_embeddings: 16,
        layer_norm_eps: 1e-5,
        pad_token_id: 0,
        global_attn_every_n_layers: 3,
        global_rope_theta: 160_000.0,
        local_attention: 8,
        local_rope_theta: 10_000.0,
        classifier_config: None,
    }
}

pub(crate) fn modernbert_layers() -> Vec<String> {
    [blocks("model.layers.{}", &["attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"]), vec!["head.dense".to_owned()]].concat()
}

#[test]
fn modernbert_with_a_tied_head_that_is_asked_for_by_name_alone() {
    let run = |vb: VarBuilder<'_>| {
        let model = modernbert::ModernBertForMaskedLM::load(vb, &modernbert_config())?;
        model.forward(&tokens(2), &tokens(2).ones_like()?)
    };
    let path = "model.embeddings.tok_embeddings";
    check(run, &modernbert_layers(), &[(path, SkipReason::Tied(format!("{path}.weight")))]);
}
