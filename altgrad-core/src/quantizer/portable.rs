//! Quantization with candle's tensor operations alone, for devices that have no kernel: bit-identical to the kernels.
//!
//! Scales and random draws, which are few or cheap, are computed on the CPU by the code that the kernels use.

use altgrad_kernels::{Blocks, Conversion};
use candle_core::{D, DType, Device, Tensor};

use crate::{Fp8, Infinity, Result};

/// The largest magnitude of each block; NaN if the block holds NaN, 0 if it is empty.
pub(super) fn block_amax(x: &Tensor, blocks: Blocks) -> Result<Vec<f64>> {
    if x.elem_count() == 0 {
        return Ok(vec![0.0; blocks.count()]);
    }
    let x = matrix(x, blocks)?;
    // A maximum may ignore NaN, so NaN is looked for separately.
    let nan = largest(&x.ne(&x)?.to_dtype(DType::F32)?, blocks)?;
    let magnitudes = largest(&x.abs()?, blocks)?;
    let merge = |(magnitude, nan): (f64, f64)| if nan > 0.0 { f64::NAN } else { magnitude };
    Ok(magnitudes.into_iter().zip(nan).map(merge).collect())
}

/// Fake-quantized values in the dtype and shape of `x`.
pub(super) fn fake_quantize(x: &Tensor, conversion: &Conversion) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.detach());
    }
    let rounded = Rounded::new(x, conversion)?;
    let values = rounded.negative.where_cond(&rounded.magnitude.neg()?, &rounded.magnitude)?;
    let values = rounded.is_nan.where_cond(&rounded.source, &values)?;
    let scales = conversion.scales().iter().map(|scale| scale.value()).collect();
    let scales = expand(scales, conversion.blocks(), x.device(), values.dtype())?;
    Ok(values.broadcast_mul(&scales)?.to_dtype(x.dtype())?.reshape(x.shape())?)
}

/// The codes in the shape of `x`; `None` if `x` holds NaN and the format has none.
pub(super) fn encode(x: &Tensor, conversion: &Conversion) -> Result<Option<Tensor>> {
    if x.elem_count() == 0 {
        return Ok(Some(Tensor::zeros(x.shape(), DType::U8, x.device())?));
    }
    let format = conversion.format();
    let rounded = Rounded::new(x, conversion)?;
    if !format.has_nan() && is_any(&rounded.is_nan)? {
        return Ok(None);
    }
    // Codes count the steps between neighbouring values: 2^m of them in the subnormals and in each binade.
    let per_binade = 2f64.powi(i32::from(format.mantissa_bits()));
    let code = ((&rounded.binade * per_binade)? + rounded.magnitude.div(&rounded.step)?)?;
    // A code of fewer than 8 bits is the upper bits of a byte.
    let code = (code * 2f64.powi(i32::from(format.padding())))?;
    let nan = format.nan_code().unwrap_or_default();
    let beyond = filled(&code, format.infinity_code().unwrap_or(nan).into())?;
    let code = rounded.magnitude.le(f64::from(format.largest_finite()))?.where_cond(&code, &beyond)?;
    // The only code above 127 here is the NaN of FNUZ formats, whose sign bit is set already.
    let with_sign = code.gt(127.0)?.where_cond(&code, &(&code + 128.0)?)?;
    let code = rounded.negative.where_cond(&with_sign, &code)?;
    let code = rounded.is_nan.where_cond(&filled(&code, nan.into())?, &code)?;
    Ok(Some(code.to_dtype(DType::U8)?.reshape(x.shape())?))
}

/// The values of codes.
pub(super) fn decode(codes: &Tensor, format: Fp8, blocks: Blocks, scales: &[f32], dtype: DType) -> Result<Tensor> {
    if codes.elem_count() == 0 {
        return Ok(Tensor::zeros(codes.shape(), dtype, codes.device())?);
    }
    let wide = wide(dtype);
    let values: Vec<f32> = (0..=u8::MAX).map(|code| format.decode(code)).collect();
    let values = Tensor::from_vec(values, 256, codes.device())?.to_dtype(wide)?;
    let values = values.index_select(&codes.flatten_all()?.to_dtype(DType::U32)?, 0)?.reshape(blocks.shape())?;
    let scales = expand(scales.to_vec(), blocks, codes.device(), wide)?;
    Ok(values.broadcast_mul(&scales)?.to_dtype(dtype)?.reshape(codes.shape())?)
}

