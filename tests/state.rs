//! What quantizers remember: by name, to a file and back, and on with identical bits.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::HashMap;

use altgrad::visit::{Path, Visit, Visitor, VisitorMut};
use altgrad::{Error, Fp8, Linear, ModelError, QuantConfig, Quantizable, Quantizer, Recipe, Rounding, Scaling};
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::{Optimizer, SGD, VarMap};
use common::{Gpt, gpt, tokens, values};

/// Stochastic gradients on top of a recipe, so that the step counters matter as well.
fn with_stochastic_gradients(mut recipe: Recipe) -> Recipe {
    recipe.gradients = recipe.gradients.map(|gradients| gradients.rounding(Rounding::Stochastic { seed: 3 }));
    recipe
}

fn steps(model: &Gpt, variables: &VarMap, range: std::ops::Range<usize>) -> Vec<f64> {
    // Plain descent has no state of its own.
    let mut optimizer = SGD::new(variables.all_vars(), 0.1).unwrap();
    let step = |step: usize| {
        let loss = model.loss(&tokens(4, 9, 3 * step)).unwrap();
        optimizer.backward_step(&loss).unwrap();
        common::first(&loss)
    };
    range.map(step).collect()
}

fn weights(variables: &VarMap) -> Vec<(String, Vec<f64>)> {
    common::sorted(variables).into_iter().map(|(name, variable)| (name, values(&variable))).collect()
}

fn assert_resumes(config: &QuantConfig) {
    let (mut model, variables) = gpt(DType::F32, 5);
    model.quantize(config.clone()).unwrap();
    let losses = steps(&model, &variables, 0..20);

    let folder = tempfile::tempdir().unwrap();
    let [weights_file, state_file] = ["weights", "quantizers"].map(|name| folder.path().join(name));
    let (mut model, first) = gpt(DType::F32, 5);
    model.quantize(config.clone()).unwrap();
    assert_eq!(steps(&model, &first, 0..10), losses[..10]);
    first.save(&weights_file).unwrap();
    safetensors::save(&model.quantizer_state().unwrap(), &state_file).unwrap();

    // Other weights at first, as in another process.
    let (mut model, mut second) = gpt(DType::F32, 6);
    second.load(&weights_file).unwrap();
    model.quantize(config.clone()).unwrap();
    let state = safetensors::load(&state_file, &Device::Cpu).unwrap();
    model.load_quantizer_state(&state).unwrap();
    assert_eq!(steps(&model, &second, 10..20), losses[10..]);
    assert_eq!(weights(&second), weights(&variables));

    // Without the state it would have gone another way.
    let (mut model, mut third) = gpt(DType::F32, 6);
    third.load(&weights_file).unwrap();
    model.quantize(config.clone()).unwrap();
    assert_ne!(steps(&model, &third, 10..20), losses[10..]);
}

#[test]
fn twenty_steps_are_ten_and_ten_with_a_file_between_them() {
    assert_resumes(&QuantConfig::new(Recipe::hybrid()));
}

#[test]
fn resuming_goes_on_with_the_draws_and_windows() {
    let config = QuantConfig::new(with_stochastic_gradients(Recipe::tensorwise()))
        .rule("h.0", with_stochastic_gradients(Recipe::mxfp8()))
        .rule("h.1.mlp", Fp8::E4M3);
    assert_resumes(&config);
}

