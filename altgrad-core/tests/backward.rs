//! Backward passes past candle's sums against candle's own.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use altgrad_core::nn::attention::scaled_dot_product_attention;
use altgrad_core::nn::{self, Embedding, LayerNorm, Linear, RmsNorm, loss, ops};
use altgrad_core::visit::{Path, Visit, Visitor, VisitorMut};
use altgrad_core::{Fp8, Mask, Quantizable, Recipe, accumulate, backward, backward_into};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Module, Result, Shape, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};

const VOCABULARY: usize = 24;
const WIDTH: usize = 16;

/// A transformer block with a tied head, and a bias that only candle uses.
struct Model {
    table: Embedding,
    norm: LayerNorm,
    qkv: Linear,
    rms: RmsNorm,
    up: Linear,
    down: Linear,
    shift: Tensor,
    head: Linear,
}

impl Visit for Model {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> altgrad_core::Result<()> {
        self.qkv.visit(&path.field("qkv"), visitor)?;
        self.up.visit(&path.field("up"), visitor)?;
        self.down.visit(&path.field("down"), visitor)
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> altgrad_core::Result<()> {
        self.qkv.visit_mut(&path.field("qkv"), visitor)?;
        self.up.visit_mut(&path.field("up"), visitor)?;
        self.down.visit_mut(&path.field("down"), visitor)
    }
}

impl Model {
    fn new(recipe: Option<Recipe>) -> (Self, VarMap) {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let table = nn::embedding(VOCABULARY, WIDTH, vb.pp("table")).unwrap();
        let mut model = Self {
            head: Linear::new(table.embeddings().clone(), None),
            table,
            norm: nn::layer_norm(WIDTH, 1e-5, vb.pp("norm")).unwrap(),
            qkv: nn::linear(WIDTH, 3 * WIDTH, vb.pp("qkv")).unwrap(),
            rms: nn::rms_norm(WIDTH, 1e-5, vb.pp("rms")).unwrap(),
            up: nn::linear_no_bias(WIDTH, 2 * WIDTH, vb.pp("up")).unwrap(),
            down: nn::linear(2 * WIDTH, WIDTH, vb.pp("down")).unwrap(),
            shift: vb.get_with_hints(WIDTH, "shift", candle_nn::Init::Const(0.1)).unwrap(),
        };
        for (place, var) in sorted(&variables).iter().enumerate() {
            var.1.set(&numbers(var.1.dims(), place as u64)).unwrap();
        }
        if let Some(recipe) = recipe {
            model.quantize(recipe).unwrap();
        }
        (model, variables)
    }

