//! Quantizing a checkpoint on disk: the same as loading, quantizing and saving its model.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use altgrad_core::checkpoint::{Checkpoint, Dialect, Writer, compare};
use altgrad_core::report::{Action, SkipReason};
use altgrad_core::{
    CheckpointError, ConfigError, E8M0Rule, Error, Fp8, Granularity, ModelError, QuantConfig, Quantizable, Quantizer,
    Recipe, Rounding, ScaleEncoding, Scaling, linear,
};
use candle_core::{DType, Device, Tensor};

use super::{Layers, bits, codes, weight};

/// A checkpoint in full precision with an embedding and two linear layers, of which `large` is read in several pieces.
fn original(folder: &Path, dtype: DType) -> Checkpoint {
    let tensor = |outputs, inputs, seed| weight(outputs, inputs, seed).to_dtype(dtype).unwrap();
    let tensors = HashMap::from([
        ("embed_tokens.weight", tensor(10, 64, 1)),
        ("small.weight", tensor(70, 96, 2)),
        ("small.bias", tensor(1, 70, 3).flatten_all().unwrap()),
        ("large.weight", tensor(3000, 520, 4)),
        ("large.bias", tensor(1, 3000, 5).flatten_all().unwrap()),
        ("norm.weight", tensor(1, 64, 6).flatten_all().unwrap()),
        ("experts.up_proj", tensor(6, 8, 7).reshape((2, 3, 8)).unwrap()),
        ("position", tensor(6, 8, 8).reshape((1, 6, 8)).unwrap()),
    ]);
    fs::create_dir_all(folder).unwrap();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    fs::write(folder.join("config.json"), r#"{ "model_type": "llama" }"#).unwrap();
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    fs::write(folder.join("modeling.py"), "").unwrap();
    fs::write(folder.join("weights.bin"), "not copied").unwrap();
    Checkpoint::open(&[folder]).unwrap()
}

fn model(checkpoint: &Checkpoint, dtype: DType) -> Layers {
    let vb = checkpoint.var_builder(dtype, &Device::Cpu);
    Layers::from([
        ("small", linear(96, 70, vb.pp("small")).unwrap()),
        ("large", linear(520, 3000, vb.pp("large")).unwrap()),
    ])
}

fn recipes() -> Vec<Recipe> {
    let e4m3 = Quantizer::new(Fp8::E4M3);
    let mut recipes = Vec::new();
    for granularity in [
        Granularity::PerTensor,
        Granularity::PerRow,
        Granularity::PerBlock { rows: 128, cols: 128 },
        Granularity::PerBlock { rows: 7, cols: 33 },
        Granularity::PerBlock { rows: 5000, cols: 1 },
    ] {
        recipes.push(e4m3.clone().granularity(granularity).into());
        let encoded = e4m3.clone().format(Fp8::E3M4).granularity(granularity);
        recipes.push(encoded.clone().scale_encoding(ScaleEncoding::F32Reciprocal).into());
        recipes.push(encoded.clone().scale_encoding(ScaleEncoding::E8M0(E8M0Rule::Floor)).into());
        recipes.push(encoded.rounding(Rounding::Stochastic { seed: 3 }).into());
    }
    recipes.push(e4m3.scaling(Scaling::Static(0.25)).into());
    recipes
}

#[test]
fn codes_are_those_of_the_quantized_model() {
    for dtype in [DType::F32, DType::BF16] {
        let folder = tempfile::tempdir().unwrap();
        let original = original(&folder.path().join("in"), dtype);
        for (number, recipe) in recipes().into_iter().enumerate() {
            let out = folder.path().join(format!("out{number}"));
            let report = Writer::new(Dialect::Altgrad).quantize(&original, recipe.clone(), &out, |_| ()).unwrap();
            let mut model = model(&original, dtype);
            let expected = model.quantize(recipe.clone()).unwrap();
            let converted = Checkpoint::open(&[&out]).unwrap();
            for (path, layer) in &model {
                let altgrad_core::Linear::Quantized(layer) = layer else { panic!() };
                let expected_weight = layer.quantized_weight().unwrap();
                let name = format!("{path}.weight");
                let weight = converted.fp8_tensor(&name, dtype, &Device::Cpu).unwrap();
                assert_eq!(codes(&weight), codes(&expected_weight), "{path} {recipe:?}");
                assert_eq!(bits(weight.scales()), bits(expected_weight.scales()), "{path} {recipe:?}");
                let (one, other) = (report.layer(path).unwrap(), expected.layer(path).unwrap());
                assert_eq!((one.distortion, &one.recipe, one.format), (other.distortion, &other.recipe, other.format));
                assert_eq!((&one.shape, one.bytes_before), (&other.shape, other.bytes_before));
            }
            for name in ["norm.weight", "large.bias", "embed_tokens.weight", "experts.up_proj", "position"] {
                let [one, other] =
                    [&converted, &original].map(|checkpoint| checkpoint.tensor(name, dtype, &Device::Cpu).unwrap());
                assert_eq!(bits(&one), bits(&other));
            }
        }
    }
}

#[test]
fn rules_decide_and_embeddings_stay() {
    let folder = tempfile::tempdir().unwrap();
    let original = original(&folder.path().join("in"), DType::F32);
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    let quantize = |config: QuantConfig, out: &str| {
        Writer::new(Dialect::CompressedTensors).quantize(&original, config, folder.path().join(out), |_| ())
    };
    let report = quantize(QuantConfig::new(rows.clone()).skip("small"), "a").unwrap();
    let action = |path: &str| report.layer(path).unwrap().action.clone();
    assert_eq!(action("large"), Action::Quantized);
    assert_eq!(action("small"), Action::Skipped(SkipReason::Rule("small".to_owned())));
    assert_eq!(action("embed_tokens"), Action::Skipped(SkipReason::Embedding));
    let unsupported = SkipReason::Unsupported("tensor of 3 dimensions".to_owned());
    assert_eq!(action("experts.up_proj"), Action::Skipped(unsupported));
    assert!(matches!(action("position"), Action::Skipped(SkipReason::Unsupported(_))));
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("a/config.json")).unwrap()).unwrap();
    assert_eq!(config["model_type"], "llama");
    // A name does not tell for certain that it is no linear layer.
    assert_eq!(
        config["quantization_config"]["ignore"],
        serde_json::json!(["embed_tokens", "experts.up_proj", "position", "small"])
    );
    assert!(folder.path().join("a/tokenizer.json").is_file() && folder.path().join("a/modeling.py").is_file());
    assert!(!folder.path().join("a/weights.bin").exists());

    let report = quantize(QuantConfig::new(rows.clone()).skip("embed_tokens"), "skipped").unwrap();
    let skipped = Action::Skipped(SkipReason::Rule("embed_tokens".to_owned()));
    assert_eq!(report.layer("embed_tokens").unwrap().action, skipped);

    let dynamic = Recipe::weight_only(rows.clone()).activations(rows.clone());
    let report = quantize(QuantConfig::new(dynamic.clone()).rule("embed_tokens", dynamic), "b").unwrap();
    assert_eq!(report.layer("embed_tokens").unwrap().action, Action::Quantized);
    // What is no `Linear` is found by its name alone, and its input is no tensor to quantize.
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("b/config.json")).unwrap()).unwrap();
    let groups = config["quantization_config"]["config_groups"].as_object().unwrap();
    let targets: Vec<_> = groups.values().map(|group| &group["targets"]).collect();
    assert_eq!(targets, [&serde_json::json!(["embed_tokens"]), &serde_json::json!(["Linear"])]);
    assert!(groups["group_0"]["input_activations"].is_null() && !groups["group_1"]["input_activations"].is_null());
    for dialect in [Dialect::Transformers, Dialect::ModelOpt] {
        let config = QuantConfig::new(Recipe::blockwise()).rule("embed_tokens", Recipe::blockwise());
        let error = Writer::new(dialect).quantize(&original, config, folder.path().join("c"), |_| ()).unwrap_err();
        assert!(error.to_string().contains("layer `embed_tokens`"), "{error}");
    }

    let error = quantize(QuantConfig::new(rows.clone()).skip("smal"), "c").unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::RuleMatchesNothing { .. })), "{error}");
    let again = Checkpoint::open(&[folder.path().join("a")]).unwrap();
    let error = Writer::new(Dialect::Altgrad).quantize(&again, rows, folder.path().join("c"), |_| ()).unwrap_err();
    assert!(error.to_string().contains("`large.weight` is quantized already"), "{error}");
    assert!(!folder.path().join("c").exists());
}

