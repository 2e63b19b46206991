//! Training through the builder: gradients, and models that learn.

use std::collections::HashMap;

use altgrad::{Fp8, Quantizable, QuantizedVarBuilder, Quantizer, Recipe, Scaling, Ste};
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap, linear};
use candle_transformers::models::modernbert::ModernBertForMaskedLM;

use crate::common::{self, Numbers, sorted, tokens, values};
use crate::families::{modernbert_config, modernbert_layers};
use crate::{Model, bits, builder_of, by_hand, randomize};

fn current() -> Quantizer {
    Quantizer::new(Fp8::E4M3).scaling(Scaling::Current)
}

#[test]
fn gradients_are_those_of_altgrads_own_layer() {
    for ste in [Ste::PassThrough, Ste::Clipped] {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
        linear(6, 4, vb.pp("fc")).unwrap();
        randomize(&variables, 1);
        // A static scale that clips about half of the values, of at most 0.2.
        let recipe = Recipe::from(Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(0.1 / 448.0))).ste(ste);
        let quantized = QuantizedVarBuilder::new(vb.clone(), recipe.clone()).unwrap();
        let foreign = linear(6, 4, quantized.builder().pp("fc")).unwrap();
        let mut own = Model { fc: altgrad::linear(6, 4, vb.pp("fc")).unwrap() };
        own.quantize(recipe).unwrap();

        let x = Var::from_tensor(&Numbers::new(2).tensor((3, 6)).to_dtype(DType::F64).unwrap()).unwrap();
        let gradients = |layer: &dyn Module| {
            let y = layer.forward(&x).unwrap();
            let gradients = (y.sqr().unwrap() * 0.5).unwrap().sum_all().unwrap().backward().unwrap();
            let [bias, weight] = [0, 1].map(|index| bits(gradients.get(&sorted(&variables)[index].1).unwrap()));
            (bits(&y), bias, weight, bits(gradients.get(&x).unwrap()))
        };
        assert_eq!(gradients(&foreign), gradients(&own.fc), "{ste:?}");

        // dW = dYᵀ X with dY = Y, except where |W| is beyond the range.
        let y = foreign.forward(&x).unwrap();
        let gradient = values(&y.t().unwrap().matmul(&x).unwrap());
        let weight = sorted(&variables)[1].1.clone();
        let weights = values(&weight);
        let got = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let got = values(got.get(&weight).unwrap());
        let mut clipped = 0;
        for ((got, expected), weight) in got.iter().zip(gradient).zip(weights) {
            // The next value after 448 would be 480: what is nearer to it overflows.
            let is_clipped = weight.abs() > 0.1 / 448.0 * 464.0;
            clipped += usize::from(is_clipped);
            let expected = if is_clipped && ste == Ste::Clipped { 0.0 } else { 2.0 * expected };
            assert!((got - expected).abs() <= 1e-12 * expected.abs(), "{got} for {expected}");
        }
        assert!((4..20).contains(&clipped), "{clipped} of 24 are clipped");
    }
}

#[test]
fn clipping_follows_the_scales_of_the_last_quantization() {
    let variables = VarMap::new();
    let weight = builder_of(&variables).get((1, 3), "fc.weight").unwrap();
    let variable = sorted(&variables)[0].1.clone();
    let set = |values: [f32; 3]| variable.set(&Tensor::new(&[values], &Device::Cpu).unwrap()).unwrap();
    set([1000.0, 100.0, -500.0]);
    let recipe = Recipe::from(Quantizer::new(Fp8::E4M3).scaling(Scaling::Delayed { len: 1, margin: 0 }));
    let quantized = QuantizedVarBuilder::new(builder_of(&variables), recipe.ste(Ste::Clipped)).unwrap();
    let weight = quantized.builder().get(weight.shape(), "fc.weight").unwrap();
    let gradient = || {
        let gradients = (&weight * 3.0).unwrap().sum_all().unwrap().backward().unwrap();
        values(gradients.get(&variable).unwrap())
    };
    // The first scale is 1, the next ones are made of the step before: 1000, then 10.
    assert_eq!(gradient(), [0.0, 3.0, 0.0]);
    set([10.0, 1.0, -0.5]);
    quantized.requantize().unwrap();
    assert_eq!(gradient(), [3.0; 3]);
    set([10.0, 20.0, -0.5]);
    quantized.requantize().unwrap();
    assert_eq!(gradient(), [3.0, 0.0, 3.0]);
}

