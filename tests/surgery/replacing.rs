//! What is replaced, and what stays: ties, rules, failures.

use super::common::{Gpt, gpt, tokens, values};
use super::*;
use altgrad::report::{Action, SkipReason};
use altgrad::{ConfigError, Error, Fp8, Linear, QuantConfig, Quantizable, Quantizer, Scaling, TensorError, TiePolicy};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer};

#[test]
fn attention_and_mlp_projections_are_replaced_and_the_tied_head_is_not() {
    let (mut model, _) = gpt(DType::F32, 1);
    let report = model.quantize(Fp8::E5M2).unwrap();
    assert_eq!(kinds(&model), [["quantized"; 8].as_slice(), &["full"]].concat());

    let paths: Vec<_> = report.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths, [PROJECTIONS.as_slice(), &["lm_head"]].concat());
    assert!(report.layers[..8].iter().all(|layer| layer.action == Action::Quantized));
    assert!(report.layers[..8].iter().all(|layer| layer.format == Some(Fp8::E5M2)));
    assert_eq!(report.layer("h.0.attn.c_attn").unwrap().shape, [48, 16]);
    let head = report.layer("lm_head").unwrap();
    assert_eq!(head.action, Action::Skipped(SkipReason::Tied("wte.weight".to_owned())));
    assert_eq!(head.format, None);
}

#[test]
fn the_tie_lasts_through_quantize_training_freeze_and_dequantize() {
    let (mut model, variables) = gpt(DType::F32, 2);
    let before = model.lm_head.weight().unwrap().id();
    let tied = |model: &Gpt| {
        let (head, embedding) = (model.lm_head.weight().unwrap(), model.wte.embeddings());
        assert_eq!(head.id(), embedding.id());
        assert_eq!(head.id(), before);
        assert_eq!(values(&head), values(embedding));
    };
    tied(&model);
    for policy in [TiePolicy::KeepFullPrecision, TiePolicy::Quantize] {
        model.quantize(QuantConfig::new(Fp8::E4M3).ties(policy)).unwrap();
        tied(&model);
        let quantized = matches!(model.lm_head, Linear::Quantized(_));
        assert_eq!(quantized, policy == TiePolicy::Quantize);

        let old = values(model.wte.embeddings());
        let mut optimizer = AdamW::new_lr(variables.all_vars(), 1e-2).unwrap();
        for _ in 0..2 {
            optimizer.backward_step(&model.loss(&tokens(2, 9, 0)).unwrap()).unwrap();
        }
        tied(&model);
        assert_ne!(values(model.wte.embeddings()), old, "training moves the shared weight");
    }
    let report = model.freeze().unwrap();
    assert_eq!(
        report.layer("lm_head").unwrap().action,
        Action::Skipped(SkipReason::Tied("wte.weight".to_owned())),
        "freezing would break the tie",
    );
    tied(&model);
    model.dequantize().unwrap();
    tied(&model);
}

#[test]
fn layers_tied_to_each_other_are_found_whatever_the_fields_are_called() {
    #[derive(Quantizable)]
    struct Twins {
        one: Linear,
        two: Linear,
        other: Linear,
    }
    let weight = || Var::from_tensor(&common::Numbers::new(3).tensor((4, 4))).unwrap();
    let shared = weight();
    let new = |weight: &Var| Linear::new(weight.as_tensor().clone(), None);
    let mut model = Twins { one: new(&shared), two: new(&shared), other: new(&weight()) };
    let report = model.quantize(Fp8::E4M3).unwrap();
    let action = |path: &str| report.layer(path).unwrap().action.clone();
    assert_eq!(action("one"), Action::Skipped(SkipReason::Tied("two.weight".to_owned())));
    assert_eq!(action("two"), Action::Skipped(SkipReason::Tied("one.weight".to_owned())));
    assert_eq!(action("other"), Action::Quantized);
}

