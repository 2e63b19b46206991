//! A quantized tensor as a checkpoint holds it: codes under one name, scales under another.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;

use super::shards::Shards;
use crate::Result;
use crate::format::Fp8;
use crate::quantizer::{Fp8Tensor, Granularity, Quantizer, Scaling};

/// A quantized tensor of a checkpoint: what its header and its configuration say, with nothing read yet.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The name of the tensor of codes.
    pub(super) codes: String,
    /// Its dimensions.
    pub(super) shape: Vec<usize>,
    pub(super) format: Fp8,
    pub(super) granularity: Granularity,
    /// The name of the tensor of scales, if there is one; without it values are the codes'.
    pub(super) scales: Option<String>,
    /// Whether the scales lie in the order that GPUs want.
    is_swizzled: bool,
    /// How the input of the layer is quantized, if the tensor is the weight of one and it is.
    pub(super) activations: Option<Activations>,
}

/// How the input of a layer is quantized.
#[derive(Clone, Debug)]
pub(super) enum Activations {
    /// Under scales of its own.
    Dynamic(Quantizer),
    /// To this format, under the scale in the tensor of this name.
    Static(Fp8, String),
}

/// The format of the codes in a safetensors file.
pub(super) fn format_of(dtype: Dtype) -> Option<Fp8> {
    match dtype {
        Dtype::F8_E4M3 => Some(Fp8::E4M3),
        Dtype::F8_E5M2 => Some(Fp8::E5M2),
        Dtype::F8_E4M3FNUZ => Some(Fp8::E4M3_FNUZ),
        Dtype::F8_E5M2FNUZ => Some(Fp8::E5M2_FNUZ),
        _ => None,
    }
}

/// Which codes share a scale if codes and scales have these dimensions; the size of blocks must be known from elsewhere.
pub(super) fn granularity_of(codes: &[usize], scales: &[usize], block: Option<[usize; 2]>) -> Option<Granularity> {
    let (&cols, outer) = codes.split_last()?;
    if let Some(granularity) = block.and_then(|block| blocks_of(outer, cols, scales, block)) {
        return Some(granularity);
    }
    if scales.iter().all(|size| *size == 1) {
        return Some(Granularity::PerTensor);
    }
    let of_rows = scales.strip_suffix(&[1]).filter(|dims| dims.len() == outer.len()).unwrap_or(scales);
    match *outer {
        _ if of_rows == outer => Some(Granularity::PerRow),
        // One scale for each of several matrices, such as those of experts.
        [matrices, rows] if matches!(*scales, [n] | [n, 1, 1] if n == matrices) => {
            Some(Granularity::PerBlock { rows, cols })
        }
        _ => None,
    }
}

/// [`granularity_of`] if scales are those of blocks of this size.
fn blocks_of(
    outer: &[usize],
    cols: usize,
    scales: &[usize],
    [block_rows, block_cols]: [usize; 2],
) -> Option<Granularity> {
    let (&rows, matrices) = outer.split_last()?;
    // Matrices that lie above one another share no block.
    if block_rows == 0 || block_cols == 0 || !(matrices.is_empty() || rows.is_multiple_of(block_rows)) {
        return None;
    }
    let (rows, cols) = (rows.div_ceil(block_rows), cols.div_ceil(block_cols));
    let plain = [matrices, &[rows, cols]].concat();
    let spaced = [matrices, &[rows, 1, cols, 1]].concat();
    // Some writers drop the dimensions of a single scale.
    let is_one = plain.iter().chain(scales).all(|size| *size == 1);
    let fits = scales == plain || scales == spaced || is_one;
    fits.then_some(Granularity::PerBlock { rows: block_rows, cols: block_cols })
}

