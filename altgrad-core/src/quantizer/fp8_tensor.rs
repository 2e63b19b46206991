//! A tensor as one-byte codes and scales.

use altgrad_kernels::{Blocks, Conversion, PackedCodes, Scale};
use candle_core::{DType, Device, Shape, Tensor};

use super::scaling::check_scale;
use super::{Granularity, Quantizer, cpu, tensor_ops};
use crate::{Error, FormatError, Fp8, Result, TensorError};

/// A tensor packed into one byte per element: `value = decode(code) × scale`.
///
/// ```
/// use altgrad::{Fp8, Fp8Tensor, Quantizer, fake_quantize};
/// use candle_core::{Device, Tensor};
///
/// let x = Tensor::new(&[[448f32, 17.0], [-0.3, 0.0]], &Device::Cpu)?;
/// let quantizer = Quantizer::from(Fp8::E4M3);
/// let packed = Fp8Tensor::quantize(&x, &quantizer)?;
/// assert_eq!(packed.codes().to_vec2::<u8>()?, [[0x7E, 0x58], [0xAA, 0x00]]);
/// assert_eq!(packed.dequantize()?.to_vec2::<f32>()?, fake_quantize(&x, &quantizer)?.to_vec2::<f32>()?);
/// # Ok::<(), altgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fp8Tensor {
    codes: Tensor,
    scales: Tensor,
    granularity: Granularity,
    format: Fp8,
    dtype: DType,
}

impl Fp8Tensor {
    /// Packs `x` as in the quantizer's first step. Scales are made from `x` alone, unless they are static; with
    /// delayed scaling the scale is 1. Stochastic rounding uses the random numbers of step 0.
    ///
    /// # Errors
    ///
    /// [`FormatError::NanNotRepresentable`](crate::FormatError::NanNotRepresentable) if `x` holds NaN, or an infinity
    /// that is to [propagate](crate::Infinity), and the format has no NaN; a dtype other than f32, f64, f16 and bf16;
    /// an invalid quantizer.
    pub fn quantize(x: &Tensor, quantizer: &Quantizer) -> Result<Self> {
        Self::convert(x, &quantizer.first_conversion(x, "the tensor")?, quantizer.granularity)
    }

    /// Packs `x` with a scale of your choice. Values beyond the format's range saturate, as do infinities.
    ///
    /// # Errors
    ///
    /// As [`quantize`](Self::quantize), and for a scale that is not a positive finite number.
    pub fn quantize_with_scale(x: &Tensor, format: Fp8, scale: f32) -> Result<Self> {
        check_scale(scale)?;
        let (blocks, scales) = (Granularity::PerTensor.blocks(x.dims()), vec![Scale::new(scale)]);
        let conversion = Conversion::saturating(format, blocks, scales);
        Self::convert(x, &conversion, Granularity::PerTensor)
    }

    /// Packs `x` under a given conversion.
    pub(crate) fn convert(x: &Tensor, conversion: &Conversion, granularity: Granularity) -> Result<Self> {
        let codes = tensor_ops::encode(&x.detach(), conversion)?;
        let scales: Vec<f32> = conversion.scales().iter().map(|scale| scale.value()).collect();
        let scales = Tensor::from_vec(scales, granularity.scale_dims(x.dims()), x.device())?;
        Ok(Self { codes, scales, granularity, format: conversion.format(), dtype: x.dtype() })
    }

    /// A packed tensor from its parts: `U8` codes of any shape, `F32` scales, and the dtype that
    /// [`dequantize`](Self::dequantize) gives.
    ///
    /// With [`Granularity::PerTensor`] the scale is a scalar. Otherwise the scales are a matrix with one scale per
    /// block, laid out as the blocks are in the codes taken as a matrix (all dimensions but the last by the last).
    /// With one scale per row, a weight of shape `(outputs, inputs)` has scales of shape `(outputs, 1)`.
    ///
    /// Codes of 6 and 4 bits occupy the upper bits of their bytes (see [`Fp8`]); other libraries write them in the
    /// lower bits.
    ///
    /// # Errors
    ///
    /// A part of another dtype or shape, a scale that is not a positive finite number, or a byte that is not a code
    /// of the format.
    pub fn from_parts(
        codes: Tensor,
        scales: Tensor,
        granularity: Granularity,
        format: Fp8,
        dtype: DType,
    ) -> Result<Self> {
        for (what, tensor, expected) in
            [("the tensor of codes", &codes, DType::U8), ("the tensor of scales", &scales, DType::F32)]
        {
            if tensor.dtype() != expected {
                return Err(Error::Tensor(TensorError::DTypeMismatch { what, expected, actual: tensor.dtype() }));
            }
        }
        granularity.validate()?;
        let expected = granularity.scale_dims(codes.dims());
        if scales.dims() != expected {
            let expected = if expected.is_empty() {
                "a scalar, one scale for the whole tensor".to_owned()
            } else {
                format!("{expected:?}, one scale for each block of codes of shape {:?}", codes.dims())
            };
            return Err(Error::Tensor(TensorError::ShapeMismatch {
                what: "the tensor of scales",
                expected,
                actual: scales.dims().to_vec(),
            }));
        }
        if !cpu::is_supported(dtype) {
            return Err(Error::Tensor(TensorError::UnsupportedDType { what: "the dequantized tensor", dtype }));
        }
        let packed = Self { codes, scales, granularity, format, dtype };
        packed.scale_values()?.into_iter().try_for_each(check_scale)?;
        packed.check_codes()?;
        Ok(packed)
    }