#[test]
fn the_wrapper_keeps_the_tensors_and_the_optimizer_moves_them() {
    let (mut model, variables) = gpt(DType::F32, 4);
    model.quantize(Fp8::E4M3).unwrap();
    let Linear::Quantized(layer) = &model.h[0].mlp.c_fc else { panic!("not quantized") };
    let data = variables.data().lock().unwrap();
    let (weight, bias) = (data["h.0.mlp.c_fc.weight"].clone(), data["h.0.mlp.c_fc.bias"].clone());
    drop(data);
    assert_eq!(layer.weight().id(), weight.id());
    assert_eq!(layer.bias().unwrap().id(), bias.id());

    let (old_weight, old_bias) = (values(&weight), values(&bias));
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 1e-2).unwrap();
    optimizer.backward_step(&model.loss(&tokens(2, 9, 0)).unwrap()).unwrap();
    assert_ne!(values(layer.weight()), old_weight);
    assert_ne!(values(layer.bias().unwrap()), old_bias);
    assert_eq!(values(layer.weight()), values(&weight));
}

#[test]
fn dequantize_restores_the_very_same_tensors() {
    let (mut model, _) = gpt(DType::F32, 9);
    let before = fingerprint(&model);
    model.quantize(Fp8::E3M4).unwrap();
    assert_ne!(fingerprint(&model), before);
    let report = model.dequantize().unwrap();
    assert_eq!(fingerprint(&model), before);
    assert_eq!(report.layer("h.1.mlp.c_fc").unwrap().action, Action::Restored);
    assert_eq!(report.layer("lm_head").unwrap().action, Action::Skipped(SkipReason::NotQuantized));
}

#[test]
fn rules_choose_formats_by_path_and_the_first_match_wins() {
    let (mut model, _) = gpt(DType::F32, 10);
    let config = QuantConfig::new(Fp8::E4M3)
        .rule("h.0.attn", None)
        .rule("**.c_proj", Fp8::E3M4)
        .rule("h.1.*.c_attn", Quantizer::new(Fp8::E5M2).scaling(Scaling::Current));
    let report = model.quantize(config).unwrap();
    let formats: Vec<_> = report.layers.iter().map(|layer| layer.format).collect();
    let (e4m3, e3m4, e5m2) = (Some(Fp8::E4M3), Some(Fp8::E3M4), Some(Fp8::E5M2));
    assert_eq!(formats, [None, None, e4m3, e3m4, e5m2, e3m4, e4m3, e3m4, None]);
    let skipped = &report.layer("h.0.attn.c_proj").unwrap().action;
    assert_eq!(*skipped, Action::Skipped(SkipReason::Rule("h.0.attn".to_owned())));
}

#[test]
fn several_skips_hold_and_quantizing_again_makes_the_model_what_the_new_config_says() {
    let (mut model, _) = gpt(DType::F32, 11);
    model.quantize(QuantConfig::new(Fp8::E4M3).skip("h.0").skip("**.c_attn").skip("lm_head")).unwrap();
    let expected = ["full", "full", "full", "full", "full", "quantized", "quantized", "quantized", "full"];
    assert_eq!(kinds(&model), expected);
    let weight = model.layer("h.1.attn.c_proj").unwrap().weight().unwrap().id();

    model.quantize(QuantConfig::new(Fp8::E5M2).skip("h.1.attn")).unwrap();
    let expected =
        ["quantized", "quantized", "quantized", "quantized", "full", "full", "quantized", "quantized", "full"];
    assert_eq!(kinds(&model), expected);
    assert_eq!(model.layer("h.1.attn.c_proj").unwrap().weight().unwrap().id(), weight);
}