#[test]
fn the_state_is_named_by_path_and_role() {
    let (mut model, variables) = gpt(DType::F32, 7);
    let config = QuantConfig::new(Recipe::hybrid())
        .skip("h.0")
        .rule("h.1.mlp.c_fc", Recipe::tensorwise())
        .rule("h.1.mlp.c_proj", Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(0.5)))
        .rule("h.1.attn.c_proj", Fp8::E5M2);
    model.quantize(config).unwrap();
    steps(&model, &variables, 0..3);
    let state = model.quantizer_state().unwrap();
    let mut keys: Vec<_> = state.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "h.1.attn.c_attn.activations.amax_history",
            "h.1.attn.c_attn.activations.step",
            "h.1.attn.c_attn.gradients.amax_history",
            "h.1.attn.c_attn.gradients.step",
            "h.1.attn.c_attn.weights.amax_history",
            "h.1.attn.c_attn.weights.step",
            "h.1.attn.c_proj.weights.amax_history",
            "h.1.attn.c_proj.weights.step",
            "h.1.mlp.c_fc.activations.step",
            "h.1.mlp.c_fc.gradients.step",
            "h.1.mlp.c_fc.weights.step",
            "h.1.mlp.c_proj.weights.scale",
            "h.1.mlp.c_proj.weights.step",
        ]
    );
    let step = &state["h.1.attn.c_attn.gradients.step"];
    assert_eq!((step.dtype(), step.rank(), step.to_scalar::<i64>().unwrap()), (DType::I64, 0, 3));
    let history = &state["h.1.attn.c_attn.gradients.amax_history"];
    assert_eq!((history.dtype(), history.dims()), (DType::F32, [3].as_slice()));
    assert_eq!(values(&state["h.1.mlp.c_proj.weights.scale"]), [0.5]);
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let (mut model, variables) = gpt(DType::F32, 8);
    let mut recipe = Recipe::weight_only(Fp8::E4M3);
    recipe.weights.scaling = Scaling::Window { len: 4 };
    model.quantize(QuantConfig::new(recipe).skip("h.1")).unwrap();
    steps(&model, &variables, 0..5);
    let state = model.quantizer_state().unwrap();
    let prefix = "h.0.mlp.c_fc.weights";
    let key = |name: &str| format!("{prefix}.{name}");
    let float = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
    let mut error = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut changed = state.clone();
        change(&mut changed);
        let error = model.load_quantizer_state(&changed).unwrap_err().to_string();
        let now = model.quantizer_state().unwrap();
        for (key, tensor) in &state {
            assert_eq!(values(tensor), values(&now[key]), "{key} after: {error}");
        }
        error
    };
    assert_eq!(
        error(&|state| drop(state.remove(&key("step")))),
        "layer `h.0.mlp.c_fc`: the quantizer state has no tensor `h.0.mlp.c_fc.weights.step`; \
         was it saved from a model with the same config?"
    );
    let unknown = error(&|state| drop(state.insert("h.9.mlp.c_fc.weights.step".to_owned(), float(&[1.0]))));
    assert!(
        unknown
            .starts_with("the model has no use for the quantizer state `h.9.mlp.c_fc.weights.step`; the nearest are")
    );
    let wrong = [
        ("step", float(&[1.0]), "it is F32 of shape [1], expected one I64"),
        ("step", Tensor::new(-1i64, &Device::Cpu).unwrap(), "-1 is not a number of steps"),
        ("amax_history", float(&[f32::NAN]), "NaN is not a largest magnitude"),
        ("amax_history", float(&[1.0, -1.0]), "-1 is not a largest magnitude"),
        (
            "amax_history",
            Tensor::new(&[1i64], &Device::Cpu).unwrap(),
            "it is I64 of shape [1], expected F32 of one dimension",
        ),
        ("scale", float(&[1.0, 2.0]), "it is F32 of shape [2], expected one F32"),
    ];
    for (name, tensor, why) in wrong {
        let message = error(&|state| drop(state.insert(key(name), tensor.clone())));
        assert_eq!(message, format!("layer `h.0.mlp.c_fc`: the quantizer state `{prefix}.{name}` does not fit: {why}"));
    }
    let message = error(&|state| drop(state.insert(key("scale"), float(&[0.0]))));
    assert_eq!(
        message,
        "layer `h.0.mlp.c_fc`: the quantizer state `h.0.mlp.c_fc.weights.scale` does not fit: \
         a scale must be a positive finite number, this one is 0"
    );
}