#[test]
fn a_copy_in_another_dtype_follows_its_variable() {
    let variable = Var::from_tensor(&(Numbers::new(3).tensor((4, 6)) * 0.2).unwrap()).unwrap();
    let tensors = HashMap::from([("fc.weight".to_owned(), variable.as_tensor().clone())]);
    let vb = VarBuilder::from_tensors(tensors, DType::BF16, &Device::Cpu);
    let scaling = Scaling::Static(0.1 / 448.0);
    let recipe = Recipe::from(Quantizer::new(Fp8::E4M3).scaling(scaling)).ste(Ste::Clipped);
    let quantized = QuantizedVarBuilder::new(vb, recipe.clone()).unwrap();
    let weight = quantized.builder().get((4, 6), "fc.weight").unwrap();
    for seed in 4..7 {
        variable.set(&(Numbers::new(seed).tensor((4, 6)) * 0.2).unwrap()).unwrap();
        quantized.requantize().unwrap();
        let copy = variable.to_dtype(DType::BF16).unwrap();
        assert_eq!(bits(&weight), bits(&altgrad::fake_quantize(&copy, &recipe.weights).unwrap()));
        let gradients = weight.sum_all().unwrap().backward().unwrap();
        let passes = |value: f64| if value.abs() > 0.1 / 448.0 * 464.0 { 0.0 } else { 1.0 };
        let expected: Vec<f64> = values(&copy).into_iter().map(passes).collect();
        assert_eq!(values(gradients.get(&variable).unwrap()), expected);
    }
}

#[test]
fn without_requantize_a_model_computes_with_the_old_weights() {
    let variables = VarMap::new();
    let quantized = QuantizedVarBuilder::new(builder_of(&variables), current()).unwrap();
    let layer = linear(6, 4, quantized.builder().pp("fc")).unwrap();
    let before = bits(layer.weight());
    for (_, variable) in sorted(&variables) {
        variable.set(&(variable.as_tensor() * -2.0).unwrap()).unwrap();
    }
    assert_eq!(bits(layer.weight()), before);
    quantized.requantize().unwrap();
    assert_ne!(bits(layer.weight()), before);
}

/// Variables of a small `ModernBERT`. Gradients reach all of its linear weights, since it norms and attends in
/// operations that have a backward pass.
fn bert() -> VarMap {
    let variables = VarMap::new();
    ModernBertForMaskedLM::load(builder_of(&variables), &modernbert_config()).unwrap();
    randomize(&variables, 5);
    variables
}

/// Mean cross-entropy of the tokens themselves, of which a fifth are replaced by token 0.
fn loss(model: &ModernBertForMaskedLM, step: usize) -> Tensor {
    let tokens = tokens(4, 10, 3 * step);
    let mask: Vec<u32> = (0..40).map(|index| u32::from(!(index + step).is_multiple_of(5))).collect();
    let mask = Tensor::from_vec(mask, (4, 10), &Device::Cpu).unwrap();
    let logits = model.forward(&(&tokens * &mask).unwrap(), &tokens.ones_like().unwrap()).unwrap();
    candle_nn::loss::cross_entropy(&logits.flatten_to(1).unwrap(), &tokens.flatten_all().unwrap()).unwrap()
}

#[test]
fn training_equals_rebuilding_the_model_at_each_step_and_the_loss_falls() {
    const STEPS: usize = 40;
    let optimizer = |variables: &VarMap| {
        // In the order of names, which that of a map is not.
        AdamW::new_lr(sorted(variables).into_iter().map(|(_, variable)| variable).collect(), 5e-3).unwrap()
    };
    let variables = bert();
    let quantized = QuantizedVarBuilder::new(builder_of(&variables), current()).unwrap();
    let model = ModernBertForMaskedLM::load(quantized.builder(), &modernbert_config()).unwrap();
    let mut adamw = optimizer(&variables);
    let gradients = loss(&model, 0).backward().unwrap();
    for path in modernbert_layers() {
        let name = format!("{path}.weight");
        let variable = variables.data().lock().unwrap()[&name].clone();
        let gradient = values(gradients.get(&variable).unwrap());
        assert!(gradient.iter().any(|value| *value != 0.0), "{name}");
    }
    let step = |step: usize| {
        let loss = loss(&model, step);
        adamw.backward_step(&loss).unwrap();
        quantized.requantize().unwrap();
        common::first(&loss)
    };
    let losses: Vec<f64> = (0..STEPS).map(step).collect();

    let rebuilt = bert();
    let mut adamw = optimizer(&rebuilt);
    let step = |step: usize| {
        let map = by_hand(&rebuilt, &modernbert_layers(), &current());
        let vb = VarBuilder::from_tensors(map, DType::F32, &Device::Cpu);
        let loss = loss(&ModernBertForMaskedLM::load(vb, &modernbert_config()).unwrap(), step);
        adamw.backward_step(&loss).unwrap();
        common::first(&loss)
    };
    let expected: Vec<f64> = (0..STEPS).map(step).collect();
    assert_eq!(losses, expected);
    for ((name, one), (_, other)) in sorted(&variables).into_iter().zip(sorted(&rebuilt)) {
        assert_eq!(bits(&one), bits(&other), "{name}");
    }
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[STEPS - 5..]) < 0.6 * mean(&losses[..5]), "{losses:?}");
}
