//! Quantization of candle tensors on any device: kernels on the CPU, candle's tensor operations elsewhere.

use altgrad_kernels::{Blocks, Conversion};
use candle_core::{DType, Device, Tensor};

use super::{Granularity, cpu, portable};
use crate::{Error, FormatError, Fp8, Result, TensorError};

/// The largest magnitude of each block; NaN if the block holds NaN, 0 if it is empty. `what` is the tensor's role.
pub(super) fn block_amax(x: &Tensor, blocks: Blocks, what: &'static str) -> Result<Vec<f64>> {
    check_dtype(x.dtype(), what)?;
    if x.device().is_cpu() { cpu::block_amax(x, blocks, what) } else { portable::block_amax(x, blocks) }
}

/// The largest magnitude of a tensor; NaN if an element is NaN.
fn amax(x: &Tensor, what: &'static str) -> Result<f64> {
    Ok(block_amax(x, Granularity::PerTensor.blocks(x.dims()), what)?[0])
}

/// The codes of `x` in its shape.
///
/// # Errors
///
/// [`FormatError::NanNotRepresentable`](crate::FormatError::NanNotRepresentable) if `x` holds NaN and the format has
/// none.
pub(super) fn encode(x: &Tensor, conversion: &Conversion) -> Result<Tensor> {
    check_dtype(x.dtype(), "the tensor")?;
    if x.device().is_cpu() {
        return cpu::encode(x, conversion);
    }
    portable::encode(x, conversion)?
        .ok_or(Error::Format(FormatError::NanNotRepresentable { format: conversion.format().to_string() }))
}

/// The values of codes.
pub(super) fn decode(codes: &Tensor, format: Fp8, blocks: Blocks, scales: &[f32], dtype: DType) -> Result<Tensor> {
    if !codes.device().is_cpu() {
        return portable::decode(codes, format, blocks, scales, dtype);
    }
    let storage = candle_core::Storage::Cpu(cpu::decode(codes, format, blocks, scales, dtype)?);
    Ok(Tensor::from_storage(storage, codes.shape(), candle_core::op::BackpropOp::none(), false))
}

/// The largest magnitude of a tensor, which must be finite and within `f32`, in which scales are kept.
///
/// # Errors
///
/// [`TensorError::NotFinite`](crate::TensorError::NotFinite) naming the first element that is not finite, or
/// [`TensorError::AmaxOutOfRange`](crate::TensorError::AmaxOutOfRange).
pub(crate) fn check_finite(x: &Tensor, what: &'static str) -> Result<f32> {
    let amax = amax(x, what)?;
    if (amax as f32).is_finite() {
        return Ok(amax as f32);
    }
    Err(match cpu::first_not_finite(&x.to_device(&Device::Cpu)?, what)? {
        Some((index, value)) => Error::Tensor(TensorError::NotFinite { what, value, index }),
        None => Error::Tensor(TensorError::AmaxOutOfRange { what, amax }),
    })
}

/// [`TensorError::AmaxOutOfRange`](crate::TensorError::AmaxOutOfRange) if a finite magnitude is beyond `f32`, in which
/// scales are kept.
pub(super) fn check_range(x: &Tensor, what: &'static str) -> Result<()> {
    if x.dtype() != DType::F64 {
        return check_dtype(x.dtype(), what);
    }
    let amax = amax(x, what)?;
    if amax.is_finite() && (amax as f32).is_infinite() {
        Err(Error::Tensor(TensorError::AmaxOutOfRange { what, amax }))
    } else {
        Ok(())
    }
}

fn check_dtype(dtype: DType, what: &'static str) -> Result<()> {
    if cpu::is_supported(dtype) { Ok(()) } else { Err(Error::Tensor(TensorError::UnsupportedDType { what, dtype })) }
}