#[test]
fn of_a_longer_history_the_last_steps_count() {
    let delayed = |len| Recipe::from(Quantizer::new(Fp8::E4M3).scaling(Scaling::Delayed { len, margin: 0 }));
    let history = |model: &Gpt| match model.layer("h.0.mlp.c_fc").unwrap() {
        Linear::Quantized(layer) => layer.weight_history().iter().collect::<Vec<_>>(),
        _ => panic!("it was quantized"),
    };
    let (mut model, variables) = gpt(DType::F32, 9);
    model.quantize(delayed(5)).unwrap();
    steps(&model, &variables, 0..7);
    let (state, long) = (model.quantizer_state().unwrap(), history(&model));
    assert_eq!(long.len(), 5);
    for len in [2, 5, 9] {
        model.quantize(delayed(len)).unwrap();
        model.load_quantizer_state(&state).unwrap();
        assert_eq!(history(&model), long[5usize.saturating_sub(len)..]);
    }
}

#[test]
fn state_of_a_layer_that_remembers_nothing_says_so() {
    let (mut model, _) = gpt(DType::F32, 9);
    model.quantize(Recipe::hybrid()).unwrap();
    model.forward(&tokens(2, 8, 0)).unwrap();
    let state = model.quantizer_state().unwrap();
    model.freeze().unwrap();
    assert_eq!(
        model.load_quantizer_state(&state).unwrap_err().to_string(),
        "layer `h.0.attn.c_attn`: the quantizer state `h.0.attn.c_attn.weights.step` does not fit: the layer is frozen \
         and remembers no steps; load the state before `freeze`"
    );
    model.dequantize().unwrap();
    model.quantize(QuantConfig::new(Recipe::hybrid()).skip("h.1.mlp.c_proj")).unwrap();
    assert_eq!(
        model.load_quantizer_state(&state).unwrap_err().to_string(),
        "layer `h.1.mlp.c_proj`: the quantizer state `h.1.mlp.c_proj.weights.step` does not fit: the layer is in full \
         precision; `quantize` the model first, by the config that it had when the state was saved"
    );
}

#[test]
fn a_calibrated_model_needs_the_scales() {
    for recipe in [Recipe::tensorwise(), Recipe::hybrid()] {
        let (mut model, _) = gpt(DType::F32, 9);
        model.quantize(recipe).unwrap();
        model.forward(&tokens(2, 8, 0)).unwrap();
        let before = model.quantizer_state().unwrap();
        model.calibrate(|model| model.forward(&tokens(2, 8, 0)).map(drop).map_err(Error::from)).unwrap();
        let error = model.load_quantizer_state(&before).unwrap_err().to_string();
        assert!(error.contains("has no tensor `h.0.attn.c_attn.activations.scale`"), "{error}");
        let state = model.quantizer_state().unwrap();
        model.load_quantizer_state(&state).unwrap();
    }
}

/// Shows its layers in another order to be changed than to be read.
struct Crossed([Linear; 2]);

impl Visit for Crossed {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> altgrad::Result<()> {
        self.0[0].visit(&path.field("a"), visitor)?;
        self.0[1].visit(&path.field("b"), visitor)
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> altgrad::Result<()> {
        let [a, b] = &mut self.0;
        b.visit_mut(&path.field("b"), visitor)?;
        a.visit_mut(&path.field("a"), visitor)
    }
}

#[test]
fn state_never_goes_to_another_layer() {
    let layer = || {
        let mut layer = Linear::new(Tensor::ones((3, 4), DType::F32, &Device::Cpu).unwrap(), None);
        layer.quantize(Fp8::E4M3).unwrap();
        layer
    };
    let mut model = Crossed([layer(), layer()]);
    let state = model.quantizer_state().unwrap();
    let error = model.load_quantizer_state(&state).unwrap_err();
    assert!(matches!(error, Error::Model(ModelError::InconsistentVisit { .. })), "{error}");
}

#[test]
fn quantizing_again_starts_anew_in_the_same_mode() {
    let (mut model, _) = gpt(DType::F32, 10);
    model.quantize(Recipe::hybrid()).unwrap();
    model.forward(&tokens(2, 8, 0)).unwrap();
    model.eval().unwrap();
    model.quantize(Recipe::hybrid()).unwrap();
    let Linear::Quantized(layer) = model.layer("h.0.mlp.c_fc").unwrap() else { panic!("quantized") };
    assert!(!layer.is_training());
    assert!(layer.weight_history().is_empty() && layer.input_history().is_empty());
}
