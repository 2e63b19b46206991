//! Model to file to model: the same codes, scales, inputs and outputs, or an error that says what cannot be said.

use altgrad_core::checkpoint::{self, Checkpoint, Dialect, Writer};
use altgrad_core::{
    CheckpointError, E8M0Rule, Error, Fp8, Granularity, Linear, Quantizable, Quantizer, Recipe, Rounding,
    ScaleEncoding, Scaling, linear, linear_no_bias,
};
use candle_core::{DType, Device, Module, Tensor};

use super::{Layers, bits, codes, frozen, quantized, save_and_open, weight};

const TENSOR: Granularity = Granularity::PerTensor;
const ROW: Granularity = Granularity::PerRow;
const MX: Granularity = Granularity::PerBlock { rows: 1, cols: 32 };

const fn block(rows: usize, cols: usize) -> Granularity {
    Granularity::PerBlock { rows, cols }
}

fn e4m3(granularity: Granularity) -> Quantizer {
    Quantizer::new(Fp8::E4M3).granularity(granularity).scaling(Scaling::Current)
}

fn mx(rule: E8M0Rule) -> Quantizer {
    e4m3(MX).scale_encoding(ScaleEncoding::E8M0(rule))
}

/// Weights and inputs that each dialect has words for.
fn expressible() -> Vec<(Dialect, Quantizer, Option<Quantizer>)> {
    let fixed = e4m3(TENSOR).scaling(Scaling::Static(0.013));
    let mut cases = Vec::new();
    for inputs in [None, Some(fixed.clone()), Some(e4m3(TENSOR)), Some(e4m3(ROW)), Some(e4m3(block(1, 32)))] {
        for weights in [TENSOR, ROW, block(16, 32), block(7, 16), block(1, 24)] {
            cases.push((Dialect::CompressedTensors, e4m3(weights), inputs.clone()));
        }
    }
    cases.push((Dialect::CompressedTensors, mx(E8M0Rule::RoundUp), Some(mx(E8M0Rule::Floor))));
    for size in [block(128, 128), block(16, 32), block(1, 40)] {
        let Granularity::PerBlock { cols, .. } = size else { unreachable!() };
        cases.push((Dialect::Transformers, e4m3(size), Some(e4m3(block(1, cols)))));
        cases.push((Dialect::Transformers, e4m3(size), Some(fixed.clone())));
    }
    cases.push((Dialect::Transformers, e4m3(TENSOR), Some(e4m3(ROW))));
    cases.push((Dialect::ModelOpt, e4m3(TENSOR), Some(fixed.clone())));
    cases.push((Dialect::ModelOpt, e4m3(ROW), Some(e4m3(ROW))));
    cases.push((Dialect::ModelOpt, e4m3(block(128, 128)), None));
    cases.push((Dialect::ModelOpt, mx(E8M0Rule::Floor), Some(mx(E8M0Rule::RoundUp))));
    for (_, format) in Fp8::NAMED {
        for granularity in [TENSOR, ROW, block(16, 32), block(5, 7), MX] {
            let inputs = Quantizer::new(Fp8::E5M2).granularity(granularity).scaling(Scaling::Current);
            cases.push((Dialect::Altgrad, e4m3(granularity).format(format), None));
            cases.push((Dialect::Altgrad, e4m3(granularity).format(format), Some(inputs)));
        }
        cases.push((Dialect::Altgrad, mx(E8M0Rule::Floor).format(format), None));
    }
    cases
}

#[test]
fn everything_that_a_dialect_can_say_comes_back_bit_for_bit() {
    let x = weight(9, 96, 7);
    for (dialect, weights, inputs) in expressible() {
        let what = format!("{dialect}: {weights:?} with inputs {inputs:?}");
        let recipe = Recipe::weight_only(weights).activations(inputs.clone());
        let model = Layers::from([("a.b", frozen(70, 96, 1, recipe.clone())), ("c", frozen(144, 96, 2, recipe))]);
        let (_folder, vb) = save_and_open(&model, dialect);
        for (path, original) in &model {
            let outputs = original.weight().unwrap().dims()[0];
            let loaded = linear(96, outputs, vb.pp(path)).unwrap();
            let (Linear::Frozen(original), Linear::Frozen(loaded)) = (original, &loaded) else {
                panic!("{what}: not frozen")
            };
            let [before, after] = [original, loaded].map(|layer| layer.weight().unwrap());
            assert_eq!(codes(&before), codes(&after), "{what}");
            assert_eq!(bits(before.scales()), bits(after.scales()), "{what}");
            assert_eq!((before.format(), before.granularity()), (after.format(), after.granularity()), "{what}");
            assert_eq!(loaded.activations(), inputs.as_ref(), "{what}");
            assert_eq!(bits(original.bias().unwrap()), bits(loaded.bias().unwrap()), "{what}");
            assert_eq!(bits(&original.forward(&x).unwrap()), bits(&loaded.forward(&x).unwrap()), "{what}");
        }
    }
}

