//! How fast is what a transformer computes beside its products, forward and backward? Against candle's operations that
//! have a backward pass, in f32.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

mod common;

use std::hint::black_box;

use altgrad::Mask;
use altgrad::nn::attention::scaled_dot_product_attention;
use altgrad::nn::{loss, ops, rotary_emb};
use candle_core::{D, Device, Result, Tensor, Var};

type Operation<'a> = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + 'a>;

/// Both sides allocate every tensor anew. The system's allocator gives the memory of large ones back to the operating
/// system each time, which would be most of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = common::criterion();
    let mut compare = |name: &str, shapes: &[&[usize]], ours: Operation<'_>, candle: Operation<'_>| {
        let vars: Vec<Var> = shapes.iter().map(|shape| Var::randn(0f32, 1.0, *shape, &Device::Cpu).unwrap()).collect();
        let arguments: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let elements = arguments[0].elem_count();
        let (ours, candle) = (step(ours, &arguments, true), step(candle, &arguments, false));
        common::compare(
            &mut criterion,
            &format!("transformer_ops/{name}"),
            (elements, "elements"),
            vec![("altgrad", ours), ("candle", candle)],
        );
    };
    let (tokens, width) = (2048, 768);
    compare(
        "layer_norm",
        &[&[tokens, width], &[width], &[width]],
        Box::new(|a| ops::layer_norm(&a[0], &a[1], &a[2], 1e-5)),
        Box::new(|a| candle_nn::ops::layer_norm_slow(&a[0], &a[1], &a[2], 1e-5)),
    );
    compare(
        "rms_norm",
        &[&[tokens, width], &[width]],
        Box::new(|a| ops::rms_norm(&a[0], &a[1], 1e-5)),
        Box::new(|a| candle_nn::ops::rms_norm_slow(&a[0], &a[1], 1e-5)),
    );
    let hidden: &[usize] = &[tokens, 4 * width];
    compare("gelu", &[hidden], Box::new(|a| ops::gelu(&a[0])), Box::new(|a| a[0].gelu()));
    compare("gelu_erf", &[hidden], Box::new(|a| ops::gelu_erf(&a[0])), Box::new(|a| a[0].gelu_erf()));
    compare(
        "silu_mul",
        &[hidden, hidden],
        Box::new(|a| ops::silu_mul(&a[0], &a[1])),
        Box::new(|a| a[0].silu()? * &a[1]),
    );
    let causal = {
        let hidden = |row: u32, col: u32| if col > row { f32::NEG_INFINITY } else { 0.0 };
        let values: Vec<f32> = (0..128).flat_map(|row| (0..128).map(move |col| hidden(row, col))).collect();
        Tensor::from_vec(values, (128, 128), &Device::Cpu).unwrap()
    };
    compare(
        "causal softmax",
        &[&[16, 12, 128, 128]],
        Box::new(|a| ops::masked_softmax(&a[0], Mask::Causal)),
        Box::new(|a| candle_nn::ops::softmax(&a[0].broadcast_add(&causal)?, D::Minus1)),
    );
    let angles = Tensor::rand(0f32, 6.0, (128, 32), &Device::Cpu).unwrap();
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    compare(
        "rope",
        &[&[16, 12, 128, 64]],
        Box::new(|a| rotary_emb::rope(&a[0], &cos, &sin)),
        Box::new(|a| candle_nn::rotary_emb::rope_slow(&a[0], &cos, &sin)),
    );
    let classes = 8192;
    let targets = Tensor::from_iter((0..tokens).map(|row| (row * 7 % classes) as u32), &Device::Cpu).unwrap();
    compare(
        "cross_entropy",
        &[&[tokens, classes]],
        Box::new(|a| loss::cross_entropy(&a[0], &targets)),
        Box::new(|a| candle_nn::loss::cross_entropy(&a[0], &targets)),
    );
    let heads: &[usize] = &[16, 12, 128, 64];
    compare(
        "causal attention",
        &[heads, heads, heads],
        Box::new(|a| scaled_dot_product_attention(&a[0], &a[1], &a[2], 0.125, Mask::Causal)),
        Box::new(|a| {
            let scores = ((&a[0] * 0.125)?.matmul(&a[1].t()?)?).broadcast_add(&causal)?;
            candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&a[2])
        }),
    );
    criterion.final_summary();
}

/// A forward and a backward pass, from a gradient of ones.
fn step<'a>(operation: Operation<'a>, arguments: &'a [Tensor], past_candle: bool) -> Box<dyn FnMut() + 'a> {
    let arguments = arguments.to_vec();
    Box::new(move || {
        let y = operation(&arguments).unwrap();
        black_box(if past_candle { altgrad::backward(&y).unwrap() } else { y.backward().unwrap() });
    })
}