#[test]
fn a_value_that_is_not_finite_is_found_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut values = vec![1f32; 3000 * 520];
    values[2900 * 520 + 7] = f32::NAN;
    let tensors = HashMap::from([("a.b.weight", Tensor::from_vec(values, (3000, 520), &Device::Cpu).unwrap())]);
    let file = folder.path().join("model.safetensors");
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let original = Checkpoint::open(&[&file]).unwrap();
    for granularity in [Granularity::PerTensor, Granularity::PerRow] {
        let quantizer = Quantizer::new(Fp8::E4M3).granularity(granularity);
        let out = folder.path().join("out");
        let error = Writer::new(Dialect::Altgrad).quantize(&original, quantizer, out, |_| ()).unwrap_err().to_string();
        assert!(error.contains("layer `a.b`") && error.contains("[2900, 7]"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn progress_ends_at_the_total() {
    let folder = tempfile::tempdir().unwrap();
    let original = original(&folder.path().join("in"), DType::F32);
    let mut seen = Vec::new();
    let quantizer = Quantizer::new(Fp8::E4M3);
    Writer::new(Dialect::Altgrad)
        .quantize(&original, quantizer, folder.path().join("out"), |at| seen.push((at.done, at.total)))
        .unwrap();
    assert!(seen.is_sorted() && seen.len() > 6, "{seen:?}");
    assert!(seen.iter().all(|(done, total)| done < total));
}

#[test]
fn comparing_shows_what_moved() {
    let folder = tempfile::tempdir().unwrap();
    let original = original(&folder.path().join("in"), DType::F32);
    let out = folder.path().join("out");
    let report = Writer::new(Dialect::Altgrad).quantize(&original, Fp8::E4M3, &out, |_| ()).unwrap();
    let comparison = compare(&original, &Checkpoint::open(&[&out]).unwrap()).unwrap();
    assert_eq!(comparison.tensors.len(), 8);
    assert!(comparison.only_in_first.is_empty() && comparison.only_in_second.is_empty());
    for tensor in &comparison.tensors {
        match tensor.name.strip_suffix(".weight").and_then(|path| report.layer(path)?.distortion) {
            Some(distortion) => {
                assert!((tensor.sqnr_db - distortion.sqnr_db).abs() < 1e-9, "{tensor:?}");
                assert_eq!(tensor.max_abs_error, distortion.max_abs_error);
            }
            None => assert_eq!((tensor.differing, tensor.max_abs_error), (0, 0.0), "{tensor:?}"),
        }
    }
    let text = comparison.to_string();
    assert!(text.contains("8 tensors in both, 6 of them equal"), "{text}");
}

#[test]
fn inspecting_shows_dialect_formats_and_scales() {
    let folder = tempfile::tempdir().unwrap();
    let original = original(&folder.path().join("in"), DType::F32);
    let out = folder.path().join("out");
    let recipe = Recipe::weight_only(Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow))
        .activations(Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow));
    Writer::new(Dialect::ModelOpt).quantize(&original, recipe, &out, |_| ()).unwrap();
    let contents = Checkpoint::open(&[&out]).unwrap().inspect().unwrap();
    assert_eq!(contents.dialect, Dialect::ModelOpt);
    let large = contents.tensors.iter().find(|tensor| tensor.name == "large.weight").unwrap();
    let quantized = large.quantized.as_ref().unwrap();
    assert_eq!((quantized.format, quantized.granularity, quantized.scales), (Fp8::E4M3, Granularity::PerRow, 3000));
    assert!(quantized.smallest_scale > 0.0 && quantized.smallest_scale < quantized.largest_scale);
    assert_eq!(large.bytes, 3000 * 520 + 4 * 3000);
    let text = contents.to_string();
    assert!(text.contains("dialect modelopt, 2 of 8 tensors quantized"), "{text}");
    let json = serde_json::to_value(&contents).unwrap();
    assert_eq!(json["tensors"][0]["quantized"]["granularity"], "per_row");
}

#[test]
fn a_row_may_be_longer_than_a_piece() {
    let folder = tempfile::tempdir().unwrap();
    let (inputs, values) = (1_100_000, vec![0.5f32; 2_200_000]);
    let tensors = HashMap::from([("a.weight", Tensor::from_vec(values, (2, inputs), &Device::Cpu).unwrap())]);
    let file = folder.path().join("model.safetensors");
    candle_core::safetensors::save(&tensors, &file).unwrap();
    fs::write(folder.path().join("another.json"), "{}").unwrap();
    let original = Checkpoint::open(&[&file]).unwrap();
    for (out, granularity) in [("tensor", Granularity::PerTensor), ("row", Granularity::PerRow)] {
        let out = folder.path().join(out);
        let quantizer = Quantizer::new(Fp8::E4M3).granularity(granularity);
        Writer::new(Dialect::Altgrad).quantize(&original, quantizer, &out, |_| ()).unwrap();
        let comparison = compare(&original, &Checkpoint::open(&[&out]).unwrap()).unwrap();
        assert_eq!(comparison.tensors[0].max_abs_error, 0.0);
        // Beside a file that was given by itself there may be anything.
        assert!(!out.join("another.json").exists());
    }
}

#[test]
fn what_is_not_quantized_or_not_measured_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let original = original(&folder.path().join("in"), DType::F32);
    let out = folder.path().join("out");
    let mut model = model(&original, DType::F32);
    let writer = Writer::new(Dialect::Altgrad);
    let nothing = QuantConfig::new(Fp8::E4M3).skip("**");
    for error in
        [writer.save(&model, &out).unwrap_err(), writer.quantize(&original, nothing, &out, |_| ()).unwrap_err()]
    {
        assert!(matches!(error, Error::Checkpoint(CheckpointError::NothingToWrite)), "{error}");
    }
    // Before the first step a delayed scale is 1, which is no measure of the weight or its input.
    model.quantize(Recipe::hybrid()).unwrap();
    let inputs_alone = Recipe::tensorwise().activations(Recipe::hybrid().activations.unwrap());
    let errors = [
        writer.save(&model, &out).unwrap_err(),
        writer.quantize(&original, Recipe::hybrid(), &out, |_| ()).unwrap_err(),
        writer.quantize(&original, inputs_alone.clone(), &out, |_| ()).unwrap_err(),
        {
            model.freeze().unwrap();
            writer.save(&model, &out).unwrap_err()
        },
    ];
    for error in errors {
        let Error::Layer { path, source } = &error else { panic!("{error}") };
        assert!(matches!(**source, Error::Model(ModelError::NoHistory { .. })) && !path.is_empty(), "{error}");
    }
    assert!(!out.exists());
    assert!(matches!(model.make_trainable(), Err(Error::Model(ModelError::NothingToTrain))));
}
