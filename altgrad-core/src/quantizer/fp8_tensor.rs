//! A tensor as one-byte codes and scales.

use candle_core::{DType, Shape, Tensor};

use super::scaling::check_scale;
use super::{Quantizer, dispatch_float, with_values};
use crate::format::Fp8;
use crate::kernels::{self, Element};
use crate::{Error, Result};

/// A tensor packed into one byte an element: `value = decode(code) × scale`.
///
/// ```
/// use altgrad_core::{Fp8, Fp8Tensor, Quantizer, fake_quantize};
/// use candle_core::{Device, Tensor};
///
/// let x = Tensor::new(&[[448f32, 17.0], [-0.3, 0.0]], &Device::Cpu)?;
/// let quantizer = Quantizer::from(Fp8::E4M3);
/// let packed = Fp8Tensor::quantize(&x, &quantizer)?;
/// assert_eq!(packed.codes().to_vec2::<u8>()?, [[0x7E, 0x58], [0xAA, 0x00]]);
/// assert_eq!(packed.dequantize()?.to_vec2::<f32>()?, fake_quantize(&x, &quantizer)?.to_vec2::<f32>()?);
/// # Ok::<(), altgrad_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fp8Tensor {
    codes: Tensor,
    scales: Tensor,
    format: Fp8,
    dtype: DType,
}

impl Fp8Tensor {
    /// Packs `x` under the scale of its own largest magnitude.
    ///
    /// # Errors
    ///
    /// [`Error::NanNotRepresentable`] if `x` holds NaN and the format has none; a dtype other than f32, f64, f16 and
    /// bf16; a device other than the CPU.
    pub fn quantize(x: &Tensor, quantizer: &Quantizer) -> Result<Self> {
        Self::quantize_with_scale(x, quantizer.format, quantizer.first_scale(x, "the tensor")?)
    }

    /// Packs `x` under a scale of your choice; values beyond the format's range saturate.
    ///
    /// # Errors
    ///
    /// As [`quantize`](Self::quantize), and for a scale that is not a positive finite number.
    pub fn quantize_with_scale(x: &Tensor, format: Fp8, scale: f32) -> Result<Self> {
        check_scale(scale)?;
        let codes = dispatch_float!(x.dtype(), "the tensor", T => with_values(x, "quantization", |values: &[T]| {
            let mut codes = vec![0u8; values.len()];
            kernels::encode(values, &mut codes, format, scale).then_some(codes)
        }))?
        .ok_or(Error::NanNotRepresentable { format })?;
        let codes = Tensor::from_vec(codes, x.shape(), x.device())?;
        let scales = Tensor::new(scale, x.device())?;
        Self::from_parts(codes, scales, format, x.dtype())
    }

    /// A packed tensor from its parts: `U8` codes of any shape, a scalar `F32` scale, and the dtype that
    /// [`dequantize`](Self::dequantize) gives.
    ///
    /// # Errors
    ///
    /// Parts of another dtype or shape, or a scale that is not a positive finite number.
    pub fn from_parts(codes: Tensor, scales: Tensor, format: Fp8, dtype: DType) -> Result<Self> {
        for (what, tensor, expected) in [("the tensor of codes", &codes, DType::U8), ("the scale", &scales, DType::F32)]
        {
            if tensor.dtype() != expected {
                return Err(Error::DTypeMismatch { what, expected, actual: tensor.dtype() });
            }
        }
        if scales.rank() != 0 {
            let expected = "a scalar, one scale for the whole tensor".to_owned();
            return Err(Error::ShapeMismatch { what: "the scale", expected, actual: scales.dims().to_vec() });
        }
        if !super::is_supported(dtype) {
            return Err(Error::UnsupportedDType { what: "the dequantized tensor", dtype });
        }
        check_scale(scales.to_scalar::<f32>()?)?;
        Ok(Self { codes, scales, format, dtype })
    }

    /// The values, in [`dtype`](Self::dtype).
    ///
    /// # Errors
    ///
    /// Codes on a device other than the CPU.
    pub fn dequantize(&self) -> Result<Tensor> {
        dispatch_float!(self.dtype, "the dequantized tensor", T => {
            Ok(Tensor::from_vec(self.decode::<T>()?, self.shape(), self.codes.device())?)
        })
    }

    /// One code an element, `U8`.
    #[must_use]
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// The scale, a scalar `F32`.
    #[must_use]
    pub fn scales(&self) -> &Tensor {
        &self.scales
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

    pub(crate) fn scale(&self) -> Result<f32> {
        Ok(self.scales.to_scalar()?)
    }

    pub(crate) fn decode<T: Element>(&self) -> Result<Vec<T>> {
        let scale = self.scale()?;
        with_values(&self.codes, "dequantization", |codes: &[u8]| {
            let mut values = vec![T::default(); codes.len()];
            kernels::decode(codes, &mut values, self.format, scale);
            values
        })
    }
}
