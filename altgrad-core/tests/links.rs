//! Gradients between operations of altgrad against those that candle sums.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};

use altgrad_core::nn::attention::{merge_heads, split_heads, split_qkv};
use altgrad_core::nn::{Embedding, Linear, ops};
use altgrad_core::{backward, backward_into};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Module, Result, Shape, Tensor, Var};

const ROWS: usize = 3;
const COLS: usize = 8;

/// Numbers from -2 to 2 without a pattern.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    fn tensor(&mut self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let values = (0..shape.elem_count()).map(|_| (self.next() % 4097) as f32 / 1024.0 - 2.0);
        Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
    }
}

fn var(seed: u64, shape: impl Into<Shape>) -> Var {
    Var::from_tensor(&Numbers(seed * 2 + 1).tensor(shape)).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    // Candle's zeros make 0 of -0.
    values.into_iter().map(|value| (value + 0.0).to_bits()).collect()
}

fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    let list = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (list(found), list(expected));
    let scale = expected.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-5 * scale, "{what}: {found}, not {expected}");
    }
}

/// The same tensor as the result of an operation of candle's.
fn unlinked(x: &Tensor) -> Result<Tensor> {
    x.reshape((1, ROWS, COLS))?.reshape((ROWS, COLS))
}

/// The loss of operations that are drawn one after the other, each of tensors that are there. With `links` these are
/// tensors of altgrad's, without of candle's.
fn drawn(vars: &[Var], seed: u64, links: bool) -> Result<Tensor> {
    let mut draw = Numbers(seed * 2 + 1);
    let mut tensors: Vec<Tensor> = vars[1..].iter().map(|var| var.as_tensor().clone()).collect();
    for _ in 0..12 {
        // Late ones more often, so that there are long chains.
        let recent = tensors.len().saturating_sub(1 + draw.below(4));
        let (a, b) = (&tensors[recent], &tensors[draw.below(tensors.len())]);
        let y = match draw.below(7) {
            0 => ops::silu(a)?,
            1 => ops::masked_softmax(a, altgrad_core::Mask::All)?,
            2 => ops::silu_mul(a, b)?,
            3 => ops::rms_norm(a, &vars[0], 1e-5)?,
            4 => (a + b)?,
            5 => (a * b)?.tanh()?,
            _ => merge_heads(&split_heads(&a.unsqueeze(0)?, 2)?)?.squeeze(0)?,
        };
        tensors.push(if links { y } else { unlinked(&y)? });
    }
    let weights = Numbers(99).tensor((ROWS, COLS));
    let last = &tensors[tensors.len() - 3..];
    ((&last[0] + &last[1])? + &last[2])?.mul(&weights)?.sum_all()
}

#[test]
fn any_graph_has_the_gradients_that_candle_sums() {
    for seed in 1..=300 {
        let vars = [var(1, COLS), var(2, (ROWS, COLS)), var(3, (ROWS, COLS))];
        let gradients = |links| drawn(&vars, seed, links).unwrap().backward().unwrap();
        let (found, expected) = (gradients(true), gradients(false));
        let ours = backward(&drawn(&vars, seed, true).unwrap()).unwrap();
        for var in &vars {
            assert_eq!(found.get(var).is_some(), expected.get(var).is_some(), "graph {seed}");
            if let (Some(found), Some(expected), Some(ours)) = (found.get(var), expected.get(var), ours.get(var)) {
                assert_close(found, expected, &format!("graph {seed}"));
                assert_close(ours, expected, &format!("graph {seed}"));
            }
        }
    }
}

#[test]
fn a_result_may_have_any_number_of_readers() {
    for readers in [1, 2, 22, 23, 24, 25, 60] {
        let x = var(1, (ROWS, COLS));
        let loss = |links: bool| {
            let y = ops::silu(&x)?;
            let y = if links { y } else { unlinked(&y)? };
            let all: Vec<Tensor> = (0..readers).map(|_| ops::gelu(&y)).collect::<Result<_>>()?;
            Tensor::stack(&all, 0)?.sum_all()
        };
        let gradient = |links| loss(links).unwrap().backward().unwrap().remove(&x).unwrap();
        assert_close(&gradient(true), &gradient(false), &format!("{readers} readers"));
    }
}

