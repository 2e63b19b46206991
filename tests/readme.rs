//! The README's examples: each stands here line for line, in a function that takes what the README takes for granted.

#![allow(
    clippy::items_after_statements,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "examples are as readers would write them, and tests fail by panicking"
)]

#[path = "common/llama.rs"]
mod small_llama;

use std::error::Error;
use std::path::Path;

use altgrad::{Linear, Quantizable, Recipe};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap};
use candle_transformers::models::llama::{Cache, Config};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const README: &str = include_str!("../README.md");

fn blocks() -> Vec<&'static str> {
    README.split("\n```rust\n").skip(1).map(|rest| rest.split("\n```\n").next().unwrap()).collect()
}

/// Lines without the white space that depends on where they stand.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn every_example_of_the_readme_is_here() {
    let here = lines(include_str!("readme.rs"));
    let blocks = blocks();
    assert!(blocks.len() > 8);
    for block in blocks {
        let block_lines = lines(block);
        assert!(here.windows(block_lines.len()).any(|window| window == block_lines), "not in this file:\n{block}");
    }
}

fn variables() -> (VarMap, VarBuilder<'static>) {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    (variables, vb)
}

/// A layer of 16 inputs and 8 outputs that trains.
fn layer() -> Linear {
    altgrad::linear(16, 8, variables().1).unwrap()
}