/// Where `x / scale` is clipped: nearer to the number that would follow the format's largest finite value than to
/// that value.
pub(super) fn is_clipped(x: &Tensor, conversion: &Conversion) -> Result<Tensor> {
    let magnitude = quotient(x, conversion)?.abs()?;
    let midpoint = f64::from(conversion.format().overflow_midpoint());
    let clipped = if conversion.format().overflow_midpoint_overflows() {
        magnitude.ge(midpoint)?
    } else {
        magnitude.gt(midpoint)?
    };
    Ok(clipped.reshape(x.shape())?)
}

/// The dtype that quotients and products are computed in.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// `x` as the matrix that the blocks divide, in the dtype of quotients.
fn matrix(x: &Tensor, blocks: Blocks) -> Result<Tensor> {
    Ok(x.detach().to_dtype(wide(x.dtype()))?.reshape(blocks.shape())?)
}

fn largest(x: &Tensor, blocks: Blocks) -> Result<Vec<f64>> {
    let ((rows, cols), (across, along)) = (blocks.shape(), blocks.grid());
    let (block_rows, block_cols) = blocks.block();
    let padded = x
        .pad_with_zeros(0, 0, across * block_rows - rows)?
        .pad_with_zeros(1, 0, along * block_cols - cols)?
        .reshape((across, block_rows, along, block_cols))?;
    let largest = padded.max(D::Minus1)?.max(1)?.flatten_all()?.to_device(&Device::Cpu)?;
    Ok(largest.to_dtype(DType::F64)?.to_vec1()?)
}

/// One number per block, as a matrix that can be broadcast to the matrix of elements.
fn expand(numbers: Vec<f32>, blocks: Blocks, device: &Device, dtype: DType) -> Result<Tensor> {
    let ((rows, cols), (across, along), (block_rows, block_cols)) = (blocks.shape(), blocks.grid(), blocks.block());
    if numbers.len() == 1 {
        return Ok(Tensor::from_vec(numbers, (1, 1), device)?.to_dtype(dtype)?);
    }
    Ok(Tensor::from_vec(numbers, (across, 1, along, 1), device)?
        .to_dtype(dtype)?
        .broadcast_as((across, block_rows, along, block_cols))?
        .reshape((across * block_rows, along * block_cols))?
        .narrow(0, 0, rows)?
        .narrow(1, 0, cols)?)
}

/// `x / scale`, or its product with the scale's multiplier.
fn quotient(x: &Tensor, conversion: &Conversion) -> Result<Tensor> {
    let (blocks, scales) = (conversion.blocks(), conversion.scales());
    let x = matrix(x, blocks)?;
    let multipliers: Option<Vec<f32>> = scales.iter().map(|scale| scale.multiplier()).collect();
    let expanded = |numbers| expand(numbers, blocks, x.device(), x.dtype());
    match multipliers {
        Some(multipliers) if !multipliers.is_empty() => Ok(x.broadcast_mul(&expanded(multipliers)?)?),
        _ => Ok(x.broadcast_div(&expanded(scales.iter().map(|scale| scale.value()).collect())?)?),
    }
}

/// Quotients rounded to values of a format, with the parts of their codes. All are matrices.
struct Rounded {
    /// What was rounded.
    source: Tensor,
    /// Where the source is NaN; the other fields are meaningless there.
    is_nan: Tensor,
    /// Where the sign bit of the result is set.
    negative: Tensor,
    magnitude: Tensor,
    /// The binade of the quotient, counted from 0 for that of the smallest normal value and everything below.
    binade: Tensor,
    /// Distance between the format's values in that binade.
    step: Tensor,
}

