//! Training and eval mode: who has which, what codes are kept for how long, and which weight a backward pass sees.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use altgrad::{Compute, Fp8, Granularity, Linear, QuantConfig, Quantizable, Quantizer, Recipe, Scaling, Ste};
use candle_core::{DType, Module, Tensor, Var};
use candle_nn::{Optimizer, SGD};
use common::{Gpt, Numbers, gpt, tokens, values};

fn recipes() -> Vec<(String, Recipe)> {
    let named = Recipe::NAMED.map(|(name, recipe)| (name.to_owned(), recipe()));
    let weights = [Fp8::E4M3, Fp8::E3M4].map(|format| (format.to_string(), Recipe::from(format)));
    let rows = Recipe::from(Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow));
    let clipped = [("clipped mxfp8", Recipe::mxfp8()), ("clipped rows", rows), ("clipped hybrid", Recipe::hybrid())];
    let clipped = clipped.map(|(name, recipe)| (name.to_owned(), recipe.ste(Ste::Clipped)));
    named.into_iter().chain(weights).chain(clipped).collect()
}

fn modes(model: &Gpt) -> Vec<bool> {
    model.layers().unwrap().into_iter().map(|(_, layer)| layer.is_training()).collect()
}

#[test]
fn the_mode_is_that_of_the_slot() {
    let (mut model, _) = gpt(DType::F32, 1);
    let all = |training: bool| vec![training; 9];
    assert_eq!(modes(&model), all(true), "at first");
    model.eval().unwrap();
    assert_eq!(modes(&model), all(false), "in full precision");
    // Some layers, and then the others.
    model.quantize(QuantConfig::new(Fp8::E4M3).rule("h.0", None)).unwrap();
    assert_eq!(modes(&model), all(false), "quantized in part");
    model.quantize(Recipe::tensorwise()).unwrap();
    assert_eq!(modes(&model), all(false), "quantized");
    model.quantize(QuantConfig::new(Fp8::E4M3).rule("h.1", None)).unwrap();
    assert_eq!(modes(&model), all(false), "put back in part");
    model.make_trainable().unwrap();
    assert_eq!(modes(&model), all(false), "with other variables");
    model.freeze().unwrap();
    assert_eq!(modes(&model), all(false), "frozen");
    model.dequantize().unwrap();
    assert_eq!(modes(&model), all(false), "dequantized");
    model.quantize(Fp8::E5M2).unwrap();
    assert_eq!(modes(&model), all(false), "and once more");
    model.train().unwrap();
    assert_eq!(modes(&model), all(true), "until told otherwise");
}

#[test]
fn a_layer_that_is_quantized_in_eval_mode_records_nothing() {
    let (mut model, _) = gpt(DType::F32, 1);
    model.eval().unwrap();
    model.quantize(Recipe::hybrid()).unwrap();
    model.loss(&tokens(2, 9, 0)).unwrap().backward().unwrap();
    let state = model.quantizer_state().unwrap();
    for role in ["weights", "activations", "gradients"] {
        let key = format!("h.0.mlp.c_fc.{role}.step");
        assert_eq!(state[&key].to_scalar::<i64>().unwrap(), 0, "{key}");
    }
    assert!(!state.keys().any(|key| key.ends_with("amax_history")));
}

#[test]
fn the_precision_of_frozen_layers_is_that_of_the_slot() {
    let compute = |model: &Gpt| match model.layer("h.0.mlp.c_fc").unwrap() {
        Linear::Frozen(layer) => layer.compute(),
        _ => panic!("it was frozen"),
    };
    let (mut model, _) = gpt(DType::F32, 1);
    // Before there is anything that it applies to.
    model.set_compute(Compute::Bf16Activations).unwrap();
    for _ in 0..2 {
        model.quantize(Fp8::E4M3).unwrap();
        model.freeze().unwrap();
        assert_eq!(compute(&model), Compute::Bf16Activations);
        model.dequantize().unwrap();
    }
}

/// A layer over a variable of its own, and what it is called with.
struct Trained {
    layer: Linear,
    weight: Var,
    x: Tensor,
}

impl Trained {
    fn new(recipe: Recipe, dtype: DType) -> Self {
        let numbers = Numbers::new(3);
        let tensor = |dims: (usize, usize)| numbers.tensor(dims).to_dtype(dtype).unwrap();
        let weight = Var::from_tensor(&tensor((40, 36))).unwrap();
        let mut layer = Linear::new(weight.as_tensor().clone(), None);
        layer.quantize(recipe).unwrap();
        Self { layer, weight, x: tensor((70, 36)) }
    }

    fn loss(&self) -> Tensor {
        self.layer.forward(&self.x).unwrap().sqr().unwrap().mean_all().unwrap()
    }

    fn y(&self) -> Vec<f64> {
        values(&self.layer.forward(&self.x).unwrap())
    }

    /// What a layer computes that was made of the weight as it is.
    fn fresh(&self, recipe: Recipe) -> Vec<f64> {
        let mut layer = Linear::new(self.weight.as_tensor().copy().unwrap(), None);
        layer.eval().unwrap();
        layer.quantize(recipe).unwrap();
        values(&layer.forward(&self.x).unwrap())
    }
}

#[test]
fn a_layer_that_trains_in_eval_mode_computes_with_the_weights_that_it_has() {
    for dtype in [DType::F32, DType::F64] {
        for (name, recipe) in recipes() {
            let mut trained = Trained::new(recipe.clone(), dtype);
            trained.layer.eval().unwrap();
            let mut optimizer = SGD::new(vec![trained.weight.clone()], 0.5).unwrap();
            for step in 0..4 {
                let gradients = trained.loss().backward().unwrap();
                // A pass between the gradients and the step must not keep the codes from before it.
                let before = trained.y();
                optimizer.step(&gradients).unwrap();
                assert_ne!(trained.y(), before, "{name} {dtype:?}, step {step}");
                assert_eq!(trained.y(), trained.fresh(recipe.clone()), "{name} {dtype:?}, step {step}");
            }
        }
    }
}