fn ones(rows: usize) -> Tensor {
    Tensor::ones((rows, 16), DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn the_quick_start_runs() -> Result<()> {
    use altgrad::{Fp8, Linear, Quantizable, linear};
    use candle_core::{DType, Device, Module, Tensor};
    use candle_nn::{VarBuilder, VarMap};

    #[derive(Quantizable)]
    struct Mlp {
        c_fc: Linear,
        c_proj: Linear,
    }

    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut model = Mlp { c_fc: linear(16, 64, vb.pp("c_fc"))?, c_proj: linear(64, 16, vb.pp("c_proj"))? };

    let report = model.quantize(Fp8::E4M3)?; // in place: every layer or, on an error, none
    println!("{report}"); // path, what was done, shape, format, error, bytes
    let x = Tensor::zeros((2, 16), DType::F32, &Device::Cpu)?;
    let y = model.c_proj.forward(&model.c_fc.forward(&x)?.gelu()?)?;
    // … train as before: the same variables, the same optimizer …

    model.freeze()?; // one byte a weight, the values that training computed with

    assert_eq!(y.dims(), [2, 16]);
    assert_eq!(report.layers[0].path, "c_fc");
    assert!(matches!(model.c_fc, Linear::Frozen(_)));
    Ok(())
}

#[test]
fn a_model_is_ported() -> Result<()> {
    let (_variables, vb) = variables();
    use altgrad::nn::{Conv2d, Conv2dConfig, Embedding, LayerNorm, Linear, conv2d, embedding, layer_norm, linear};
    use altgrad::{Fp8, QuantConfig, Quantizable, TiePolicy};

    #[derive(Quantizable)]
    struct Captioner {
        patches: Conv2d,
        wte: Embedding,
        norm: LayerNorm,
        fc: Linear,
        lm_head: Linear,
    }

    let wte = embedding(1000, 64, vb.pp("wte"))?;
    let mut model = Captioner {
        patches: conv2d(3, 64, 8, Conv2dConfig { stride: 8, ..Conv2dConfig::default() }, vb.pp("patches"))?,
        norm: layer_norm(64, 1e-5, vb.pp("norm"))?,
        fc: linear(64, 64, vb.pp("fc"))?,
        lm_head: wte.tied_linear(None)?,
        wte,
    };
    // The table of the embedding and the head that is tied to it become one table of codes.
    model.quantize(QuantConfig::new(Fp8::E4M3).ties(TiePolicy::Quantize))?;
    model.freeze()?;
    let image = Tensor::ones((1, 3, 16, 16), DType::F32, &Device::Cpu)?;
    let x = model.patches.forward(&image)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
    let x = (x + model.wte.forward(&Tensor::new(&[1u32, 2, 3, 4], &Device::Cpu)?)?.unsqueeze(0)?)?;
    let y = model.lm_head.forward(&model.fc.forward(&model.norm.forward(&x)?)?)?;
    assert_eq!(y.dims(), [1, 4, 1000]);
    assert!(model.report()?.layers.iter().all(|layer| layer.action == altgrad::report::Action::Frozen));
    Ok(())
}

#[test]
fn recipes_are_data() -> Result<()> {
    use altgrad::{Fp8, Granularity, Quantizer, Recipe, Rounding, ScaleEncoding, Scaling, Ste};

    // A named recipe with stochastically rounded gradients:
    let mut stochastic = Recipe::tensorwise();
    stochastic.gradients = stochastic.gradients.map(|gradients| gradients.rounding(Rounding::Stochastic { seed: 1 }));

    // Weights with one power-of-two scale a row, activations with delayed scaling, gradients in full precision:
    let weights = Quantizer::new(Fp8::E3M4).granularity(Granularity::PerRow).scale_encoding(ScaleEncoding::PowerOfTwo);
    let recipe = Recipe::weight_only(weights)
        .activations(Quantizer::new(Fp8::E4M3).scaling(Scaling::Delayed { len: 16, margin: 0 }))
        .ste(Ste::Clipped);

    stochastic.validate()?;
    Ok(recipe.validate()?)
}

fn calibration(model: &mut Linear, batches: &[Tensor]) -> Result<()> {
    use altgrad::{Observer, Quantizable, Recipe};

    model.quantize(Recipe::tensorwise().gradients(None))?;
    let report = model.calibrate_with(Observer::Percentile(99.9), |model| {
        for batch in batches {
            model.forward(batch)?;
        }
        Ok(())
    })?;
    println!("{report}"); // path, values seen, magnitude, scale

    assert_eq!(report.layers.len(), 1);
    Ok(())
}

#[test]
fn calibration_runs() -> Result<()> {
    calibration(&mut layer(), &[ones(2), ones(3)])
}

fn state(model: &mut Linear, file: &Path) -> Result<()> {
    model.quantize(Recipe::hybrid())?;

    use candle_core::{Device, safetensors};

    safetensors::save(&model.quantizer_state()?, file)?;
    model.load_quantizer_state(&safetensors::load(file, &Device::Cpu)?)?;

    Ok(())
}

#[test]
fn state_is_saved_and_loaded() -> Result<()> {
    let folder = tempfile::tempdir()?;
    state(&mut layer(), &folder.path().join("quantizers.safetensors"))
}

fn from_your_model_to_vllm(model: &mut Linear, original: &Path, folder: &Path) -> Result<()> {
    use altgrad::checkpoint::{Dialect, Writer};
    use altgrad::{Fp8, Granularity, Quantizable, Quantizer};

    model.quantize(Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow))?;
    model.freeze()?;
    Writer::new(Dialect::CompressedTensors)
        .config_from(original.join("config.json"))? // what the model is: `model_type`, …
        .save(model, folder)?; // all files, or none

    Ok(())
}

fn from_a_hub_to_candle(folder: &Path, inputs: usize, outputs: usize) -> Result<()> {
    use altgrad::{Linear, checkpoint};
    use candle_core::{DType, Device};

    let vb = checkpoint::var_builder(&[folder], DType::F32, &Device::Cpu)?; // a folder, an index, or files
    let full = candle_nn::linear(inputs, outputs, vb.clone())?; // any candle model: dequantized
    let slot = altgrad::linear(inputs, outputs, vb)?; // altgrad's: frozen, with the codes
    assert!(matches!(slot, Linear::Frozen(_)));

    assert_eq!(full.weight().to_vec2::<f32>()?, slot.weight()?.to_vec2::<f32>()?);
    Ok(())
}

#[test]
fn checkpoints_are_written_and_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config.json"), r#"{ "model_type": "llama" }"#)?;
    let out = folder.path().join("llama-fp8");
    from_your_model_to_vllm(&mut layer(), folder.path(), &out)?;
    assert!(std::fs::read_to_string(out.join("config.json"))?.contains(r#""model_type": "llama""#));
    from_a_hub_to_candle(&out, 16, 8)
}

fn someone_elses_model(vb: VarBuilder<'_>, config: &Config, variables: &VarMap) -> Result<()> {
    use altgrad::{Fp8, QuantConfig, QuantizedVarBuilder};
    use candle_transformers::models::llama::Llama;

    let quantized = QuantizedVarBuilder::new(vb, QuantConfig::new(Fp8::E4M3).skip("model.layers.0"))?;
    let model = Llama::load(quantized.builder(), config)?;
    println!("{}", quantized.report()?);

    assert_eq!(quantized.report()?.quantized(), 8);
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 1e-3)?;
    let mut cache = Cache::new(false, DType::F32, config, &Device::Cpu)?;
    let (tokens, targets) = (Tensor::new(&[[1u32, 2, 3]], &Device::Cpu)?, Tensor::new(&[4u32], &Device::Cpu)?);
    let logits = model.forward(&tokens, 0, &mut cache)?;
    let loss = candle_nn::loss::cross_entropy(&logits, &targets)?;
    optimizer.backward_step(&loss)?; // through the straight-through estimator to the variables behind `vb`
    quantized.requantize()?; // the weights that the model holds, in place
    let after = model.forward(&tokens, 0, &mut Cache::new(false, DType::F32, config, &Device::Cpu)?)?;
    assert_ne!(after.to_vec2::<f32>()?, logits.to_vec2::<f32>()?);
    Ok(())
}

#[test]
fn someone_elses_model_is_quantized_and_trained() -> Result<()> {
    let (variables, vb) = variables();
    someone_elses_model(vb, &small_llama::config(), &variables)
}

#[test]
fn a_cache_holds_keys_and_values() -> Result<()> {
    let random = |heads| Tensor::randn(0f32, 1.0, (1, heads, 3, 64), &Device::Cpu);
    let (queries, keys, values) = (random(4)?, random(2)?, random(2)?);
    use altgrad::{Fp8, KvCache, Mask};

    let mut cache = KvCache::new(Fp8::E4M3)?;
    cache.append(&keys, &values)?; // of new tokens: (batch, heads, tokens, head size)
    let y = cache.attend(&queries, 0.125, Mask::Causal)?;
    assert_eq!(y.dims(), [1, 4, 3, 64]);
    Ok(())
}

#[test]
fn rules_are_data() {
    use altgrad::{Fp8, QuantConfig, Recipe};

    let config = QuantConfig::new(Recipe::hybrid())
        .skip("h.0") // the first block stays in full precision
        .rule("h.*.mlp.c_proj", Fp8::E3M4) // first match wins
        .rule("**.c_attn", Recipe::rowwise());

    assert_eq!(config.rules.len(), 3);
}

#[test]
fn formats_are_values() -> Result<()> {
    use altgrad::Fp8;

    assert_eq!(Fp8::E4M3.encode(0.3), Some(0x2A));
    assert_eq!(Fp8::E4M3.decode(0x2A), 0.3125);
    assert_eq!("E5M2".parse::<Fp8>()?.largest_finite(), 57344.0);

    Ok(())
}

#[test]
fn training() -> Result<()> {
    let (variables, vb) = variables();
    let (layer, head) = (altgrad::linear(16, 8, vb.pp("layer"))?, altgrad::linear(8, 4, vb.pp("head"))?);
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 0.1)?;
    let batches = vec![(ones(2), Tensor::new(&[1u32, 1], &Device::Cpu)?); 20];

    use altgrad::nn::{loss, ops};
    use candle_core::backprop::GradStore;

    let mut gradients = GradStore::default();
    for (x, targets) in &batches {
        let logits = head.forward(&ops::gelu(&layer.forward(x)?)?)?;
        altgrad::backward_into(&loss::cross_entropy(&logits, targets)?, &mut gradients)?;
        optimizer.step(&gradients)?;
    }

    let logits = head.forward(&ops::gelu(&layer.forward(&ones(1))?)?)?;
    assert_eq!(logits.argmax(1)?.to_vec1::<u32>()?, [1]);
    Ok(())
}
