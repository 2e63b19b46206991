//! Variables in place of constants: in layers of every kind, each once, and with a word about what stays constant.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use altgrad::{Constant, Error, Fp8, Linear, ModelError, Quantizable, Recipe, TiePolicy};
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{Embedding, Optimizer, SGD};
use common::{Numbers, values};

#[derive(Quantizable)]
struct Model {
    wte: Embedding,
    a: Linear,
    #[quant(skip)]
    b: Linear,
    c: Linear,
    d: Linear,
    head: Linear,
}

impl Model {
    /// Of constants, as a checkpoint without gradients is loaded; `d` shares the weight of `c`, `head` that of `wte`.
    fn new() -> Self {
        let numbers = Numbers::new(1);
        let layer = || Linear::new(numbers.tensor((8, 8)), Some(numbers.tensor(8)));
        let wte = Embedding::new(numbers.tensor((10, 8)), 8);
        let c = layer();
        Self {
            a: layer(),
            b: layer(),
            d: Linear::new(c.weight().unwrap(), None),
            c,
            head: Linear::new(wte.embeddings().clone(), None),
            wte,
        }
    }

    fn loss(&self) -> Tensor {
        let x = self.wte.forward(&Tensor::new(&[1u32, 2, 3, 7], &Device::Cpu).unwrap()).unwrap();
        let layers: [&dyn Module; 5] = [&self.a, &self.b, &self.c, &self.d, &self.head];
        let y = layers.into_iter().try_fold(x, |x, layer| layer.forward(&x)).unwrap();
        y.sqr().unwrap().mean_all().unwrap()
    }
}

const VARIABLES: [&str; 6] = ["a.weight", "a.bias", "b.weight", "b.bias", "c.weight", "c.bias"];

fn head() -> (String, Constant) {
    ("head.weight".to_owned(), Constant::Tied("wte.weight".to_owned()))
}

#[test]
fn quantized_layers_get_variables_and_train() {
    let mut model = Model::new();
    model.quantize(altgrad::QuantConfig::new(Recipe::hybrid()).ties(TiePolicy::Quantize)).unwrap();
    let trainable = model.make_trainable().unwrap();
    let names: Vec<_> = trainable.variables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, VARIABLES);
    assert_eq!(trainable.constants, [head()]);

    let before = common::first(&model.loss());
    let gradients = model.loss().backward().unwrap();
    for (name, variable) in &trainable.variables {
        assert!(gradients.get(variable).is_some(), "{name}");
    }
    let mut optimizer = SGD::new(trainable.vars(), 5e-4).unwrap();
    for _ in 0..10 {
        optimizer.backward_step(&model.loss()).unwrap();
    }
    let after = common::first(&model.loss());
    assert!(after < 0.9 * before, "{after} after {before}");

    // The tie holds: one variable is in both layers, whatever they are.
    let [c, d] = ["c", "d"].map(|path| model.layer(path).unwrap().weight().unwrap().id());
    assert_eq!((c, c), (d, trainable.variables[4].1.id()));
    // Asked again, they are the same ones.
    let again = model.make_trainable().unwrap();
    let ids = |variables: &[(String, Var)]| variables.iter().map(|(_, variable)| variable.id()).collect::<Vec<_>>();
    assert_eq!(ids(&again.variables), ids(&trainable.variables));
}

#[test]
fn histories_values_and_recipes_stay() {
    let mut model = Model::new();
    model.quantize(Recipe::hybrid()).unwrap();
    for _ in 0..3 {
        model.loss();
    }
    let expected = values(&model.loss());
    let state = |model: &Model| {
        let mut state: Vec<_> =
            model.quantizer_state().unwrap().iter().map(|(key, tensor)| (key.clone(), values(tensor))).collect();
        state.sort_by(|a, b| a.0.cmp(&b.0));
        state
    };
    let before = state(&model);
    model.make_trainable().unwrap();
    assert_eq!(state(&model), before);
    assert_eq!(values(&model.loss()), expected);
}

#[test]
fn what_stays_constant_is_named() {
    let mut model = Model::new();
    model.quantize(Fp8::E4M3).unwrap();
    model.freeze().unwrap();
    // `c` and `d` share a weight, so neither was quantized.
    let trainable = model.make_trainable().unwrap();
    let names: Vec<_> = trainable.variables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, VARIABLES[2..]);
    assert_eq!(trainable.constants, [("a.weight".to_owned(), Constant::Frozen), head()]);

    // A weight that is computed from a variable trains that one.
    let half = Var::from_tensor(&Numbers::new(2).tensor((8, 8)).to_dtype(DType::BF16).unwrap()).unwrap();
    let mut layer = Linear::new(half.to_dtype(DType::F32).unwrap(), None);
    layer.quantize(Fp8::E4M3).unwrap();
    let trainable = layer.make_trainable().unwrap();
    assert_eq!((trainable.variables.len(), trainable.constants), (0, vec![("weight".to_owned(), Constant::Computed)]));
    let x = Numbers::new(3).tensor((2, 8));
    assert!(layer.forward(&x).unwrap().sum_all().unwrap().backward().unwrap().get(&half).is_some());
}

#[test]
fn a_model_of_frozen_layers_alone_is_an_error() {
    let mut layer = Linear::new(Numbers::new(1).tensor((4, 4)), None);
    layer.quantize(Fp8::E4M3).unwrap();
    layer.freeze().unwrap();
    assert!(matches!(layer.make_trainable(), Err(Error::Model(ModelError::NothingToTrain))));
}