    fn loss(&self, tokens: &[u32]) -> Result<Tensor> {
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let x = self.table.forward(&tokens)?.broadcast_add(&self.shift)?;
        let (_, time, _) = x.dims3()?;
        let qkv = self.qkv.forward(&self.norm.forward(&x)?)?.reshape((1, time, 6, WIDTH / 2))?.transpose(1, 2)?;
        let part = |first| qkv.narrow(1, first, 2);
        let y = scaled_dot_product_attention(&part(0)?, &part(2)?, &part(4)?, 0.4, Mask::Causal)?;
        let x = (x + y.transpose(1, 2)?.reshape((1, time, WIDTH))?)?;
        let x = (&x + self.down.forward(&ops::gelu(&self.up.forward(&self.rms.forward(&x)?)?)?)?)?;
        loss::cross_entropy(&self.head.forward(&x)?.squeeze(0)?, &tokens.squeeze(0)?)
    }
}

fn sorted(variables: &VarMap) -> Vec<(String, Var)> {
    let data = variables.data().lock().unwrap();
    let mut all: Vec<_> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn numbers(shape: &[usize], seed: u64) -> Tensor {
    let mut state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    Tensor::from_vec((0..shape.iter().product()).map(|_| next()).collect(), shape, &Device::Cpu).unwrap()
}

fn bits(gradient: Option<&Tensor>) -> Option<Vec<u32>> {
    let values = gradient?.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    Some(values.into_iter().map(f32::to_bits).collect())
}

#[track_caller]
fn assert_same(found: &GradStore, expected: &GradStore, variables: &VarMap) {
    for (name, var) in sorted(variables) {
        let (found, expected) = (bits(found.get(&var)), bits(expected.get(&var)));
        assert!(found == expected, "{name}: {found:?}\n{expected:?}");
    }
}

/// Full precision, two formats, and every named recipe.
fn recipes() -> Vec<Option<Recipe>> {
    let named = Recipe::NAMED.iter().map(|(_, named)| Some(named()));
    [None, Some(Fp8::E4M3.into()), Some(Fp8::E2M5.into())].into_iter().chain(named).collect()
}

#[test]
fn gradients_are_those_of_candle_bit_for_bit() {
    for recipe in recipes() {
        // Models with the same weights and histories.
        let [(of_candle, expected_of), (new, found_of), (reusing, reused_of)] =
            [(); 3].map(|()| Model::new(recipe.clone()));
        let mut reused = GradStore::default();
        for step in 0..3 {
            let tokens = [1 + step, 5, 23, 0, 7, 5];
            let expected = of_candle.loss(&tokens).unwrap().backward().unwrap();
            let found = backward(&new.loss(&tokens).unwrap()).unwrap();
            backward_into(&reusing.loss(&tokens).unwrap(), &mut reused).unwrap();
            let others = sorted(&found_of).into_iter().zip(sorted(&reused_of));
            for ((name, var), ((_, found_var), (_, reused_var))) in sorted(&expected_of).into_iter().zip(others) {
                let expected = bits(expected.get(&var));
                assert!(expected.is_some(), "{name}");
                assert!(bits(found.get(&found_var)) == expected, "{name}");
                assert!(bits(reused.get(&reused_var)) == expected, "{name} in memory of an earlier step");
            }
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_sum_of_candle() {
    let batches = [[1, 2, 3, 4], [9, 8, 7, 6], [23, 0, 23, 0]];
    for recipe in [None, Some(Recipe::rowwise()), Some(Fp8::E4M3.into())] {
        let (model, variables) = Model::new(recipe);
        let mut expected = GradStore::default();
        let mut found = GradStore::default();
        for tokens in &batches {
            expected.extend(model.loss(tokens).unwrap().backward().unwrap()).unwrap();
            accumulate(&model.loss(tokens).unwrap(), &mut found).unwrap();
        }
        assert_same(&found, &expected, &variables);
    }
}

#[test]
fn frozen_layers_and_constants_are_left_alone() {
    let (mut model, variables) = Model::new(Some(Recipe::tensorwise()));
    model.freeze().unwrap();
    let grads = backward(&model.loss(&[1, 2, 3]).unwrap()).unwrap();
    for (name, var) in sorted(&variables) {
        let is_frozen = ["qkv.weight", "up.weight", "down.weight"].contains(&name.as_str());
        assert_eq!(grads.get(&var).is_none(), is_frozen, "{name}");
    }
    let constant = Linear::new(numbers(&[4, 4], 1), None);
    let y = constant.forward(&numbers(&[2, 4], 2)).unwrap().sum_all().unwrap();
    assert_eq!(backward(&y).unwrap().get_ids().count(), 1, "that of the loss itself");
}

#[test]
fn models_train_in_threads_of_their_own() {
    let expected: Vec<f32> = (0..4).map(train).collect();
    let found: Vec<f32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || train(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(found, expected);
}

/// The loss after some steps on tokens that `seed` says.
fn train(seed: u32) -> f32 {
    let (model, variables) = Model::new(Some(Recipe::tensorwise()));
    let mut gradients = GradStore::default();
    let tokens = [seed, 5, 9 + seed, 1];
    for _ in 0..5 {
        backward_into(&model.loss(&tokens).unwrap(), &mut gradients).unwrap();
        for (_, var) in sorted(&variables) {
            let step = (gradients.get(&var).unwrap() * 0.05).unwrap();
            var.set(&(var.as_tensor() - step).unwrap()).unwrap();
        }
    }
    model.loss(&tokens).unwrap().to_scalar().unwrap()
}

/// An operation whose backward pass fails.
struct Broken;

impl CustomOp1 for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((storage.clone(), layout.shape().clone()))
    }
}

#[test]
fn a_pass_that_fails_leaves_no_trace() {
    let (model, variables) = Model::new(None);
    let fails = model.loss(&[1, 2]).unwrap().apply_op1(Broken).unwrap();
    let mut gradients = backward(&model.loss(&[1, 2]).unwrap()).unwrap();
    assert!(accumulate(&fails, &mut gradients).is_err());
    let expected = model.loss(&[1, 2]).unwrap().backward().unwrap();
    assert_same(&gradients, &expected, &variables);
    assert!(backward_into(&fails, &mut gradients).is_err());
    assert_eq!(gradients.get_ids().count(), 0);
    assert_same(&model.loss(&[1, 2]).unwrap().backward().unwrap(), &expected, &variables);
}
