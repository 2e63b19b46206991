//! Surgery on a GPT: what is replaced, what is shared, what is restored, and what an error leaves behind.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use altgrad::report::{Action, SkipReason};
use altgrad::visit::Visit;
use altgrad::{
    Compute, ConfigError, Error, Fp8, Linear, ModelError, QuantConfig, Quantizable, Quantizer, Recipe, Scaling, Ste,
    TensorError, TiePolicy, linear,
};
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap};
use common::{Gpt, gpt, tokens, values};

const PROJECTIONS: [&str; 8] = [
    "h.0.attn.c_attn",
    "h.0.attn.c_proj",
    "h.0.mlp.c_fc",
    "h.0.mlp.c_proj",
    "h.1.attn.c_attn",
    "h.1.attn.c_proj",
    "h.1.mlp.c_fc",
    "h.1.mlp.c_proj",
];

fn kinds(model: &Gpt) -> Vec<&'static str> {
    let kind = |layer: &Linear| match layer {
        Linear::Full(_) => "full",
        Linear::Quantized(_) => "quantized",
        Linear::Frozen(_) => "frozen",
    };
    model.layers().unwrap().into_iter().map(|(_, layer)| kind(layer)).collect()
}

/// What a model holds: each layer's kind, and the identity and values of its tensors.
fn fingerprint(model: &Gpt) -> Vec<(String, &'static str, String, Vec<f64>)> {
    let describe = |(path, layer): (String, &Linear)| {
        let weight = layer.weight().unwrap();
        let ids = format!("{:?} {:?}", weight.id(), layer.bias().map(Tensor::id));
        (path, weight, ids)
    };
    let layers = model.layers().unwrap().into_iter().map(describe);
    layers.zip(kinds(model)).map(|((path, weight, ids), kind)| (path, kind, ids, values(&weight))).collect()
}

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
fn shapes_and_gradients_are_those_of_the_wrapped_layer() {
    for dims in [vec![5, 16], vec![2, 5, 16], vec![2, 3, 5, 16], vec![0, 16], vec![1, 1, 16]] {
        let (mut model, variables) = gpt(DType::F32, 5);
        let x = Var::from_tensor(&common::Numbers::new(6).tensor(dims.as_slice())).unwrap();
        let expected = model.h[0].mlp.c_fc.forward(&x).unwrap();
        model.quantize(Fp8::E4M3).unwrap();
        let y = model.h[0].mlp.c_fc.forward(&x).unwrap();
        assert_eq!(y.dims(), expected.dims());
        if dims[0] == 0 {
            continue;
        }
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let data = variables.data().lock().unwrap();
        for name in ["h.0.mlp.c_fc.weight", "h.0.mlp.c_fc.bias"] {
            assert_eq!(gradients.get(&data[name]).unwrap().dims(), data[name].dims());
        }
        assert_eq!(gradients.get(&x).unwrap().dims(), x.dims());
    }
}

