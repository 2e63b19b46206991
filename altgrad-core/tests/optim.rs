//! Optimizers against candle's, and what they refuse.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashMap;

use altgrad::optim::{AdamW, AdamWConfig, Moments, Sgd, SgdConfig};
use altgrad::{Error, OptimError};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW};

/// Deterministic values of both signs.
fn values(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|index| ((index * 37 + seed * 101) % 97) as f32 / 48.5 - 1.0).collect()
}

/// Two variables: one with enough elements for codes, a small one.
fn model() -> Vec<(String, Var)> {
    let var = |seed, dims: (usize, usize)| {
        let values = Tensor::from_vec(values(seed, dims.0 * dims.1), dims, &Device::Cpu).unwrap();
        Var::from_tensor(&values).unwrap()
    };
    vec![("up.weight".to_owned(), var(1, (64, 128))), ("up.bias".to_owned(), var(2, (3, 5)))]
}

/// Gradients of a step, some in another layout.
fn gradients(variables: &[(String, Var)], step: usize) -> GradStore {
    let mut store = GradStore::default();
    for (number, (_, var)) in variables.iter().enumerate() {
        let (rows, cols) = var.dims2().unwrap();
        let values = values(7 * step + number, rows * cols);
        let gradient = Tensor::from_vec(values, (cols, rows), &Device::Cpu).unwrap().t().unwrap();
        store.insert(var, gradient.to_dtype(var.dtype()).unwrap());
    }
    store
}

fn bits(variables: &[(String, Var)]) -> Vec<u32> {
    let of = |var: &Var| var.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    variables.iter().flat_map(|(_, var)| of(var)).map(f32::to_bits).collect()
}

fn vars(variables: &[(String, Var)]) -> Vec<Var> {
    variables.iter().map(|(_, var)| var.clone()).collect()
}

#[test]
fn adamw_is_candles() {
    let params = ParamsAdamW { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
    let (ours, candles) = (model(), model());
    let mut optimizer = AdamW::named(ours.clone(), params.clone().into()).unwrap();
    let mut candle = candle_nn::AdamW::new(vars(&candles), params).unwrap();
    for step in 0..100 {
        let learning_rate = [0.01, 0.003][step % 2];
        optimizer.set_learning_rate(learning_rate);
        candle.set_learning_rate(learning_rate);
        optimizer.step(&gradients(&ours, step)).unwrap();
        candle.step(&gradients(&candles, step)).unwrap();
    }
    for (found, expected) in
        bits(&ours).into_iter().zip(bits(&candles)).map(|(a, b)| (f32::from_bits(a), f32::from_bits(b)))
    {
        // Each of 100 steps rounds a few times to half a unit in the last place of about 1.
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} for {expected}");
    }
}

#[test]
fn sgd_without_momentum_is_candles() {
    let (ours, candles) = (model(), model());
    let mut optimizer = Sgd::new(vars(&ours), SgdConfig::new(0.1)).unwrap();
    let mut candle = candle_nn::SGD::new(vars(&candles), 0.1).unwrap();
    for step in 0..10 {
        optimizer.step(&gradients(&ours, step)).unwrap();
        candle.step(&gradients(&candles, step)).unwrap();
    }
    assert_eq!(bits(&ours), bits(&candles));
}

