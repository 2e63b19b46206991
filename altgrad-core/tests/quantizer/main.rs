//! Quantizers: scales, fake quantization, its gradient, and packed tensors.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests compare exact values and fail by panicking")]

mod fake_quantize;
mod fp8_tensor;
mod scale;
mod ste;
mod stochastic;

use altgrad_core::Fp8;
use altgrad_testing::{BF16, F16, NAMED, Oracle};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

const FLOAT_DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// The named formats with their oracles.
fn formats() -> impl Iterator<Item = (Fp8, Oracle)> {
    Fp8::NAMED.into_iter().zip(NAMED).map(|((_, format), spec)| (format, Oracle::new(spec)))
}

/// A tensor of one dimension; `f16` and `bf16` from the nearest values.
fn tensor(values: &[f64], dtype: DType) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// The elements in logical order as bits, `None` for NaN.
fn bits(x: &Tensor) -> Vec<Option<u64>> {
    let x = x.flatten_all().unwrap();
    match x.dtype() {
        DType::F64 => x.to_vec1::<f64>().unwrap().iter().map(|v| (!v.is_nan()).then_some(v.to_bits())).collect(),
        DType::F32 => x.to_vec1::<f32>().unwrap().iter().map(|v| (!v.is_nan()).then_some(v.to_bits().into())).collect(),
        DType::F16 => x.to_vec1::<f16>().unwrap().iter().map(|v| (!v.is_nan()).then_some(v.to_bits().into())).collect(),
        DType::BF16 => {
            x.to_vec1::<bf16>().unwrap().iter().map(|v| (!v.is_nan()).then_some(v.to_bits().into())).collect()
        }
        dtype => unreachable!("no floating-point dtype: {dtype:?}"),
    }
}

/// The elements in logical order, exact.
fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The code for an element of a tensor of this dtype, and the bits of what it stands for, `None` for NaN.
fn expected(x: f64, dtype: DType, oracle: &Oracle, scale: f32) -> (Option<u8>, Option<u64>) {
    let quotient = match dtype {
        DType::F64 => x / f64::from(scale),
        _ => f64::from(x as f32 / scale),
    };
    let Some(code) = oracle.saturated(quotient) else { return (None, None) };
    let value = oracle.decode(code);
    let product = value as f32 * scale;
    let bits = match dtype {
        DType::F64 => (value * f64::from(scale)).to_bits(),
        DType::F32 => product.to_bits().into(),
        DType::F16 => F16.bits(F16.nearest(product.into())).into(),
        _ => BF16.bits(BF16.nearest(product.into())).into(),
    };
    (Some(code), Some(bits))
}

/// Some numbers of both signs over many binades, without a pattern that a vector of elements would repeat.
fn numbers(count: usize, largest: f64) -> Vec<f64> {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut values: Vec<f64> = (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let fraction = (state >> 12) as f64 / 2f64.powi(52);
            let sign = if state & 1 == 0 { 1.0 } else { -1.0 };
            sign * fraction * largest * 2f64.powi(-((state >> 1) as i32 & 0xF))
        })
        .collect();
    values[count / 2] = -largest;
    values
}