    /// Fails for a byte that is not a code of a format of 6 or 4 bits, whose codes are in the upper bits.
    fn check_codes(&self) -> Result<()> {
        if self.format.bits() == 8 || self.codes.elem_count() == 0 {
            return Ok(());
        }
        let unused = f64::from(1u32 << (8 - self.format.bits()));
        // Exact: bytes and powers of two are in f32.
        let steps = self.codes.to_dtype(DType::F32)?.affine(1.0 / unused, 0.0)?;
        let rest = (&steps - steps.floor()?)?.max_all()?.to_scalar::<f32>()?;
        if rest == 0.0 {
            Ok(())
        } else {
            Err(Error::Format(FormatError::NotACode { format: self.format.to_string(), bits: self.format.bits() }))
        }
    }

    /// The values, in [`dtype`](Self::dtype).
    ///
    /// # Errors
    ///
    /// Only those of candle's tensor operations.
    pub fn dequantize(&self) -> Result<Tensor> {
        tensor_ops::decode(&self.codes, self.format, self.blocks(), &self.scale_values()?, self.dtype)
    }

    /// One code per element, `U8`.
    #[must_use]
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// The scales, `F32`: a scalar, or a matrix with one scale per block; see [`from_parts`](Self::from_parts). A
    /// scale is NaN if it was made from values that are not all finite, and infinities [propagate](crate::Infinity).
    #[must_use]
    pub fn scales(&self) -> &Tensor {
        &self.scales
    }

    /// Which codes share a scale.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The format of the codes.
    #[must_use]
    pub fn format(&self) -> Fp8 {
        self.format
    }