/// What all optimizers can do, with steps of an optimizer after a restart from saved state.
fn resumes<O: Optimizer>(
    new: impl Fn(Vec<(String, Var)>) -> O,
    state: impl Fn(&O) -> HashMap<String, Tensor>,
    load: impl Fn(&mut O, &HashMap<String, Tensor>),
) {
    let (through, restarted) = (model(), model());
    let mut optimizer = new(through.clone());
    (0..20).for_each(|step| optimizer.step(&gradients(&through, step)).unwrap());
    let mut optimizer = new(restarted.clone());
    (0..10).for_each(|step| optimizer.step(&gradients(&restarted, step)).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.safetensors");
    candle_core::safetensors::save(&state(&optimizer), &file).unwrap();
    let mut optimizer = new(restarted.clone());
    load(&mut optimizer, &candle_core::safetensors::load(&file, &Device::Cpu).unwrap());
    (10..20).for_each(|step| optimizer.step(&gradients(&restarted, step)).unwrap());
    assert_eq!(bits(&through), bits(&restarted));
}

#[test]
fn ten_steps_and_ten_more_are_twenty() {
    for moments in [Moments::F32, Moments::Bf16, Moments::E4M3] {
        let config = AdamWConfig::new(0.01).moments(moments).clip(5.0);
        resumes(
            |variables| AdamW::named(variables, config.clone()).unwrap(),
            |optimizer| optimizer.state().unwrap(),
            |optimizer, state| optimizer.load_state(state).unwrap(),
        );
        let config = SgdConfig::new(0.01).momentum(0.9).nesterov(true).moments(moments);
        resumes(
            |variables| Sgd::named(variables, config.clone()).unwrap(),
            |optimizer| optimizer.state().unwrap(),
            |optimizer, state| optimizer.load_state(state).unwrap(),
        );
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_an_error_before_anything_is_written() {
    for value in [f32::NAN, f32::INFINITY] {
        let variables = model();
        let mut optimizer = AdamW::named(variables.clone(), AdamWConfig::new(0.1)).unwrap();
        let mut store = gradients(&variables, 0);
        let bias = &variables[1].1;
        store.insert(bias, bias.affine(0.0, f64::from(value)).unwrap());
        let (before, state) = (bits(&variables), optimizer.state().unwrap());
        let error = Error::from(optimizer.step(&store).unwrap_err());
        assert!(
            matches!(&error, Error::Optim(OptimError::NotFiniteGradient { path, .. }) if path == "up.bias"),
            "{error}"
        );
        assert_eq!(bits(&variables), before);
        let after = optimizer.state().unwrap();
        assert_eq!(after["up.weight.step"].to_scalar::<i64>().unwrap(), 0);
        assert_eq!(after.len(), state.len());
    }
}

#[test]
fn a_variable_is_stepped_once_and_only_with_a_gradient() {
    let variables = model();
    let tied: Vec<_> = variables.iter().chain(&variables).cloned().collect();
    let once = model();
    AdamW::named(tied, AdamWConfig::new(0.1)).unwrap().step(&gradients(&variables, 0)).unwrap();
    AdamW::named(once.clone(), AdamWConfig::new(0.1)).unwrap().step(&gradients(&once, 0)).unwrap();
    assert_eq!(bits(&variables), bits(&once));

    let mut store = gradients(&variables, 1);
    store.remove(&variables[0].1);
    let before = bits(&variables[..1]);
    let mut optimizer = AdamW::named(variables.clone(), AdamWConfig::new(0.1)).unwrap();
    optimizer.step(&store).unwrap();
    assert_eq!(bits(&variables[..1]), before);
    let state = optimizer.state().unwrap();
    assert_eq!(state["up.weight.step"].to_scalar::<i64>().unwrap(), 0);
    assert_eq!(state["up.bias.step"].to_scalar::<i64>().unwrap(), 1);
}

#[test]
fn state_that_does_not_fit_is_refused_whole() {
    let variables = model();
    let config = AdamWConfig::new(0.1).moments(Moments::E4M3);
    let mut optimizer = AdamW::named(variables.clone(), config).unwrap();
    optimizer.step(&gradients(&variables, 0)).unwrap();
    let good = optimizer.state().unwrap();
    let mut refuse = |key: &str, tensor: Option<Tensor>, expected: &str| {
        let mut state = good.clone();
        match tensor {
            Some(tensor) => state.insert(key.to_owned(), tensor),
            None => state.remove(key),
        };
        let error = optimizer.load_state(&state).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}` {expected}")), "{error}");
        assert_eq!(optimizer.state().unwrap()["up.bias.step"].to_scalar::<i64>().unwrap(), 1);
    };
    refuse("up.weight.exp_avg", None, "is missing");
    refuse("up.weight.exp_avg", Some(good["up.bias.exp_avg"].clone()), "is F32 [3, 5], expected U8 [64, 128]");
    refuse("up.wight.exp_avg", Some(good["up.bias.exp_avg"].clone()), "belongs to no variable; did you mean `up.w");
    refuse("up.bias.step", Some(Tensor::new(-1i64, &Device::Cpu).unwrap()), "is not a number of steps");
}

#[test]
fn moments_take_the_bytes_that_they_should() {
    let variables = model();
    let elements = 64 * 128;
    for (moments, bytes) in [
        (Moments::F32, 8 * (elements + 15)),
        (Moments::Bf16, 4 * (elements + 15)),
        (Moments::E4M3, 2 * (elements + elements / 256 * 4) + 8 * 15),
    ] {
        let optimizer = AdamW::named(variables.clone(), AdamWConfig::new(0.1).moments(moments)).unwrap();
        assert_eq!(optimizer.moment_bytes(), bytes, "{moments:?}");
    }
}

#[test]
fn every_dtype_is_stepped() {
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let full = model();
        let variables: Vec<_> = full
            .iter()
            .map(|(path, var)| (path.clone(), Var::from_tensor(&var.to_dtype(dtype).unwrap()).unwrap()))
            .collect();
        AdamW::named(variables.clone(), AdamWConfig::new(0.1)).unwrap().step(&gradients(&variables, 0)).unwrap();
        AdamW::named(full.clone(), AdamWConfig::new(0.1)).unwrap().step(&gradients(&full, 0)).unwrap();
        for (found, expected) in bits(&variables).into_iter().zip(bits(&full)) {
            let (found, expected) = (f32::from_bits(found), f32::from_bits(expected));
            // Weight, gradient and result are rounded to 8 bits in bf16; the step is 0.1 whatever the gradient's size.
            assert!((found - expected).abs() <= 2.0 * 2f32.powi(-8), "{dtype:?}: {found} for {expected}");
        }
    }
}

#[test]
fn gradients_are_clipped_by_the_norm_of_all() {
    let (variables, scaled) = (model(), model());
    let store = gradients(&variables, 0);
    let squares = |var: &Var| store.get(var).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    let norm = variables.iter().map(|(_, var)| f64::from(squares(var))).sum::<f64>().sqrt();
    let mut optimizer = Sgd::named(variables.clone(), SgdConfig::new(1.0).clip(norm / 4.0)).unwrap();
    optimizer.step(&store).unwrap();
    assert!((optimizer.gradient_norm() - norm).abs() <= 1e-5 * norm);
    Sgd::named(scaled.clone(), SgdConfig::new(0.25)).unwrap().step(&gradients(&scaled, 0)).unwrap();
    for (found, expected) in bits(&variables).into_iter().zip(bits(&scaled)) {
        assert!((f32::from_bits(found) - f32::from_bits(expected)).abs() <= 1e-5);
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    for config in [
        AdamWConfig::new(f64::NAN),
        AdamWConfig::new(-1.0),
        AdamWConfig::new(0.1).betas(1.0, 0.9),
        AdamWConfig::new(0.1).betas(0.9, -0.1),
        AdamWConfig::new(0.1).eps(f64::INFINITY),
        AdamWConfig::new(0.1).clip(0.0),
    ] {
        let error = AdamW::named(model(), config.clone()).unwrap_err();
        assert!(matches!(error, Error::Optim(OptimError::InvalidSetting { .. })), "{config:?}");
    }
    assert!(Sgd::named(model(), SgdConfig::new(0.1).momentum(1.0)).is_err());

    let (variables, mut optimizer) = (model(), AdamW::new(vars(&model()), AdamWConfig::new(0.1)).unwrap());
    optimizer.set_learning_rate(f64::NAN);
    let error = optimizer.step(&gradients(&variables, 0)).unwrap_err();
    assert!(matches!(Error::from(error), Error::Optim(OptimError::InvalidSetting { .. })));
}

#[test]
fn a_gradient_may_be_the_variable_itself() {
    let variables = model();
    let mut store = GradStore::default();
    for (_, var) in &variables {
        store.insert(var, var.detach());
    }
    let halves: Vec<f32> = bits(&variables).into_iter().map(|bits| f32::from_bits(bits) * 0.5).collect();
    Sgd::named(variables.clone(), SgdConfig::new(0.5)).unwrap().step(&store).unwrap();
    assert_eq!(bits(&variables), halves.into_iter().map(f32::to_bits).collect::<Vec<_>>());
}