/// Passes a tensor on, and fails in the first backward pass.
struct FailsOnce(AtomicBool);

impl CustomOp1 for FailsOnce {
    fn name(&self) -> &'static str {
        "fails once"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((storage.clone(), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if self.0.swap(false, Ordering::Relaxed) {
            candle_core::bail!("the first time");
        }
        Ok(Some(dy.clone()))
    }
}

#[test]
fn what_a_pass_that_failed_has_left_is_not_counted() {
    let x = var(1, (ROWS, COLS));
    let y = ops::silu(&x).unwrap();
    // In one of the two orders, a gradient is left before the pass fails.
    for swapped in [false, true] {
        let fails = ops::gelu(&y.apply_op1(FailsOnce(AtomicBool::new(true))).unwrap()).unwrap();
        let (first, second) = (ops::gelu_erf(&y).unwrap(), fails);
        let (first, second) = if swapped { (second, first) } else { (first, second) };
        let both = (first.sum_all().unwrap() + second.sum_all().unwrap()).unwrap();
        assert!(both.backward().is_err());
        let alone = ops::silu_mul(&y, &y).unwrap().sum_all().unwrap();
        let found = alone.backward().unwrap().remove(&x).unwrap();
        let expected = unlinked(&ops::silu(&x).unwrap()).unwrap();
        let expected = ops::silu_mul(&expected, &expected).unwrap().sum_all().unwrap();
        assert_close(&found, &expected.backward().unwrap().remove(&x).unwrap(), "after a failure");
        assert!(both.backward().is_ok());
    }
}

#[test]
fn a_graph_has_passes_of_several_threads_at_once() {
    let x = var(1, (64, 512));
    let y = ops::silu(&x).unwrap();
    let losses = [ops::gelu(&y), ops::gelu_erf(&y), ops::silu_mul(&y, &y)].map(|y| y.unwrap().sum_all().unwrap());
    let gradient = |loss: &Tensor| bits(&loss.backward().unwrap().remove(&x).unwrap());
    let expected = losses.each_ref().map(gradient);
    std::thread::scope(|scope| {
        for (loss, expected) in losses.iter().zip(&expected) {
            scope.spawn(move || {
                for _ in 0..100 {
                    assert!(gradient(loss) == *expected, "another pass got in");
                }
            });
        }
    });
}

#[test]
fn a_graph_goes_on_in_another_thread() {
    let x = var(1, (ROWS, COLS));
    let y = ops::silu(&x).unwrap();
    let found = std::thread::scope(|scope| {
        let pass = || ops::gelu(&y)?.sum_all()?.backward();
        scope.spawn(pass).join().unwrap().unwrap().remove(&x).unwrap()
    });
    let expected = ops::gelu(&ops::silu(&x).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(bits(&found), bits(expected.get(&x).unwrap()));
}

#[test]
fn parts_that_nothing_reads_have_no_gradient() {
    let x = var(1, (2, 5, (4 + 2 + 2) * 3));
    let composite = |first: usize, count: usize| {
        x.reshape((2, 5, 8, 3)).unwrap().transpose(1, 2).unwrap().narrow(1, first, count).unwrap().contiguous().unwrap()
    };
    for used in 1..8 {
        let (q, k, v) = split_qkv(&x, 4, 2).unwrap();
        let loss = |parts: [Tensor; 3]| {
            let of_parts = parts.iter().enumerate().filter(|(part, _)| used >> part & 1 == 1);
            let squares = of_parts.map(|(_, part)| part.sqr().unwrap().sum_all().unwrap());
            squares.reduce(|a, b| (a + b).unwrap()).unwrap()
        };
        let expected = loss([composite(0, 4), composite(4, 2), composite(6, 2)]);
        let found = loss([q, k, v]);
        assert_eq!(found.to_scalar::<f32>().unwrap(), expected.to_scalar::<f32>().unwrap());
        let gradient = |loss: &Tensor| bits(&loss.backward().unwrap().remove(&x).unwrap());
        assert_eq!(gradient(&found), gradient(&expected), "parts {used:b}");
    }
}

#[test]
fn layers_in_full_precision_have_the_gradients_of_candle() {
    for (dtype, bound) in [(DType::F32, 1e-6), (DType::F64, 1e-12), (DType::BF16, 2e-2)] {
        let var =
            |seed, shape: &[usize]| Var::from_tensor(&Numbers(seed).tensor(shape).to_dtype(dtype).unwrap()).unwrap();
        let (x, weight, bias) = (var(3, &[2, 7, 5]), var(5, &[6, 5]), var(7, &[6]));
        for (with_bias, frozen_input) in [(true, false), (false, false), (true, true)] {
            let bias_of_layer = with_bias.then(|| bias.as_tensor().clone());
            let of_candle = candle_nn::Linear::new(weight.as_tensor().clone(), bias_of_layer);
            let input = if frozen_input { x.detach() } else { x.as_tensor().clone() };
            let loss = |layer: &dyn Module| layer.forward(&input)?.sqr()?.sum_all();
            let expected = loss(&of_candle).unwrap();
            let found = loss(&Linear::from(of_candle.clone())).unwrap();
            let number = |x: &Tensor| x.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
            assert!((number(&found) / number(&expected) - 1.0).abs() <= bound);
            let (found, expected) = (backward(&found).unwrap(), expected.backward().unwrap());
            for var in [&x, &weight, &bias] {
                assert_eq!(found.get(var).is_some(), expected.get(var).is_some());
                let (Some(found), Some(expected)) = (found.get(var), expected.get(var)) else { continue };
                let difference = (found - expected).unwrap().abs().unwrap().sum_all().unwrap();
                let scale = expected.abs().unwrap().sum_all().unwrap();
                assert!(number(&difference) <= bound * number(&scale), "{dtype:?}: {found} and {expected}");
            }
        }
    }
}

#[test]
fn tables_have_the_gradients_of_candle_in_old_memory_and_new() {
    let table = var(1, (9, 4));
    let layer = Embedding::new(table.as_tensor().clone(), 4);
    let of_candle = candle_nn::Embedding::new(table.as_tensor().clone(), 4);
    let mut gradients = GradStore::default();
    for numbers in [&[3u32, 1, 3, 8][..], &[0, 0], &[7]] {
        let numbers = Tensor::new(numbers, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let loss = |layer: &dyn Module| layer.forward(&numbers).unwrap().sqr().unwrap().sum_all().unwrap();
        let expected = bits(loss(&of_candle).backward().unwrap().get(&table).unwrap());
        assert_eq!(bits(loss(&layer).backward().unwrap().get(&table).unwrap()), expected);
        backward_into(&loss(&layer), &mut gradients).unwrap();
        assert_eq!(bits(gradients.get(&table).unwrap()), expected);
    }
}

#[test]
fn heads_that_do_not_fit_are_an_error() {
    let x = Tensor::zeros((1, 2, 10), DType::F32, &Device::Cpu).unwrap();
    for (found, part) in [
        (split_heads(&x, 4).unwrap_err(), "rows of 10 elements cannot be divided among 4 heads"),
        (split_heads(&x, 0).unwrap_err(), "0 heads"),
        (split_qkv(&x, 4, 4).unwrap_err(), "12 heads"),
    ] {
        assert!(found.to_string().contains(part), "{found}");
    }
    for dtype in [DType::F64, DType::BF16] {
        let x = Numbers(5).tensor((2, 3, 12)).to_dtype(dtype).unwrap();
        let heads = split_heads(&x, 3).unwrap();
        assert_eq!(heads.dims(), [2, 3, 3, 4]);
        let back = (merge_heads(&heads).unwrap() - x).unwrap().abs().unwrap().sum_all().unwrap();
        assert_eq!(back.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }
}