#[test]
fn a_model_that_trains_in_eval_mode_learns() {
    let (mut model, variables) = gpt(DType::F32, 4);
    model.eval().unwrap();
    model.quantize(Recipe::rowwise()).unwrap();
    let mut optimizer = SGD::new(variables.all_vars(), 0.1).unwrap();
    let text = tokens(4, 9, 0);
    let mut last = f64::INFINITY;
    for step in 0..20 {
        let loss = model.loss(&text).unwrap();
        optimizer.backward_step(&loss).unwrap();
        if step % 5 == 4 {
            assert!(common::first(&loss) < last, "step {step}: {} after {last}", common::first(&loss));
            last = common::first(&loss);
        }
    }
}

#[test]
fn codes_are_kept_until_eval_is_called_again() {
    for dtype in [DType::F32, DType::F64] {
        for (name, recipe) in recipes() {
            let mut trained = Trained::new(recipe.clone(), dtype);
            trained.layer.eval().unwrap();
            let before = trained.y();
            trained.weight.set(&(trained.weight.as_tensor() * -3.0).unwrap()).unwrap();
            assert_eq!(trained.y(), before, "{name} {dtype:?}: kept");
            // `freeze` takes the weight as it is, kept codes or not.
            let Linear::Quantized(layer) = &trained.layer else { panic!("it was quantized") };
            let frozen = values(&layer.freeze().unwrap().forward(&trained.x).unwrap());
            trained.layer.eval().unwrap();
            assert_eq!(trained.y(), trained.fresh(recipe), "{name} {dtype:?}: made anew");
            assert_eq!(trained.y(), frozen, "{name} {dtype:?}: frozen");
        }
    }
}

#[test]
fn a_backward_pass_computes_with_the_weight_of_its_forward_pass() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for (name, recipe) in recipes() {
            for training in [true, false] {
                let gradients = |change: bool| {
                    let mut trained = Trained::new(recipe.clone(), dtype);
                    if !training {
                        trained.layer.eval().unwrap();
                    }
                    let x = Var::from_tensor(&trained.x).unwrap();
                    let loss = trained.layer.forward(&x).unwrap().sqr().unwrap().mean_all().unwrap();
                    if change {
                        trained.weight.set(&(trained.weight.as_tensor() * -3.0).unwrap()).unwrap();
                    }
                    let gradients = loss.backward().unwrap();
                    [&x, &trained.weight].map(|variable| values(gradients.get(variable).unwrap()))
                };
                assert_eq!(gradients(true), gradients(false), "{name} {dtype:?}, training {training}");
            }
        }
    }
}

#[test]
fn an_untracked_pass_in_eval_mode_leaves_no_other_weight_to_a_tracked_one() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for (name, recipe) in recipes() {
            let pass = |trained: &Trained| {
                let x = Var::from_tensor(&trained.x).unwrap();
                let y = trained.layer.forward(&x).unwrap();
                let gradients = y.sqr().unwrap().mean_all().unwrap().backward().unwrap();
                [values(&y), values(gradients.get(&x).unwrap()), values(gradients.get(&trained.weight).unwrap())]
            };
            let mut trained = Trained::new(recipe.clone(), dtype);
            trained.layer.eval().unwrap();
            trained.y();
            trained.weight.set(&(trained.weight.as_tensor() * -3.0).unwrap()).unwrap();

            let mut unmoved = Trained::new(recipe, dtype);
            unmoved.layer.eval().unwrap();
            assert_eq!(pass(&trained), pass(&unmoved), "{name} {dtype:?}");
        }
    }
}

#[test]
fn what_quantizes_and_what_reports_keeps_no_codes() {
    let mut trained = Trained::new(Recipe::rowwise(), DType::F32);
    trained.layer.eval().unwrap();
    trained.layer.quantize(Recipe::rowwise()).unwrap();
    trained.layer.report().unwrap();
    let Linear::Quantized(layer) = &trained.layer else { panic!("it was quantized") };
    layer.quantized_weight().unwrap();
    // Nothing was computed with the weight yet, so whoever loads it need not know of codes.
    trained.weight.set(&(trained.weight.as_tensor() * -3.0).unwrap()).unwrap();
    assert_eq!(trained.y(), trained.fresh(Recipe::rowwise()));
}

#[test]
fn a_layer_made_trainable_in_eval_mode_clips_gradients() {
    for dtype in [DType::F32, DType::F64] {
        // A fixed scale that much of the weight is beyond.
        let quantizer = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(0.001));
        let gradient = |is_used_before: bool| {
            let numbers = Numbers::new(3);
            let tensor = |dims: (usize, usize)| numbers.tensor(dims).to_dtype(dtype).unwrap();
            let mut layer = Linear::new(tensor((40, 36)), None);
            layer.quantize(Recipe::from(quantizer.clone()).ste(Ste::Clipped)).unwrap();
            layer.eval().unwrap();
            let x = tensor((70, 36));
            if is_used_before {
                layer.forward(&x).unwrap();
            }
            let made = layer.make_trainable().unwrap();
            let gradients = layer.forward(&x).unwrap().mean_all().unwrap().backward().unwrap();
            values(gradients.get(&made.variables[0].1).unwrap())
        };
        let expected = gradient(false);
        assert!(expected.contains(&0.0), "some of it is clipped");
        assert_eq!(gradient(true), expected, "{dtype:?}");
    }
}