#[test]
fn a_rule_that_matches_nothing_names_the_nearest_path() {
    let (mut model, _) = gpt(DType::F32, 12);
    let before = fingerprint(&model);
    let error = model.quantize(QuantConfig::new(Fp8::E4M3).skip("h.0.mlp.c_fcc")).unwrap_err();
    let Error::Config(ConfigError::RuleMatchesNothing { nearest, .. }) = &error else { panic!("{error}") };
    assert_eq!(nearest[0], "h.0.mlp.c_fc");
    let text = error.to_string();
    assert!(text.contains("`h.0.mlp.c_fcc`") && text.contains("the nearest are `h.0.mlp.c_fc`"), "{text}");
    // A substring is not a path.
    assert!(matches!(
        model.quantize(QuantConfig::new(Fp8::E4M3).skip("c_proj")).unwrap_err(),
        Error::Config(ConfigError::RuleMatchesNothing { .. })
    ));
    assert_eq!(fingerprint(&model), before);
}

#[test]
fn a_rule_behind_others_that_take_all_its_layers_is_an_error() {
    let (mut model, _) = gpt(DType::F32, 13);
    let config = QuantConfig::new(Fp8::E4M3).skip("h.0").skip("h.1").rule("h.*.mlp", Fp8::E5M2);
    let text = model.quantize(config).unwrap_err().to_string();
    assert!(text.starts_with("rule `h.*.mlp` never applies") && text.contains("(`h.0`, `h.1`)"), "{text}");
    let text = model.quantize(QuantConfig::new(Fp8::E4M3).skip("re:h.(")).unwrap_err().to_string();
    assert!(text.contains("rule `re:h.(` is not a pattern") && text.contains("unclosed group"), "{text}");
}

#[test]
fn a_failing_surgery_leaves_the_model_as_it_was() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (mut model, variables) = gpt(DType::F32, 14);
        model.quantize(QuantConfig::new(Fp8::E5M2).skip("h.1")).unwrap();
        let mut weight = values(&variables.data().lock().unwrap()["h.1.mlp.c_proj.weight"]);
        weight[64 + 2] = f64::from(bad);
        let spoilt = Tensor::from_vec(weight, (16, 64), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        variables.data().lock().unwrap()["h.1.mlp.c_proj.weight"].set(&spoilt).unwrap();
        let before: Vec<_> = fingerprint(&model).into_iter().map(|(path, kind, ids, _)| (path, kind, ids)).collect();

        let error = model.quantize(Fp8::E4M3).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(&error, Error::Layer { path, source } if path == "h.1.mlp.c_proj"
            && matches!(&**source, Error::Tensor(TensorError::NotFinite { index, .. }) if *index == [1, 2])),
            "{text}"
        );
        assert!(text.starts_with("layer `h.1.mlp.c_proj`: the weight has a value that is not finite"), "{text}");
        let after: Vec<_> = fingerprint(&model).into_iter().map(|(path, kind, ids, _)| (path, kind, ids)).collect();
        assert_eq!(after, before);
        assert_eq!(model.layer("h.0.mlp.c_fc").unwrap().format(), Some(Fp8::E5M2));
    }
}

#[test]
fn freezing_a_weight_that_is_not_finite_is_an_error_that_names_the_layer() {
    for format in [Fp8::E4M3, Fp8::E3M4] {
        let (mut model, variables) = gpt(DType::F32, 15);
        model.quantize(format).unwrap();
        let nan = Tensor::full(f32::NAN, (48, 16), &Device::Cpu).unwrap();
        variables.data().lock().unwrap()["h.1.attn.c_attn.weight"].set(&nan).unwrap();
        let text = model.freeze().unwrap_err().to_string();
        assert!(text.starts_with("layer `h.1.attn.c_attn`"), "{text}");
        assert_eq!(kinds(&model), [["quantized"; 8].as_slice(), &["full"]].concat());
        // NaN goes through a forward pass as NaN, in both modes, even where no code can hold it.
        assert!(common::first(&model.forward(&tokens(1, 4, 0)).unwrap()).is_nan());
        model.eval().unwrap();
        assert!(common::first(&model.forward(&tokens(1, 4, 0)).unwrap()).is_nan());
    }
}