    /// The dtype of the tensor that was packed.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape of the tensor.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        self.codes.shape()
    }

    /// Bytes of the codes and scales.
    #[must_use]
    pub fn bytes(&self) -> usize {
        [&self.codes, &self.scales].map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).iter().sum()
    }

    pub(crate) fn blocks(&self) -> Blocks {
        self.granularity.blocks(self.codes.dims())
    }

    pub(crate) fn scale_values(&self) -> Result<Vec<f32>> {
        Ok(self.scales.flatten_all()?.to_vec1()?)
    }

    /// The codes of a matrix on the CPU in the order in which products read them, for each of `groups` groups of rows
    /// separately; `None` if a group would cut a block.
    pub(crate) fn pack(&self, groups: usize) -> Result<Option<Vec<PackedCodes>>> {
        let (blocks, scales) = (self.blocks(), self.scale_values()?);
        let (rows, cols) = blocks.shape();
        let rows = rows / groups.max(1);
        cpu::with_values(&self.codes, |codes: &[u8]| {
            let pack = |group: usize| {
                let range = group * rows..(group + 1) * rows;
                let (blocks, of_group) = blocks.of_rows(range.clone())?;
                let codes = &codes[range.start * cols..range.end * cols];
                Some(PackedCodes::new(codes, self.format, blocks, scales[of_group].to_vec()))
            };
            // One group is all rows, and has the matrix's blocks even if there are no rows.
            if groups == 1 {
                return Some(vec![PackedCodes::new(codes, self.format, blocks, scales)]);
            }
            (0..groups).map(pack).collect()
        })
    }

    /// Restores the matrix that was packed in groups of rows, on the CPU.
    pub(crate) fn unpack(groups: &[PackedCodes], granularity: Granularity, dtype: DType) -> Result<Self> {
        let Some(first) = groups.first() else { return Err(nothing_packed()) };
        let (rows, cols) = first.blocks().shape();
        let dims = [groups.len() * rows, cols];
        let codes = match groups {
            [codes] => codes.codes(),
            groups => groups.iter().flat_map(PackedCodes::codes).collect(),
        };
        let scales = if granularity.blocks(&dims).grid().0 <= 1 {
            first.scales().to_vec()
        } else {
            groups.iter().flat_map(PackedCodes::scales).copied().collect()
        };
        let codes = Tensor::from_vec(codes, &dims, &Device::Cpu)?;
        let scales = Tensor::from_vec(scales, granularity.scale_dims(&dims), &Device::Cpu)?;
        Ok(Self { codes, scales, granularity, format: first.format(), dtype })
    }

    /// Some rows of the matrix that was packed in one group, on the CPU; `None` gives a row of zeros.
    pub(crate) fn unpack_rows(
        packed: &PackedCodes,
        rows: &[Option<usize>],
        granularity: Granularity,
        dtype: DType,
    ) -> Result<Self> {
        let (count, cols) = packed.blocks().shape();
        let mut codes = vec![0; rows.len() * cols];
        for (row, to) in rows.iter().zip(codes.chunks_exact_mut(cols.max(1))) {
            if let Some(row) = row {
                packed.copy_row(*row, to);
            }
        }
        let of_rows = granularity.of_single_rows();
        let (down, across) = granularity.blocks(&[count, cols]).grid();
        let scales = if of_rows == Granularity::PerTensor {
            packed.scales().to_vec()
        } else {
            let block_rows = packed.blocks().block().0;
            let scales = rows.iter().flat_map(|row| {
                let block = (row.unwrap_or_default() / block_rows).min(down.saturating_sub(1)) * across;
                &packed.scales()[block..block + across]
            });
            scales.copied().collect()
        };
        let dims = [rows.len(), cols];
        let codes = Tensor::from_vec(codes, &dims, &Device::Cpu)?;
        let scales = Tensor::from_vec(scales, of_rows.scale_dims(&dims), &Device::Cpu)?;
        Ok(Self { codes, scales, granularity: of_rows, format: packed.format(), dtype })
    }

    /// Some rows of a matrix, given by a vector of their numbers.
    pub(crate) fn rows(&self, rows: &Tensor) -> Result<Self> {
        let granularity = self.granularity.of_single_rows();
        let codes = self.codes.index_select(rows, 0)?;
        let scales = match self.granularity {
            Granularity::PerTensor => self.scales.clone(),
            Granularity::PerRow | Granularity::PerChannel => self.scales.index_select(rows, 0)?,
            Granularity::PerBlock { rows: block_rows, .. } => {
                let blocks = rows.to_dtype(DType::I64)?.to_vec1::<i64>()?;
                let blocks = blocks.into_iter().map(|row| row / block_rows as i64).collect::<Vec<_>>();
                self.scales.index_select(&Tensor::new(blocks, self.scales.device())?, 0)?
            }
        };
        Ok(Self { codes, scales, granularity, format: self.format, dtype: self.dtype })
    }

    /// Reshapes a matrix, which has a row for each index of the first dimension, to a tensor of these dimensions;
    /// leaves it unchanged if its blocks are not blocks of that tensor.
    pub(crate) fn reshape(self, dims: &[usize]) -> Result<Self> {
        let Some(granularity) = self.granularity.of_tensor(dims).filter(|_| dims.len() > 2) else { return Ok(self) };
        let scales = self.scales.reshape(granularity.scale_dims(dims))?;
        Ok(Self { codes: self.codes.reshape(dims)?, scales, granularity, ..self })
    }

    /// The same codes as a matrix with a row for each index of the first dimension, the form in which layers hold
    /// their weights; `None` if the blocks are not blocks of that matrix.
    pub(crate) fn to_matrix(&self) -> Result<Option<Self>> {
        let dims = self.codes.dims();
        let [first, rest @ ..] = dims else { return Ok(None) };
        let Some(granularity) = self.granularity.of_matrix(dims) else { return Ok(None) };
        let matrix = [*first, rest.iter().product()];
        let codes = self.codes.reshape(&matrix)?;
        let scales = self.scales.reshape(granularity.scale_dims(&matrix))?;
        Ok(Some(Self { codes, scales, granularity, ..self.clone() }))
    }
}

/// The error for packed codes without any group.
fn nothing_packed() -> Error {
    candle_core::Error::Msg("packed codes without a group of rows".to_owned()).into()
}
