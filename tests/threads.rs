//! Layers and builders called from jobs of one pool: every call ends, and no result depends on the others.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use altgrad::{Linear, Quantizable, QuantizedVarBuilder, Recipe, Scaling};
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};
use common::{Numbers, values};
use rayon::{ThreadPool, ThreadPoolBuilder};

const JOBS: usize = 200;
/// Elements of the weight and the input: enough to be shared among threads.
const SIDE: usize = 512;

/// Longer than all jobs take, by far.
const PATIENCE: Duration = Duration::from_secs(120);

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Runs a job several times in a pool, all spawned from outside; fails if they do not end.
fn spawn_all(pool: &ThreadPool, jobs: usize, job: impl Fn(usize) + Send + Sync + 'static) {
    let (done, ended) = mpsc::channel();
    let job = Arc::new(job);
    for number in 0..jobs {
        let (done, job) = (done.clone(), Arc::clone(&job));
        pool.spawn(move || {
            job(number);
            done.send(()).unwrap();
        });
    }
    for number in 0..jobs {
        ended.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{number} of {jobs} jobs ended, and then no more"));
    }
}

fn layer(recipe: Recipe) -> (Linear, Var) {
    let weight = Var::from_tensor(&Numbers::new(1).tensor((SIDE, SIDE))).unwrap();
    let mut layer = Linear::new(weight.as_tensor().clone(), None);
    layer.quantize(recipe).unwrap();
    (layer, weight)
}

fn recipes() -> impl Iterator<Item = (&'static str, Recipe)> {
    Recipe::NAMED.into_iter().map(|(name, recipe)| (name, recipe()))
}

#[test]
fn layers_serve_in_eval_mode() {
    for (name, recipe) in recipes() {
        for threads in [2, 5] {
            let (mut layer, _) = layer(recipe.clone());
            layer.eval().unwrap();
            let x = Numbers::new(2).tensor((SIDE, SIDE));
            let expected = values(&layer.forward(&x).unwrap());
            // The codes are to be made anew by whoever comes first.
            layer.eval().unwrap();
            spawn_all(&pool(threads), JOBS / 4, move |_| {
                assert!(values(&layer.forward(&x).unwrap()) == expected, "{name}");
            });
        }
    }
}

#[test]
fn layers_train() {
    for (name, recipe) in recipes() {
        let scales_are_known = recipe.weights.scaling == Scaling::Current;
        let (layer, weight) = layer(recipe);
        let x = Numbers::new(2).tensor((SIDE, SIDE));
        let expected = values(&layer.forward(&x).unwrap());
        let layer = Arc::new(layer);
        let shared = Arc::clone(&layer);
        spawn_all(&pool(3), JOBS / 4, move |_| {
            let y = shared.forward(&x).unwrap();
            assert!(!scales_are_known || values(&y) == expected, "{name}");
            let gradients = y.sum_all().unwrap().backward().unwrap();
            assert!(gradients.get(&weight).is_some(), "{name}");
        });
        // Each pass was a step of its own.
        let state = layer.quantizer_state().unwrap();
        let steps = |role: &str| state[&format!("{role}.step")].to_scalar::<i64>().unwrap();
        assert_eq!((steps("weights"), steps("activations")), (1 + JOBS as i64 / 4, 1 + JOBS as i64 / 4), "{name}");
        assert_eq!(steps("gradients"), JOBS as i64 / 4, "{name}");
    }
}

#[test]
fn every_amax_is_recorded_once() {
    let mut recipe = Recipe::tensorwise().gradients(None);
    recipe.activations =
        recipe.activations.map(|quantizer| quantizer.scaling(Scaling::Delayed { len: JOBS, margin: 0 }));
    let (layer, _) = layer(recipe);
    let x = Numbers::new(2).tensor((SIDE, SIDE));
    let layer = Arc::new(layer);
    let shared = Arc::clone(&layer);
    spawn_all(&pool(3), JOBS, move |number| {
        let x = (&x.clamp(-0.5, 0.5).unwrap() * (number + 1) as f64).unwrap();
        shared.forward(&x).unwrap();
    });
    let Linear::Quantized(layer) = &*layer else { panic!("it was quantized") };
    let mut amaxes: Vec<f32> = layer.input_history().iter().collect();
    amaxes.sort_by(f32::total_cmp);
    assert_eq!(amaxes, (1..=JOBS).map(|number| number as f32 * 0.5).collect::<Vec<_>>());
}