impl Stored {
    /// The tensor whose codes and scales have these names, if they fit together.
    pub(super) fn new(shards: &Shards, codes: &str, scales: Option<&str>, block: Option<[usize; 2]>) -> Result<Self> {
        let Some(info) = shards.info(codes) else { return Err(shards.invalid(codes, "is missing")) };
        let Some(format) = format_of(info.dtype) else {
            return Err(shards.invalid(codes, format!("is of dtype {} and not of an FP8 dtype", info.dtype)));
        };
        let granularity = match scales {
            None => Granularity::PerTensor,
            Some(name) => {
                let Some(scales) = shards.info(name) else {
                    return Err(shards.invalid(codes, format!("has no scale: there is no tensor `{name}`")));
                };
                granularity_of(&info.shape, &scales.shape, block).ok_or_else(|| {
                    let blocks = block.map_or(String::new(), |[rows, cols]| format!(", or one for each block of {rows}×{cols}"));
                    let why = format!(
                        "has shape {:?}, which does not go with codes of shape {:?}: expected one scale, one a row{blocks}",
                        scales.shape, info.shape
                    );
                    shards.invalid(name, why)
                })?
            }
        };
        if let Some(name) = scales {
            check_scale_dtype(shards, name)?;
        }
        Ok(Self {
            codes: codes.to_owned(),
            shape: info.shape.clone(),
            format,
            granularity,
            scales: scales.map(str::to_owned),
            is_swizzled: false,
            activations: None,
        })
    }

    /// The matrix whose codes and scales have these names, with a scale for each block in the order of [`unswizzle`].
    pub(super) fn swizzled(shards: &Shards, codes: &str, scales: &str, [rows, cols]: [usize; 2]) -> Result<Self> {
        let whole = Self::new(shards, codes, None, None)?;
        check_scale_dtype(shards, scales)?;
        let granularity = Granularity::PerBlock { rows, cols };
        let (false, &[_, _], Some(info)) = (rows == 0 || cols == 0, &whole.shape[..], shards.info(scales)) else {
            let why =
                format!("has {:?} in blocks of {rows}×{cols}, but swizzled scales are those of a matrix", whole.shape);
            return Err(shards.invalid(codes, why));
        };
        let (above, beside) = granularity.blocks(&whole.shape).grid();
        let (tiles, actual) =
            (above.div_ceil(TILE[0]) * beside.div_ceil(TILE[1]), info.shape.iter().product::<usize>());
        if actual != tiles * TILE[0] * TILE[1] {
            let why = format!(
                "has shape {:?}, but {above} × {beside} scales fill {tiles} tiles of {} × {}",
                info.shape, TILE[0], TILE[1]
            );
            return Err(shards.invalid(scales, why));
        }
        Ok(Self { granularity, scales: Some(scales.to_owned()), is_swizzled: true, ..whole })
    }

    /// The tensor of this format and granularity whose codes and scales have these names, if they fit together. Codes of a
    /// format that has no dtype of its own are `U8`.
    pub(super) fn described(
        shards: &Shards,
        codes: &str,
        scales: &str,
        format: Fp8,
        granularity: Granularity,
    ) -> Result<Self> {
        let Some(info) = shards.info(codes) else { return Err(shards.invalid(codes, "is missing")) };
        if info.dtype != Dtype::U8 && format_of(info.dtype) != Some(format) {
            return Err(shards.invalid(codes, format!("is of dtype {}, but said to be in {format}", info.dtype)));
        }
        check_scale_dtype(shards, scales)?;
        let expected = granularity.scale_dims(&info.shape);
        let actual = shards.info(scales).map_or(&[][..], |info| &info.shape);
        if actual != expected {
            let why = format!("has shape {actual:?}, but codes of shape {:?} go with {expected:?}", info.shape);
            return Err(shards.invalid(scales, why));
        }
        let (codes, scales) = (codes.to_owned(), Some(scales.to_owned()));
        Ok(Self {
            codes,
            shape: info.shape.clone(),
            format,
            granularity,
            scales,
            is_swizzled: false,
            activations: None,
        })
    }