#[test]
fn what_a_dialect_cannot_say_is_an_error_that_names_one_that_can() {
    let fixed = e4m3(TENSOR).scaling(Scaling::Static(0.5));
    let stochastic = e4m3(ROW).rounding(Rounding::Stochastic { seed: 1 });
    let cases = [
        (Dialect::CompressedTensors, e4m3(ROW).format(Fp8::E3M4), None, "weights in E3M4", "the dialect altgrad can"),
        (Dialect::CompressedTensors, e4m3(ROW).format(Fp8::E2M1), None, "weights in E2M1", "the dialect altgrad can"),
        (Dialect::Transformers, e4m3(TENSOR).format(Fp8::E3M2), None, "weights in E3M2", "the dialect altgrad can"),
        (Dialect::ModelOpt, mx(E8M0Rule::Floor).format(Fp8::E2M1), None, "weights in E2M1", "the dialect altgrad can"),
        (Dialect::ComfyUi, e4m3(TENSOR).format(Fp8::E2M3), None, "weights in E2M3", "the dialect altgrad can"),
        (
            Dialect::CompressedTensors,
            e4m3(ROW),
            Some(e4m3(ROW).format(Fp8::E2M1)),
            "inputs in E2M1",
            "the dialect altgrad can",
        ),
        (Dialect::CompressedTensors, e4m3(block(1, 36)), None, "not a multiple", "the dialect altgrad can"),
        (Dialect::CompressedTensors, e4m3(ROW), Some(stochastic), "stochastically", "the dialect altgrad can"),
        (
            Dialect::CompressedTensors,
            mx(E8M0Rule::Floor),
            Some(mx(E8M0Rule::RoundUp)),
            "rounds exponents down",
            "these can: modelopt, altgrad",
        ),
        (Dialect::Transformers, e4m3(ROW), Some(e4m3(ROW)), "one scale a row", "compressed-tensors, modelopt, altgrad"),
        (Dialect::Transformers, e4m3(block(16, 16)), None, "full precision", "compressed-tensors, altgrad"),
        (Dialect::Transformers, e4m3(TENSOR), Some(e4m3(TENSOR)), "otherwise", "compressed-tensors, altgrad"),
        (Dialect::ModelOpt, e4m3(TENSOR), None, "calibrate", "compressed-tensors, comfyui, altgrad"),
        (Dialect::ComfyUi, e4m3(ROW), None, "weights per row", "compressed-tensors, altgrad"),
        (Dialect::ComfyUi, e4m3(TENSOR), Some(e4m3(TENSOR)), "dynamic", "compressed-tensors, altgrad"),
        (Dialect::ModelOpt, e4m3(ROW), Some(fixed), "without inputs", "compressed-tensors, altgrad"),
        (Dialect::ModelOpt, e4m3(block(16, 16)), None, "weights per 16×16 block", "compressed-tensors, altgrad"),
        (Dialect::Torchao, e4m3(ROW), None, "only reads", "compressed-tensors, altgrad"),
        (Dialect::Plain, e4m3(ROW), None, "only reads", "compressed-tensors, altgrad"),
    ];
    for (dialect, weights, inputs, why, instead) in cases {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let recipe = Recipe::weight_only(weights).activations(inputs);
        let model = Layers::from([("h.0", frozen(64, 96, 1, recipe))]);
        let message = checkpoint::save(&model, &out, dialect).unwrap_err().to_string();
        assert!(message.starts_with("layer `h.0`: "), "{message}");
        for part in [dialect.name(), why, instead] {
            assert!(message.contains(part), "{message}: {part}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{dialect}");
    }
    let model = Layers::from([
        ("a", frozen(64, 96, 1, Recipe::weight_only(e4m3(block(16, 16))).activations(e4m3(block(1, 16))))),
        ("b", frozen(64, 96, 1, Recipe::weight_only(e4m3(block(32, 32))).activations(e4m3(block(1, 32))))),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let message = checkpoint::save(&model, folder.path().join("out"), Dialect::Transformers).unwrap_err().to_string();
    assert!(message.contains("layers `a` and `b` differ"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn layers_that_are_not_frozen_are_written_as_freezing_would() {
    let recipe = Recipe::weight_only(e4m3(ROW)).activations(Quantizer::new(Fp8::E4M3).granularity(ROW));
    let full = Linear::from(candle_nn::Linear::new(weight(32, 96, 3), None));
    let mut model = Layers::from([("a", quantized(64, 96, 1, recipe)), ("lm_head", full)]);
    let (_folder, vb) = save_and_open(&model, Dialect::CompressedTensors);
    model.freeze().unwrap();
    let x = weight(3, 96, 9);
    let loaded = linear(96, 64, vb.pp("a")).unwrap();
    assert_eq!(bits(&model["a"].forward(&x).unwrap()), bits(&loaded.forward(&x).unwrap()));
    let head = linear_no_bias(96, 32, vb.pp("lm_head")).unwrap();
    assert!(matches!(head, Linear::Full(_)));
    assert_eq!(bits(&head.weight().unwrap()), bits(&model["lm_head"].weight().unwrap()));
}

#[test]
fn delayed_scales_become_static() {
    let delayed = Quantizer::new(Fp8::E4M3).scaling(Scaling::Delayed { len: 4, margin: 0 });
    let layer = quantized(64, 96, 1, Recipe::weight_only(e4m3(TENSOR)).activations(delayed));
    layer.forward(&Tensor::full(44.8f32, (2, 96), &Device::Cpu).unwrap()).unwrap();
    let (_folder, vb) = save_and_open(&Layers::from([("a", layer)]), Dialect::ModelOpt);
    let Linear::Frozen(loaded) = linear(96, 64, vb.pp("a")).unwrap() else { panic!("not frozen") };
    assert_eq!(loaded.activations().unwrap().scaling, Scaling::Static(44.8 / 448.0));
}

#[test]
fn a_checkpoint_in_several_files_is_one() {
    let model = Layers::from([
        ("a", frozen(64, 96, 1, e4m3(ROW))),
        ("b", frozen(32, 96, 2, e4m3(ROW))),
        ("c", frozen(16, 96, 3, e4m3(ROW))),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    Writer::new(Dialect::CompressedTensors).shard_bytes(4000).save(&model, &out).unwrap();
    let files = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = files.filter(|name| name.ends_with(".safetensors")).collect();
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    for paths in
        [vec![out.clone()], vec![out.join("model.safetensors.index.json")], files.iter().map(|f| out.join(f)).collect()]
    {
        let checkpoint = Checkpoint::open(&paths).unwrap();
        for (path, layer) in &model {
            let loaded = checkpoint.tensor(&format!("{path}.weight"), DType::F32, &Device::Cpu).unwrap();
            assert_eq!(bits(&loaded), bits(&layer.weight().unwrap()));
        }
    }
}

#[test]
fn nothing_is_written_over() {
    let model = Layers::from([("a", frozen(64, 96, 1, e4m3(ROW)))]);
    let folder = tempfile::tempdir().unwrap();
    // An empty folder will do.
    checkpoint::save(&model, folder.path(), Dialect::CompressedTensors).unwrap();
    let error = checkpoint::save(&model, folder.path(), Dialect::CompressedTensors).unwrap_err();
    assert!(matches!(error, Error::Checkpoint(CheckpointError::TargetExists { .. })), "{error}");
    let file = folder.path().join("config.json");
    assert!(matches!(
        checkpoint::save(&model, &file, Dialect::Altgrad),
        Err(Error::Checkpoint(CheckpointError::TargetExists { .. }))
    ));
    let below = file.join("out");
    assert!(matches!(
        checkpoint::save(&model, below, Dialect::Altgrad),
        Err(Error::Checkpoint(CheckpointError::TargetExists { .. } | CheckpointError::Unwritable { .. }))
    ));
}

#[test]
fn the_fields_of_another_config_stay() {
    let model = Layers::from([("a", frozen(64, 96, 1, e4m3(ROW)))]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    std::fs::write(&config, r#"{ "model_type": "llama", "quantization_config": { "quant_method": "gptq" } }"#).unwrap();
    let out = folder.path().join("out");
    Writer::new(Dialect::CompressedTensors).config_from(&config).unwrap().save(&model, &out).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(written["model_type"], "llama");
    assert_eq!(written["quantization_config"]["quant_method"], "compressed-tensors");
    assert_eq!(written["quantization_config"]["config_groups"]["group_0"]["targets"][0], "Linear");
}