impl Rounded {
    fn new(x: &Tensor, conversion: &Conversion) -> Result<Self> {
        let (format, blocks) = (conversion.format(), conversion.blocks());
        let mut source = quotient(x, conversion)?;
        let propagates = conversion.on_infinity() == Infinity::Propagate;
        let infinities = propagates.then(|| matrix(x, blocks)?.abs()?.eq(f64::INFINITY)).transpose()?;
        if let Some(infinities) = infinities.as_ref().filter(|_| !format.has_infinity()) {
            source = infinities.where_cond(&filled(&source, f64::NAN)?, &source)?;
        }
        let is_nan = source.ne(&source)?;
        let zeros = source.zeros_like()?;
        let quotient = is_nan.where_cond(&zeros, &source)?;

        let mantissa_bits = i32::from(format.mantissa_bits());
        let largest = f64::from(format.largest_finite());
        let lowest_exponent = format.min_exponent();
        let highest_exponent = (largest.log2().floor() as i32).max(lowest_exponent);
        let beyond = f64::from(format.overflow_value(conversion.on_overflow()));
        let ceiling = if beyond == largest { largest } else { largest + 2f64.powi(highest_exponent - mantissa_bits) };

        let magnitude = quotient.abs()?.minimum(ceiling)?;
        let (binade, power) = binades(&magnitude, lowest_exponent, highest_exponent)?;
        let step = (&power * 2f64.powi(-mantissa_bits))?;
        let fraction_bits = if source.dtype() == DType::F64 { 52 } else { 23 };
        let magic = (&power * 2f64.powi(fraction_bits - mantissa_bits))?;
        let nearest = ((&magnitude + &magic)? - &magic)?;
        let rounded = match conversion.random_draws() {
            Some(draws) => {
                let mut numbers = vec![0; x.elem_count()];
                draws.fill(0, &mut numbers);
                let uniform = uniform(&numbers, &source)?;
                let below = nearest.gt(&magnitude)?.where_cond(&(&nearest - &step)?, &nearest)?;
                let fraction = (&magnitude - &below)?.div(&step)?;
                fraction.gt(&uniform)?.where_cond(&(&below + &step)?, &below)?
            }
            None if mantissa_bits == 0 => {
                // The code of the power of two is one more than the number of its binade.
                let is_tie = magnitude.eq(&(&power * 1.5)?)?;
                let parity = ((&binade * 0.5)?.floor()? * 2.0)?;
                let lower_is_even = binade.ne(&parity)?;
                is_tie.where_cond(&lower_is_even.where_cond(&power, &nearest)?, &nearest)?
            }
            None => nearest,
        };
        let magnitude = rounded.gt(largest)?.where_cond(&filled(&rounded, beyond)?, &rounded)?;
        let magnitude = match infinities {
            Some(infinities) => infinities.where_cond(&filled(&magnitude, f64::INFINITY)?, &magnitude)?,
            None => magnitude,
        };
        // Negative zero is below zero only in its reciprocal, and negative infinity only in itself.
        let below_zero = |x: &Tensor| x.lt(0.0)?.to_dtype(DType::F32);
        let negative = (below_zero(&quotient)? + below_zero(&quotient.recip()?)?)?.gt(0.0)?;
        let negative = if format.has_negative_zero() {
            negative
        } else {
            magnitude.eq(0.0)?.where_cond(&negative.zeros_like()?, &negative)?
        };
        Ok(Self { source, is_nan, negative, magnitude, binade, step })
    }
}

/// For each magnitude, its binade and that binade's power of two. Binades are counted from that of `2^lowest`, which
/// includes everything below.
fn binades(magnitude: &Tensor, lowest: i32, highest: i32) -> Result<(Tensor, Tensor)> {
    let count = f64::from(highest - lowest);
    let powers: Vec<f64> = (lowest..=highest).map(|exponent| 2f64.powi(exponent)).collect();
    let powers = Tensor::new(powers, &Device::Cpu)?.to_dtype(magnitude.dtype())?.to_device(magnitude.device())?;
    let power = |binade: &Tensor| -> Result<Tensor> {
        let index = binade.flatten_all()?.to_dtype(DType::U32)?;
        Ok(powers.index_select(&index, 0)?.reshape(binade.shape())?)
    };
    // The logarithm may be off by one, which comparisons with the powers themselves correct.
    let logarithm = (magnitude.log()? * std::f64::consts::LOG2_E)?.floor()?;
    let guess = (logarithm - f64::from(lowest))?.clamp(0.0, count)?;
    let guessed = power(&guess)?;
    let as_number = |condition: Tensor| condition.to_dtype(magnitude.dtype());
    let too_high = as_number(magnitude.lt(&guessed)?)?;
    let too_low = as_number(magnitude.ge(&(guessed * 2.0)?)?)?;
    let binade = ((guess - too_high)? + too_low)?.clamp(0.0, count)?;
    let power = power(&binade)?;
    Ok((binade, power))
}

/// Draws as numbers in [0, 1), computed as the kernels do.
fn uniform(draws: &[u32], like: &Tensor) -> Result<Tensor> {
    let numbers = if like.dtype() == DType::F64 {
        let numbers: Vec<f64> = draws.iter().map(|draw| f64::from(*draw) / 2f64.powi(32)).collect();
        Tensor::from_vec(numbers, like.shape(), like.device())?
    } else {
        let numbers: Vec<f32> = draws.iter().map(|draw| (draw >> 8) as f32 / 2f32.powi(24)).collect();
        Tensor::from_vec(numbers, like.shape(), like.device())?
    };
    Ok(numbers)
}

fn filled(like: &Tensor, value: f64) -> Result<Tensor> {
    Ok(Tensor::new(value as f32, like.device())?.to_dtype(like.dtype())?.broadcast_as(like.shape())?.contiguous()?)
}

fn is_any(condition: &Tensor) -> Result<bool> {
    Ok(condition.to_dtype(DType::F32)?.max_all()?.to_scalar::<f32>()? > 0.0)
}

#[cfg(test)]
mod tests;
