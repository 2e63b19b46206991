//! Matrices on the CPU in the form that products read and write: slices of codes and floats.

use std::sync::Arc;

use altgrad_kernels::lock::Lock;
use altgrad_kernels::{self as kernels, Blocks, CodeMatrix, Conversion, Element, PackedCodes, Scalar as _, Windows};
use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor, WithDType};
use half::{bf16, f16};

use super::cpu::{dispatch_float, with_values};
use crate::{Error, Fp8, Result, TensorError};

/// Whether the kernels have products for tensors of this dtype on this device.
pub(crate) fn has_kernels(dtype: DType, device: &Device) -> bool {
    device.is_cpu() && matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// A matrix of codes under scales, shared by the passes that compute with it.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    bytes: Arc<Vec<u8>>,
    format: Fp8,
    /// Those of what is stored, as are the scales.
    blocks: Blocks,
    scales: Arc<[f32]>,
    /// Whether the matrix is the transpose of what is stored.
    is_transposed: bool,
}

impl Codes {
    /// The codes of `x`; `None` if `x` holds NaN and the format has none. The memory comes from `buffer`, which can
    /// reuse it once nobody needs the codes any more.
    pub(crate) fn encode(x: &Tensor, conversion: &Conversion, buffer: Option<&CodeBuffer>) -> Result<Option<Self>> {
        let mut bytes = buffer.map_or_else(|| kernels::zeroed(x.elem_count()), |buffer| buffer.take(x.elem_count()));
        let encoded = dispatch_float!(x.dtype(), "the tensor", T => {
            with_values(x, |values: &[T]| kernels::encode(values, &mut bytes, conversion))
        })?;
        let bytes = Arc::new(bytes);
        if let Some(buffer) = buffer {
            buffer.put(&bytes);
        }
        match encoded {
            Ok(()) => {}
            Err(altgrad_kernels::FormatError::NanNotRepresentable { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let blocks = conversion.blocks();
        // A matrix without rows has no block, but a tensor of one scale has that one.
        let scales = conversion.scales()[..blocks.count()].iter().map(|scale| scale.value()).collect();
        Ok(Some(Self { bytes, format: conversion.format(), blocks, scales, is_transposed: false }))
    }

    /// The transpose, without moving anything.
    pub(crate) fn transposed(self) -> Self {
        Self { is_transposed: !self.is_transposed, ..self }
    }

    /// The codes of a packed matrix.
    pub(crate) fn unpack(packed: &PackedCodes) -> Self {
        let (blocks, scales) = (packed.blocks(), packed.scales());
        let scales = Arc::from(&scales[..blocks.count()]);
        Self { bytes: Arc::new(packed.codes()), format: packed.format(), blocks, scales, is_transposed: false }
    }

    /// The codes row by row.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The scales in the order of the blocks.
    pub(crate) fn scales(&self) -> &[f32] {
        &self.scales
    }

    pub(crate) fn view(&self) -> CodeMatrix<'_> {
        let stored = CodeMatrix::new(&self.bytes, self.format, self.blocks, &self.scales);
        if self.is_transposed { stored.transposed() } else { stored }
    }

    /// The values as a tensor.
    pub(crate) fn dequantize(&self, shape: &Shape, dtype: DType) -> Result<Tensor> {
        let stored = dispatch_float!(dtype, "the dequantized tensor", T => {
            let mut values = T::zeroed(self.bytes.len());
            kernels::decode_with(&self.bytes, &mut values, self.format, self.blocks, &self.scales)?;
            Ok::<_, Error>(Tensor::from_vec(values, self.blocks.shape(), &Device::Cpu)?)
        })?;
        let values = if self.is_transposed { transposed(&stored, 1)? } else { stored };
        Ok(values.reshape(shape)?)
    }
}

/// The buffer that last held the codes of one of a layer's tensors, to be reused in the next step.
#[derive(Debug, Default)]
pub(crate) struct CodeBuffer(Lock<Option<Arc<Vec<u8>>>>);

impl CodeBuffer {
    fn take(&self, len: usize) -> Vec<u8> {
        match self.0.replace(None).map(Arc::try_unwrap) {
            Some(Ok(mut bytes)) => {
                bytes.resize(len, 0);
                bytes
            }
            // There is no buffer, or a backward pass has yet to read it.
            _ => vec![0; len],
        }
    }

    fn put(&self, bytes: &Arc<Vec<u8>>) {
        self.0.replace(Some(Arc::clone(bytes)));
    }

    /// Releases the memory.
    pub(crate) fn clear(&self) {
        self.0.replace(None);
    }
}

/// The sum of the rows of a matrix, as a vector with one number per column.
pub(crate) fn sum_rows(x: &Tensor) -> Result<Tensor> {
    if !has_kernels(x.dtype(), x.device()) {
        return Ok(x.sum(0)?);
    }
    let (_, cols) = x.dims2()?;
    let sums = with_floats(x, |x| kernels::sum_rows(x, cols))?;
    let storage = Storage::Cpu(to_storage(sums, x.dtype())?);
    Ok(Tensor::from_storage(storage, cols, candle_core::op::BackpropOp::none(), false))
}

/// Calls `function` with the elements of a tensor on the CPU in logical order as `f32`.
pub(crate) fn with_floats<R>(x: &Tensor, function: impl FnOnce(&[f32]) -> R) -> Result<R> {
    fn widened<T: Element<Real = f32> + WithDType>(x: &Tensor) -> Result<Vec<f32>> {
        with_values(x, |values: &[T]| values.iter().map(|value| value.widen()).collect())
    }
    match x.dtype() {
        DType::F32 => with_values(x, function),
        DType::F16 => Ok(function(&widened::<f16>(x)?)),
        DType::BF16 => Ok(function(&widened::<bf16>(x)?)),
        dtype => Err(Error::Tensor(TensorError::UnsupportedDType { what: "the operand of a product", dtype })),
    }
}

/// The values as storage of a floating-point type.
pub(crate) fn to_storage(values: Vec<f32>, dtype: DType) -> Result<CpuStorage> {
    fn narrowed<T: Element<Real = f32> + WithDType>(values: &[f32]) -> CpuStorage {
        T::to_cpu_storage_owned(values.iter().map(|value| T::narrow(*value)).collect())
    }
    match dtype {
        DType::F32 => Ok(CpuStorage::F32(values)),
        DType::F16 => Ok(narrowed::<f16>(&values)),
        DType::BF16 => Ok(narrowed::<bf16>(&values)),
        dtype => Err(Error::Tensor(TensorError::UnsupportedDType { what: "the result of a product", dtype })),
    }
}

/// The windows of a convolution over images on the CPU, as the rows of a matrix.
pub(crate) fn gather_windows(x: &Tensor, windows: &Windows) -> Result<Tensor> {
    let (rows, cols) = windows.shape();
    dispatch_float!(x.dtype(), "the input", T => {
        let values = with_values(x, |values: &[T]| {
            let mut to = T::zeroed(rows * cols);
            windows.gather(values, &mut to);
            to
        })?;
        Ok(Tensor::from_vec(values, (rows, cols), &Device::Cpu)?)
    })
}

/// Adds up the rows of windows at their places in the images, on the CPU, as a vector: the adjoint of
/// [`gather_windows`].
pub(crate) fn scatter_windows(rows: &Tensor, windows: &Windows) -> Result<Tensor> {
    let elements = windows.elements();
    dispatch_float!(rows.dtype(), "the gradient of the input", T => {
        let values = with_values(rows, |rows: &[T]| {
            let mut to = T::zeroed(elements);
            windows.scatter_add(rows, &mut to);
            to
        })?;
        Ok(Tensor::from_vec(values, elements, &Device::Cpu)?)
    })
}

/// The transpose of each group of rows of a matrix, stacked on top of one another.
pub(crate) fn transposed(x: &Tensor, groups: usize) -> Result<Tensor> {
    let (rows, cols) = x.dims2()?;
    let x = x.detach();
    if groups != 1 {
        let groups = groups.max(1);
        let transposed = x.reshape((groups, rows / groups, cols))?.transpose(1, 2)?.contiguous()?;
        return Ok(transposed.reshape((groups * cols, rows / groups))?);
    }
    if !x.device().is_cpu() {
        return Ok(x.t()?.contiguous()?);
    }
    dispatch_float!(x.dtype(), "the tensor", T => {
        let values = with_values(&x, |values: &[T]| {
            let mut to = T::zeroed(values.len());
            kernels::transpose(values, &mut to, cols);
            to
        })?;
        Ok(Tensor::from_vec(values, (cols, rows), x.device())?)
    })
}