    /// The names of the tensors that it is made of, and of the scale of its layer's input.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        let input = match &self.activations {
            Some(Activations::Static(_, scale)) => Some(scale),
            _ => None,
        };
        [Some(&self.codes), self.scales.as_ref(), input].into_iter().flatten().map(String::as_str)
    }

    /// The codes, `U8`, in the shape of the tensor.
    pub(super) fn codes(&self, shards: &Shards, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(shards.read(&self.codes)?, self.shape.as_slice(), &Device::Cpu)?.to_device(device)?)
    }

    /// The scales in the order of their blocks.
    pub(super) fn scale_values(&self, shards: &Shards) -> Result<Vec<f32>> {
        match &self.scales {
            Some(name) if self.is_swizzled => {
                let scales = read_scales(shards, name)?;
                Ok(unswizzle(&scales, self.granularity.blocks(&self.shape).grid()))
            }
            Some(name) => read_scales(shards, name),
            None => Ok(vec![1.0]),
        }
    }

    /// The scales, `F32`, in the shape that [`Fp8Tensor::from_parts`] wants.
    pub(super) fn scales(&self, shards: &Shards, device: &Device) -> Result<Tensor> {
        let values = self.scale_values(shards)?;
        Ok(Tensor::from_vec(values, self.granularity.scale_dims(&self.shape), device)?)
    }

    /// The tensor as codes and scales, which dequantizes to `dtype`.
    pub(super) fn load(&self, shards: &Shards, dtype: DType, device: &Device) -> Result<Fp8Tensor> {
        let (codes, scales) = (self.codes(shards, device)?, self.scales(shards, device)?);
        Fp8Tensor::from_parts(codes, scales, self.granularity, self.format, dtype)
            .map_err(|error| shards.invalid(&self.codes, error.to_string()))
    }

    /// The quantizer of the layer's input.
    pub(super) fn activations(&self, shards: &Shards) -> Result<Option<Quantizer>> {
        match &self.activations {
            None => Ok(None),
            Some(Activations::Dynamic(quantizer)) => Ok(Some(quantizer.clone())),
            Some(Activations::Static(format, name)) => match read_scales(shards, name)?[..] {
                [scale] => Ok(Some(Quantizer::new(*format).scaling(Scaling::Static(scale)))),
                ref scales => {
                    Err(shards.invalid(name, format!("holds {} scales of an input, expected one", scales.len())))
                }
            },
        }
    }
}

fn check_scale_dtype(shards: &Shards, name: &str) -> Result<()> {
    match shards.info(name).map(|info| info.dtype) {
        Some(Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F8_E8M0 | Dtype::U8) => Ok(()),
        Some(dtype) => {
            Err(shards.invalid(name, format!("is of dtype {dtype}, but scales are F32, BF16, F16, F8_E8M0 or U8")))
        }
        None => Err(shards.invalid(name, "is missing")),
    }
}

/// Rows and columns of the tiles that swizzled scales are cut into.
const TILE: [usize; 2] = [128, 4];

/// A matrix of scales from the order in which tensor cores read them (cuBLAS, "1D block scaling factors layout"): tiles of
/// 128 × 4, filled up where the matrix ends; in a tile the four rows that are 32 apart lie side by side.
fn unswizzle(scales: &[f32], (rows, cols): (usize, usize)) -> Vec<f32> {
    const APART: usize = 32;
    let [tile_rows, tile_cols] = TILE;
    let beside = cols.div_ceil(tile_cols);
    let place = |row: usize, col: usize| {
        let tile = row / tile_rows * beside + col / tile_cols;
        let (row, col) = (row % tile_rows, col % tile_cols);
        ((tile * APART + row % APART) * (tile_rows / APART) + row / APART) * tile_cols + col
    };
    (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))).map(|(row, col)| scales[place(row, col)]).collect()
}

/// Scales as numbers; bytes are exponents (E8M0: 2 to the power of the byte less 127).
pub(super) fn read_scales(shards: &Shards, name: &str) -> Result<Vec<f32>> {
    check_scale_dtype(shards, name)?;
    let bytes = shards.read(name)?;
    let dtype = shards.info(name).map(|info| info.dtype);
    let scales: Vec<f32> = match dtype {
        Some(Dtype::F32) => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Some(Dtype::BF16) => bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        Some(Dtype::F16) => bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        _ => bytes.iter().map(|exponent| exponent_scale(*exponent)).collect(),
    };
    match scales.iter().position(|scale| !(scale.is_finite() && *scale > 0.0)) {
        Some(index) => {
            let why = format!("has scale {} at index {index}, but a scale is a positive finite number", scales[index]);
            Err(shards.invalid(name, why))
        }
        None => Ok(scales),
    }
}

/// 2 to the power of a byte less 127, NaN for 255, by OCP Microscaling Formats 1.0, 5.4.1.
fn exponent_scale(exponent: u8) -> f32 {
    match exponent {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(exponent) << 23),
    }
}
