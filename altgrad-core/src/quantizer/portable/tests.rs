//! The portable path against the kernels, on the CPU: the same bits, whatever the input.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use altgrad_kernels::Conversion;
use altgrad_testing::{CUSTOM, NAMED, Oracle, corpus};
use candle_core::{DType, Device, Tensor};

use super::super::{E8M0Rule, Granularity, Quantizer, Rounding, ScaleEncoding, Scaling, cpu};
use super::{block_amax, decode, encode, fake_quantize};
use crate::{Fp8, Infinity, Overflow};

/// Bits of each element, all NaN alike.
fn bits(x: &Tensor) -> Vec<u64> {
    let values = x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
    values.into_iter().map(|value| if value.is_nan() { u64::MAX } else { value.to_bits() }).collect()
}

fn codes(x: Option<Tensor>) -> Option<Vec<u8>> {
    x.map(|codes| codes.flatten_all().unwrap().to_vec1().unwrap())
}

fn assert_same(x: &Tensor, conversion: &Conversion, context: &str) {
    let (storage, layout) = x.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else { unreachable!("the tensor is on the CPU") };
    let expected = cpu::fake_quantize(storage, layout, x.dtype(), conversion).unwrap();
    let expected = Tensor::from_storage(
        candle_core::Storage::Cpu(expected),
        x.shape(),
        candle_core::op::BackpropOp::none(),
        false,
    );
    let actual = fake_quantize(x, conversion).unwrap();
    assert_eq!((actual.dtype(), actual.dims()), (x.dtype(), x.dims()), "{context}");
    for ((actual, expected), x) in bits(&actual).into_iter().zip(bits(&expected)).zip(bits(x)) {
        let [actual, expected, x] = [actual, expected, x].map(f64::from_bits);
        assert_eq!(actual.to_bits(), expected.to_bits(), "{context}: {x:e} gives {actual:e}, expected {expected:e}");
    }
    let packed = match cpu::encode(x, conversion) {
        Err(crate::Error::Format(crate::FormatError::NanNotRepresentable { .. })) => None,
        packed => Some(packed.unwrap()),
    };
    assert_eq!(codes(encode(x, conversion).unwrap()), codes(packed.clone()), "{context}");
    if let Some(packed) = packed {
        let scales: Vec<f32> = conversion.scales().iter().map(|scale| scale.value()).collect();
        let actual = decode(&packed, conversion.format(), conversion.blocks(), &scales, x.dtype()).unwrap();
        let expected = cpu::decode(&packed, conversion.format(), conversion.blocks(), &scales, x.dtype()).unwrap();
        let expected = Tensor::from_storage(
            candle_core::Storage::Cpu(expected),
            x.shape(),
            candle_core::op::BackpropOp::none(),
            false,
        );
        assert_eq!(bits(&actual), bits(&expected), "{context}");
    }
}

/// The corpus of a format as a matrix, with or without NaN and infinities.
fn matrix(oracle: &Oracle, dtype: DType, finite: bool) -> Tensor {
    const COLS: usize = 61;
    let mut values = if dtype == DType::F64 {
        corpus::f64s(oracle)
    } else {
        corpus::f32s(oracle).into_iter().map(f64::from).collect()
    };
    values.retain(|value| !finite || value.is_finite() && value.abs() <= f64::from(f32::MAX));
    values.resize(values.len().next_multiple_of(COLS), 0.0);
    let x = Tensor::from_vec(values.clone(), (values.len() / COLS, COLS), &Device::Cpu).unwrap();
    let x = x.to_dtype(dtype).unwrap();
    // Values beyond f16 became infinities on the way.
    if finite { x.clamp(-6e4, 6e4).unwrap().to_dtype(dtype).unwrap() } else { x }
}

fn quantizers(format: Fp8) -> Vec<Quantizer> {
    let new = Quantizer::new(format).scaling(Scaling::Current);
    let stochastic = Rounding::Stochastic { seed: 3 };
    let rows = new.clone().granularity(Granularity::PerRow);
    let block = |rows, cols| new.clone().granularity(Granularity::PerBlock { rows, cols });
    vec![
        new.clone().scaling(Scaling::Static(1.0)),
        new.clone().scaling(Scaling::Static(1.0)).overflow(Overflow::Special),
        new.clone().scaling(Scaling::Static(0.3)).rounding(stochastic),
        new.clone().scaling(Scaling::Static(1.0)).rounding(stochastic).overflow(Overflow::Special),
        new.clone(),
        new.clone().scale_encoding(ScaleEncoding::F32Reciprocal).amax_epsilon(1e-12),
        rows.clone(),
        rows.clone().scale_encoding(ScaleEncoding::F32Reciprocal).rounding(stochastic),
        rows.scale_encoding(ScaleEncoding::PowerOfTwo),
        block(1, 32).scale_encoding(ScaleEncoding::E8M0(E8M0Rule::Floor)),
        block(1, 32).scale_encoding(ScaleEncoding::E8M0(E8M0Rule::RoundUp)),
        block(3, 5),
        block(128, 128),
    ]
    .into_iter()
    .flat_map(|quantizer| {
        [Infinity::Propagate, Infinity::Saturate].map(|infinity| quantizer.clone().infinity(infinity))
    })
    .collect()
}

fn check_dtype(dtype: DType) {
    for spec in NAMED.into_iter().chain(CUSTOM) {
        let (oracle, format) = (Oracle::new(spec), spec.name.parse::<Fp8>().unwrap());
        for finite in [true, false] {
            let x = matrix(&oracle, dtype, finite);
            for quantizer in quantizers(format) {
                let context = format!("{dtype:?}, finite {finite}, {quantizer:?}");
                let (conversion, _) = quantizer.conversion(&x, "x", &quantizer.state(), 9).unwrap();
                let bits = |amaxes: Vec<f64>| {
                    amaxes
                        .into_iter()
                        .map(|amax| if amax.is_nan() { u64::MAX } else { amax.to_bits() })
                        .collect::<Vec<_>>()
                };
                let expected = cpu::block_amax(&x, conversion.blocks(), "x").unwrap();
                assert_eq!(bits(block_amax(&x, conversion.blocks()).unwrap()), bits(expected), "{context}");
                assert_same(&x, &conversion, &context);
            }
        }
    }
}

#[test]
fn same_bits_as_the_kernels_in_f32() {
    check_dtype(DType::F32);
}

#[test]
fn same_bits_as_the_kernels_in_f64() {
    check_dtype(DType::F64);
}

#[test]
fn same_bits_as_the_kernels_in_f16_and_bf16() {
    check_dtype(DType::F16);
    check_dtype(DType::BF16);
}

#[test]
fn empty_tensors_have_empty_results() {
    for dims in [(0, 5), (5, 0)] {
        let x = Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        for quantizer in quantizers(Fp8::E4M3) {
            let (conversion, _) = quantizer.conversion(&x, "x", &quantizer.state(), 9).unwrap();
            assert_eq!(block_amax(&x, conversion.blocks()).unwrap(), vec![0.0; conversion.blocks().count()]);
            assert_same(&x, &conversion, "empty");
        }
    }
}
