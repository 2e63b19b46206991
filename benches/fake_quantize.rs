//! How fast is one tensor quantized? Against candle's own casts to and from F8E4M3, composed with a scale.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

mod common;

use std::hint::black_box;

use altgrad::{Fp8, Fp8Tensor, Quantizer, fake_quantize};
use candle_core::{DType, Device, Result, Tensor};

/// The weight of an MLP projection in a GPT of width 768.
const SHAPE: (usize, usize) = (768, 3072);

fn main() {
    let mut criterion = common::criterion();
    let elements = SHAPE.0 * SHAPE.1;
    for dtype in [DType::F32, DType::BF16] {
        let x = Tensor::randn(0f32, 0.02, SHAPE, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let quantizer = Quantizer::new(Fp8::E4M3);
        let packed = Fp8Tensor::quantize(&x, &quantizer).unwrap();
        let codes = candle_quantize(&x).unwrap();

        let mut run = |operation: &str, contestants| {
            let group = format!("{operation}_{}", dtype.as_str());
            common::compare(&mut criterion, &group, (elements, "elements"), contestants);
        };
        run(
            "fake_quantize",
            vec![
                ("altgrad", keep(|| fake_quantize(&x, &quantizer).unwrap())),
                ("candle", keep(|| candle_fake_quantize(&x).unwrap())),
            ],
        );
        run(
            "quantize",
            vec![
                ("altgrad", keep(|| Fp8Tensor::quantize(&x, &quantizer).unwrap())),
                ("candle", keep(|| candle_quantize(&x).unwrap())),
            ],
        );
        run(
            "dequantize",
            vec![
                ("altgrad", keep(|| packed.dequantize().unwrap())),
                ("candle", keep(|| candle_dequantize(&codes, dtype).unwrap())),
            ],
        );
    }
    criterion.final_summary();
}

/// What `operation` makes is not left out for being unused.
fn keep<'a, T>(operation: impl Fn() -> T + 'a) -> Box<dyn FnMut() + 'a> {
    Box::new(move || {
        black_box(operation());
    })
}

/// The codes and the scale, as a user of candle alone would write it.
fn candle_quantize(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let scale = (x.abs()?.max_all()?.to_dtype(DType::F32)? / 448.0)?.to_dtype(x.dtype())?;
    Ok((x.broadcast_div(&scale)?.to_dtype(DType::F8E4M3)?, scale))
}

fn candle_dequantize((codes, scale): &(Tensor, Tensor), dtype: DType) -> Result<Tensor> {
    codes.to_dtype(dtype)?.broadcast_mul(scale)
}

fn candle_fake_quantize(x: &Tensor) -> Result<Tensor> {
    candle_dequantize(&candle_quantize(x)?, x.dtype())
}