/// Weight-only training differentiates the unquantized layer at the quantized weight.
#[test]
fn weight_only_gradients_are_the_unquantized_gradients_at_the_quantized_weight() {
    let numbers = common::Numbers::new(7);
    let weight = Var::from_tensor(&numbers.tensor((6, 5))).unwrap();
    let bias = Var::from_tensor(&numbers.tensor(6)).unwrap();
    let x = Var::from_tensor(&numbers.tensor((4, 5))).unwrap();
    let plain = candle_nn::Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
    let layer = altgrad::QuantizedLinear::new(plain, Fp8::E3M4).unwrap();
    let gradients = layer.forward(&x).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();

    let at = Var::from_tensor(&layer.quantized_weight().unwrap().dequantize().unwrap()).unwrap();
    let reference = candle_nn::Linear::new(at.as_tensor().clone(), Some(bias.as_tensor().clone()));
    let expected = reference.forward(&x).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
    for (ours, theirs) in [(&weight, &at), (&bias, &bias), (&x, &x)] {
        let [ours, theirs] = [gradients.get(ours), expected.get(theirs)].map(|gradient| values(gradient.unwrap()));
        let largest = theirs.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            // Sums of a few products, in another order than candle's.
            assert!((ours - theirs).abs() <= 1e-6 * largest, "{ours}, should be {theirs}");
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_mode() {
    let numbers = common::Numbers::new(8);
    let weight = Var::from_tensor(&numbers.tensor((6, 5))).unwrap();
    let x = numbers.tensor((4, 5));
    for ste in [Ste::PassThrough, Ste::Clipped] {
        let plain = candle_nn::Linear::new(weight.as_tensor().clone(), None);
        let mut layer = altgrad::QuantizedLinear::new(plain, Recipe::from(Fp8::E4M3).ste(ste)).unwrap();
        let gradient = |layer: &altgrad::QuantizedLinear| {
            let loss = layer.forward(&x).unwrap().sqr().unwrap().sum_all().unwrap();
            values(loss.backward().unwrap().get(&weight).unwrap())
        };
        let training = gradient(&layer);
        layer.set_training(false);
        assert_eq!(gradient(&layer), training);
        assert_eq!(gradient(&layer), training, "with the codes that the pass before kept");
    }
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
    assert!(
        matches!(&error, Error::Config(ConfigError::RuleMatchesNothing { nearest, .. }) if nearest[0] == "h.0.mlp.c_fc"),
        "{error}"
    );
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

#[test]
fn freezing_keeps_the_values_and_shrinks_the_weights() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        for format in [Fp8::E4M3, Fp8::E5M2, Fp8::E3M4, Fp8::E7M0, Fp8::E4M3_FNUZ] {
            let (mut model, _) = gpt(dtype, 16);
            model.quantize(format).unwrap();
            // What training computed with, through the differentiable path.
            let trained: Vec<_> = model
                .layers()
                .unwrap()
                .into_iter()
                .filter(|(_, layer)| layer.format().is_some())
                .map(|(path, layer)| {
                    let weight = layer.weight().unwrap();
                    (path, values(&altgrad::fake_quantize(&weight, &Quantizer::new(format)).unwrap()))
                })
                .collect();
            model.eval().unwrap();
            let logits = model.forward(&tokens(2, 8, 3)).unwrap();
            let report = model.freeze().unwrap();
            assert_eq!(kinds(&model), [["frozen"; 8].as_slice(), &["full"]].concat());
            assert_eq!(values(&model.forward(&tokens(2, 8, 3)).unwrap()), values(&logits));
            for (path, expected) in trained {
                let layer = model.layer(&path).unwrap();
                assert_eq!(values(&layer.weight().unwrap()), expected, "{path} {format} {dtype:?}");
                let Linear::Frozen(frozen) = layer else { panic!("not frozen") };
                assert_eq!(values(frozen.dequantize().unwrap().weight()), expected);
            }
            let entry = report.layer("h.0.attn.c_attn").unwrap();
            assert_eq!(entry.bytes_before, 48 * 16 * dtype.size_in_bytes());
            assert_eq!(entry.bytes_after, 48 * 16 + 4, "one byte a weight and one f32 scale");
        }
    }
}

#[test]
fn frozen_layers_read_activations_in_the_precision_that_the_model_is_set_to() {
    let (mut model, _) = gpt(DType::F32, 18);
    model.quantize(Fp8::E4M3).unwrap();
    model.set_compute(Compute::Bf16Activations).unwrap();
    model.freeze().unwrap();
    let set = |model: &Gpt| -> Vec<_> {
        let layers = model.layers().unwrap();
        let frozen = layers.into_iter().filter_map(|(_, layer)| match layer {
            Linear::Frozen(frozen) => Some(frozen.compute()),
            _ => None,
        });
        frozen.collect()
    };
    assert_eq!(set(&model), [Compute::Bf16Activations; 8], "slots remember it until there is something frozen");
    let rounded = values(&model.forward(&tokens(2, 8, 3)).unwrap());
    model.set_compute(Compute::Full).unwrap();
    assert_eq!(set(&model), [Compute::Full; 8]);
    let full = values(&model.forward(&tokens(2, 8, 3)).unwrap());
    let largest = full.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let difference = full.iter().zip(&rounded).fold(0.0, |largest: f64, (a, b)| largest.max((a - b).abs()));
    assert!(difference > 0.0 && difference < 0.05 * largest, "{difference} of {largest}");
    model.set_compute(Compute::Bf16Activations).unwrap();
    assert_eq!(values(&model.forward(&tokens(2, 8, 3)).unwrap()), rounded);
}

#[test]
fn a_frozen_layer_passes_the_gradient_to_its_input_and_its_bias() {
    let (mut model, variables) = gpt(DType::F32, 17);
    model.quantize(Fp8::E4M3).unwrap();
    model.freeze().unwrap();
    let gradients = model.loss(&tokens(2, 9, 0)).unwrap().backward().unwrap();
    let data = variables.data().lock().unwrap();
    assert!(gradients.get(&data["wte.weight"]).is_some());
    assert!(gradients.get(&data["h.0.mlp.c_fc.bias"]).is_some());
    assert!(gradients.get(&data["h.0.mlp.c_fc.weight"]).is_none(), "the codes are constants");
}

#[test]
fn a_frozen_model_dequantizes_to_what_it_computed_with_and_can_be_quantized_again() {
    let (mut model, _) = gpt(DType::F32, 18);
    model.quantize(Fp8::E4M3).unwrap();
    model.freeze().unwrap();
    let frozen = values(&model.layer("h.0.mlp.c_fc").unwrap().weight().unwrap());
    let text = model.quantize(Fp8::E4M3).unwrap_err().to_string();
    assert!(text.contains("`h.0.attn.c_attn`") && text.contains("call `dequantize`"), "{text}");
    assert!(model.freeze().unwrap().layers.iter().take(8).all(|layer| layer.action == Action::Frozen), "idempotent");

    model.dequantize().unwrap();
    assert_eq!(values(&model.layer("h.0.mlp.c_fc").unwrap().weight().unwrap()), frozen);
    model.quantize(Fp8::E4M3).unwrap();
    model.freeze().unwrap();
    assert_eq!(values(&model.layer("h.0.mlp.c_fc").unwrap().weight().unwrap()), frozen, "codes are stable");
}

#[test]
fn nothing_to_do_is_said() {
    let (mut model, _) = gpt(DType::F32, 19);
    assert!(matches!(model.freeze().unwrap_err(), Error::Model(ModelError::NothingToFreeze)));
    let mut none: Vec<Linear> = Vec::new();
    assert!(matches!(none.quantize(Fp8::E4M3).unwrap_err(), Error::Model(ModelError::NoLayers)));
    let text = model.layer("h.0.mlp.c_fcc").unwrap_err().to_string();
    assert!(text.starts_with("no layer has the path `h.0.mlp.c_fcc`; the nearest are `h.0.mlp.c_fc`"), "{text}");
    let text = model.layer_mut("head").unwrap_err().to_string();
    assert!(text.contains("`lm_head`"), "{text}");
}

#[test]
fn histories_move_in_training_mode_only() {
    let (mut model, variables) = gpt(DType::F32, 20);
    model.quantize(Quantizer::new(Fp8::E4M3).scaling(Scaling::Window { len: 3 })).unwrap();
    let history = |model: &Gpt| {
        let Linear::Quantized(layer) = model.layer("h.0.mlp.c_fc").unwrap() else { panic!("not quantized") };
        layer.weight_history().iter().collect::<Vec<_>>()
    };
    let set = |value: f32| {
        let weight = Tensor::full(value, (64, 16), &Device::Cpu).unwrap();
        variables.data().lock().unwrap()["h.0.mlp.c_fc.weight"].set(&weight).unwrap();
    };
    let scale = |model: &Gpt| {
        let Linear::Quantized(layer) = model.layer("h.0.mlp.c_fc").unwrap() else { panic!("not quantized") };
        layer.quantized_weight().unwrap().scales().to_scalar::<f32>().unwrap()
    };
    assert!(history(&model).is_empty());
    // The largest of the last three steps, the current one included, over E4M3's 448.
    for (value, expected) in [(4.0, 4.0), (2.0, 4.0), (1.0, 4.0), (0.5, 2.0), (0.25, 1.0), (8.0, 8.0)] {
        set(value);
        assert_eq!(scale(&model), expected / 448.0, "weight of {value}");
        model.forward(&tokens(1, 4, 0)).unwrap();
    }
    assert_eq!(history(&model), [0.25, 8.0]);
    model.eval().unwrap();
    model.forward(&tokens(1, 4, 0)).unwrap();
    assert_eq!(history(&model), [0.25, 8.0]);
    model.train().unwrap();
    model.forward(&tokens(1, 4, 0)).unwrap();
    assert_eq!(history(&model), [8.0, 8.0]);
}

#[test]
fn a_new_eval_call_sees_weights_that_changed() {
    let (mut model, variables) = gpt(DType::F32, 21);
    model.quantize(Fp8::E4M3).unwrap();
    model.eval().unwrap();
    let before = values(&model.forward(&tokens(1, 4, 0)).unwrap());
    let ones = Tensor::ones((64, 16), DType::F32, &Device::Cpu).unwrap();
    variables.data().lock().unwrap()["h.0.mlp.c_fc.weight"].set(&ones).unwrap();
    model.eval().unwrap();
    assert_ne!(values(&model.forward(&tokens(1, 4, 0)).unwrap()), before);
}

#[test]
fn wrong_inputs_are_errors_that_name_the_layer() {
    let (mut model, _) = gpt(DType::F32, 22);
    model.quantize(Fp8::E4M3).unwrap();
    for frozen in [false, true] {
        if frozen {
            model.freeze().unwrap();
        }
        let layer = &model.h[1].mlp.c_fc;
        let x = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        for (input, part) in [
            (x(&[2, 16], DType::BF16), "the input has dtype BF16, expected F32"),
            (x(&[2, 15], DType::F32), "the input has shape [2, 15], expected (…, 16)"),
            (x(&[16], DType::F32), "the input has shape [16], expected (…, 16)"),
            (x(&[], DType::F32), "the input has shape []"),
        ] {
            let text = layer.forward(&input).unwrap_err().to_string();
            assert!(text.starts_with("layer `h.1.mlp.c_fc`: ") && text.contains(part), "{text}");
        }
    }
}

#[test]
fn weights_that_cannot_be_quantized_are_left_and_reported() {
    let (mut model, _) = gpt(DType::F32, 23);
    let codes = Tensor::ones((3, 4), DType::U32, &Device::Cpu).unwrap();
    *model.layer_mut("h.0.mlp.c_fc").unwrap() = Linear::new(codes, None);
    let report = model.quantize(Fp8::E4M3).unwrap();
    let action = &report.layer("h.0.mlp.c_fc").unwrap().action;
    assert_eq!(*action, Action::Skipped(SkipReason::Unsupported("weight of dtype U32".to_owned())));

    *model.layer_mut("h.0.mlp.c_fc").unwrap() = Linear::new(Tensor::ones(4, DType::F32, &Device::Cpu).unwrap(), None);
    let text = model.quantize(Fp8::E4M3).unwrap_err().to_string();
    assert!(text.contains("`h.0.mlp.c_fc`") && text.contains("two dimensions"), "{text}");

    let huge = Tensor::full(1e300f64, (3, 4), &Device::Cpu).unwrap();
    *model.layer_mut("h.0.mlp.c_fc").unwrap() = Linear::new(huge, None);
    let text = model.quantize(Fp8::E4M3).unwrap_err().to_string();
    assert!(text.contains("magnitude of 1e300"), "{text}");
}

#[test]
fn zero_and_empty_weights_work() {
    for shape in [(3, 4), (0, 4), (3, 0)] {
        let weight = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let mut model = vec![Linear::new(weight, None)];
        model.quantize(Fp8::E4M3).unwrap();
        let Linear::Quantized(layer) = &model[0] else { panic!("not quantized") };
        assert_eq!(layer.quantized_weight().unwrap().scales().to_scalar::<f32>().unwrap(), 1.0);
        let x = Tensor::ones((2, shape.1), DType::F32, &Device::Cpu).unwrap();
        if shape.0 != 0 && shape.1 != 0 {
            assert_eq!(values(&model[0].forward(&x).unwrap()), vec![0.0; 2 * shape.0]);
        }
        model.freeze().unwrap();
        model.dequantize().unwrap();
        assert_eq!(model[0].weight().unwrap().dims(), [shape.0, shape.1]);
    }
}

#[test]
fn a_report_can_be_had_at_any_time() {
    let (mut model, variables) = gpt(DType::F32, 26);
    assert!(
        model.report().unwrap().layers.iter().all(|layer| layer.action == Action::Skipped(SkipReason::NotQuantized))
    );
    let quantized = model.quantize(Fp8::E4M3).unwrap();
    let before = fingerprint(&model);
    let report = model.report().unwrap();
    assert_eq!(report.layers[..8], quantized.layers[..8]);
    assert_eq!(fingerprint(&model), before);

    let ones = Tensor::ones((64, 16), DType::F32, &Device::Cpu).unwrap();
    variables.data().lock().unwrap()["h.0.mlp.c_fc.weight"].set(&ones).unwrap();
    assert_eq!(model.report().unwrap().layer("h.0.mlp.c_fc").unwrap().distortion.unwrap().max_abs_error, 0.0);
    assert_eq!(report.bytes_frozen(), model.freeze().unwrap().bytes_after());
}

#[test]
fn a_report_prints_as_a_table_and_as_json() {
    let (mut model, _) = gpt(DType::F32, 24);
    let report = model.quantize(Fp8::E4M3).unwrap();
    let text = report.to_string();
    assert!(text.contains("linear weights 26.6 kB (8.2 kB once frozen)"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["layers"][8]["action"]["skipped"]["tied"], "wte.weight");
    let report = model.freeze().unwrap();
    let text = report.to_string();
    for part in
        ["h.0.attn.c_attn", "48×16", "frozen", "E4M3", "3.1 kB → 772 B", "skipped: not", "8 of 9 layers quantized"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let narrow = format!("{report:80}");
    for (width, text) in [(100, &text), (80, &narrow)] {
        assert!(text.lines().all(|line| line.chars().count() <= width), "wider than {width}:\n{text}");
    }
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["layers"][0]["path"], "h.0.attn.c_attn");
    assert_eq!(json["layers"][0]["action"], "frozen");
    assert_eq!(json["layers"][0]["format"], "E4M3");
    assert_eq!(json["layers"][8]["action"]["skipped"], "not_quantized");
}

#[test]
fn a_model_behind_a_trait_object_works() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut model: Box<dyn Visit> = Box::new(vec![Some(linear(4, 4, vb).unwrap()), None]);
    model.quantize(Fp8::E4M3).unwrap();
    let inner: &mut dyn Visit = &mut *model;
    inner.eval().unwrap();
    inner.freeze().unwrap();
    assert_eq!(inner.layers().unwrap()[0].0, "0");
    inner.dequantize().unwrap();
}

#[test]
fn a_visit_that_shows_other_layers_than_visit_mut_is_an_error() {
    use altgrad::Result;
    use altgrad::visit::{Path, Visitor, VisitorMut};
    struct Inconsistent(Linear, Linear);
    impl Visit for Inconsistent {
        fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
            self.0.visit(&path.field("a"), visitor)?;
            self.1.visit(&path.field("b"), visitor)
        }

        fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
            self.0.visit_mut(&path.field("a"), visitor)
        }
    }
    let layer = || Linear::new(Tensor::ones((2, 2), DType::F32, &Device::Cpu).unwrap(), None);
    let mut model = Inconsistent(layer(), layer());
    let error = model.quantize(Fp8::E4M3).unwrap_err();
    assert!(matches!(&error, Error::Model(ModelError::InconsistentVisit { path }) if path == "b"), "{error}");
    assert!(matches!(model.0, Linear::Full(_)), "left as it was");
}

#[test]
fn errors_convert_both_ways() {
    fn in_candle(model: &mut Gpt) -> candle_core::Result<()> {
        model.freeze()?;
        Ok(())
    }
    fn in_altgrad() -> altgrad::Result<()> {
        Tensor::zeros(3, DType::F32, &Device::Cpu)?.reshape(4)?;
        Ok(())
    }
    let (mut model, _) = gpt(DType::F32, 25);
    assert!(in_candle(&mut model).unwrap_err().to_string().contains("nothing to freeze"));
    assert!(matches!(in_altgrad().unwrap_err(), Error::Candle(_)));
}