#[test]
fn weights_are_set_while_layers_compute() {
    // candle locks a weight's storage while a kernel reads it and while it is written to.
    let (layer, weight) = layer(Recipe::rowwise());
    let x = Numbers::new(2).tensor((SIDE, SIDE));
    let value = weight.as_tensor().copy().unwrap();
    spawn_all(&pool(2), JOBS, move |number| {
        if number % 5 == 0 {
            weight.set(&value).unwrap();
        } else {
            layer.forward(&x).unwrap();
        }
    });
}

#[test]
fn layers_are_calibrated() {
    for threads in [2, 5] {
        let (done, ended) = mpsc::channel();
        // On a thread of its own, which may hang without this one.
        std::thread::spawn(move || {
            let (mut layer, _) = layer(Recipe::tensorwise().gradients(None));
            let x = Numbers::new(2).tensor((SIDE, SIDE));
            let pool = pool(threads);
            let report = layer.calibrate(|layer| {
                pool.scope(|scope| (0..JOBS).for_each(|_| scope.spawn(|_| drop(layer.forward(&x).unwrap()))));
                Ok(())
            });
            done.send(report.unwrap().layers[0].values).unwrap();
        });
        let seen = ended.recv_timeout(PATIENCE).expect("calibration ends");
        assert_eq!(seen, (JOBS * SIDE * SIDE) as u64);
    }
}

/// A backend that works in its pool before it answers, as one that converts what it has would.
struct Busy(HashMap<String, Tensor>);

impl Busy {
    fn find(&self, name: &str) -> candle_core::Result<Tensor> {
        let sum: usize = {
            use rayon::prelude::*;
            (0..1000usize).into_par_iter().map(std::hint::black_box).sum()
        };
        assert_eq!(sum, 499_500);
        self.0.get(name).cloned().ok_or_else(|| candle_core::Error::CannotFindTensor { path: name.to_owned() })
    }
}

impl SimpleBackend for Busy {
    fn get(&self, _: candle_core::Shape, name: &str, _: Init, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        self.find(name)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        self.find(name)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[test]
fn models_are_built_and_requantized() {
    const LAYERS: usize = 40;
    let tensors =
        (0..LAYERS).map(|number| (format!("h.{number}.weight"), Numbers::new(number as u64).tensor((SIDE, SIDE))));
    let backend = Box::new(Busy(tensors.collect()));
    let vb = VarBuilder::from_backend(backend, DType::F32, Device::Cpu);
    let quantized = Arc::new(QuantizedVarBuilder::new(vb, Recipe::weight_only(altgrad::Fp8::E4M3)).unwrap());
    let shared = Arc::clone(&quantized);
    // Several jobs ask for each layer; one of them at a time requantizes, and the others are told so.
    spawn_all(&pool(3), 4 * LAYERS, move |number| {
        let vb = shared.builder().pp("h").pp(number % LAYERS);
        let layer = candle_nn::linear_no_bias(SIDE, SIDE, vb.clone()).unwrap();
        let again = candle_nn::linear_no_bias(SIDE, SIDE, vb).unwrap();
        assert_eq!(layer.weight().id(), again.weight().id());
        match number % 10 {
            0 => match shared.requantize() {
                Ok(()) | Err(altgrad::Error::Model(altgrad::ModelError::AlreadyRequantizing)) => {}
                Err(error) => panic!("{error}"),
            },
            1 => assert!(shared.report().unwrap().quantized() > 0),
            _ => {}
        }
    });
    let report = quantized.report().unwrap();
    assert_eq!((report.layers.len(), report.quantized()), (LAYERS, LAYERS));
}

#[test]
fn a_tie_that_two_threads_find_leaves_the_weight_in_full_precision() {
    for round in 0..40 {
        let variables = VarMap::new();
        let weight = Numbers::new(round).tensor((64, 64));
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let made = vb.get_with_hints((64, 64), "wte.weight", Init::Const(0.0)).unwrap();
        variables.data().lock().unwrap()["wte.weight"].set(&weight).unwrap();
        drop(made);
        let quantized = Arc::new(QuantizedVarBuilder::new(vb, Recipe::weight_only(altgrad::Fp8::E4M3)).unwrap());
        let shared = Arc::clone(&quantized);
        let (send, receive) = mpsc::channel();
        spawn_all(&pool(3), 3, move |number| {
            let vb = shared.builder().pp("wte");
            match number {
                0 => drop(candle_nn::embedding(64, 64, vb).unwrap()),
                1 => send.send(candle_nn::linear_no_bias(64, 64, vb).unwrap()).unwrap(),
                _ => drop(shared.requantize()),
            }
        });
        let layer = receive.recv().unwrap();
        assert_eq!(values(layer.weight()), values(&weight), "round {round}");
        assert_eq!(quantized.report().unwrap().quantized(), 0);
    }
}
