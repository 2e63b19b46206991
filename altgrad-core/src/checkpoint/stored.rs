//! A quantized tensor as a checkpoint stores it: codes under one name, scales under another.

use std::ops::Range;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;

use super::file::invalid;
use super::shards::Shards;
use crate::quantizer::{Fp8Tensor, Granularity, Quantizer, Scaling};
use crate::{CheckpointError, Error, Fp8, Result};

/// A quantized tensor of a checkpoint: what header and configuration say about it, before its data is read.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The name of the tensor of codes.
    pub(super) codes: String,
    /// Its dimensions.
    pub(super) shape: Vec<usize>,
    pub(super) format: Fp8,
    pub(super) granularity: Granularity,
    /// The name of the tensor of scales, if there is one; without it, the values are those of the codes.
    pub(super) scales: Option<String>,
    /// Whether the scales are in the order in which tensor cores read them.
    is_swizzled: bool,
    /// How the layer's input is quantized, if the tensor is the weight of a layer that quantizes its input.
    pub(super) activations: Option<StoredActivations>,
}

/// How the input of a layer is quantized.
#[derive(Clone, Debug)]
pub(super) enum StoredActivations {
    /// With scales computed from the input.
    Dynamic(Quantizer),
    /// To this format, with the scale in the tensor of this name.
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

/// Why a tensor of a checkpoint cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    file: PathBuf,
    why: String,
}

impl Fault {
    /// An error about the content of a file, as a fault of one tensor; other errors, such as those of reading, stay
    /// errors.
    pub(super) fn of(error: Error) -> Result<Self> {
        match error {
            Error::Checkpoint(CheckpointError::Invalid { file, tensor, why }) => {
                // The error names a part of the tensor, or only the configuration.
                let part = tensor.map_or_else(String::new, |part| format!("`{part}` "));
                Ok(Self { file, why: part + &why })
            }
            error => Err(error),
        }
    }

    /// The error that asking for the tensor returns.
    pub(super) fn error(&self, name: &str) -> Error {
        invalid(&self.file, Some(name), format!("cannot be read: {}", self.why))
    }

    /// What is wrong.
    pub(super) fn why(&self) -> &str {
        &self.why
    }
}

/// Which codes share a scale if codes and scales have these dimensions. The size of blocks is the one that the
/// checkpoint declares; if it declares none, it is inferred only if the shapes allow a single size.
///
/// Tensors of more than two dimensions are stacks of matrices. Each matrix is cut into blocks by itself, and the last
/// blocks may be smaller.
fn granularity_of(codes: &[usize], scales: &[usize], block: Option<[usize; 2]>) -> Result<Granularity, String> {
    let expected = |blocks: &str| {
        format!(
            "has shape {scales:?}, which does not fit codes of shape {codes:?}: expected one scale, one a \
             row{blocks}"
        )
    };
    let Some((&cols, outer)) = codes.split_last() else { return Err(expected("")) };
    if let Some(granularity) = block.and_then(|block| blocks_of(outer, cols, scales, block)) {
        return Ok(granularity);
    }
    if scales.iter().all(|size| *size == 1) {
        return Ok(Granularity::PerTensor);
    }
    let of_rows = scales.strip_suffix(&[1]).filter(|dims| dims.len() == outer.len()).unwrap_or(scales);
    if of_rows == outer {
        return Ok(Granularity::PerRow);
    }
    if let [matrices @ .., rows] = outer
        && !matrices.is_empty()
    {
        // One scale per matrix, such as those of experts, or one per column of each (Llama 4).
        let ones = [matrices, &[1, 1]].concat();
        if scales == matrices || scales == ones {
            return Ok(Granularity::PerBlock { rows: (*rows).max(1), cols: cols.max(1) });
        }
        if scales == [matrices, &[1, cols]].concat() {
            return Ok(Granularity::PerBlock { rows: (*rows).max(1), cols: 1 });
        }
    }
    match block {
        Some([rows, cols]) => Err(expected(&format!(", or one for each block of {rows}×{cols}"))),
        None => only_blocks(outer, cols, scales).map_err(|why| expected("") + &why),
    }
}

/// Whether scales of this shape fit codes of this shape in blocks of this size.
pub(super) fn has_blocks_of(codes: &[usize], scales: &[usize], block: [usize; 2]) -> bool {
    codes.split_last().is_some_and(|(cols, outer)| blocks_of(outer, *cols, scales, block).is_some())
}

/// Whether a tensor of this shape could be the scales of codes, with any size of blocks.
pub(super) fn may_be_scale(codes: &[usize], scales: &[usize]) -> bool {
    let is_grid = || {
        let [.., rows, cols] = codes else { return false };
        let cuts = |side: usize, parts: usize| parts > 0 && side.div_ceil(side.div_ceil(parts).max(1)) == parts;
        let [.., above, beside] = scales else { return false };
        cuts(*rows, *above) && cuts(*cols, *beside) && above * beside < rows * cols
    };
    granularity_of(codes, scales, None).is_ok() || is_grid()
}

/// [`granularity_of`] if the scales fit blocks of this size.
fn blocks_of(
    outer: &[usize],
    cols: usize,
    scales: &[usize],
    [block_rows, block_cols]: [usize; 2],
) -> Option<Granularity> {
    let (&rows, matrices) = outer.split_last()?;
    if block_rows == 0 || block_cols == 0 {
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

/// The blocks that a grid of scales belongs to, if only one size is possible; otherwise the possible sizes, as part of
/// an error message.
fn only_blocks(outer: &[usize], cols: usize, scales: &[usize]) -> Result<Granularity, String> {
    let grid = match (outer.split_last(), scales) {
        (Some((rows, matrices)), [same @ .., above, beside]) if same == matrices => Some((*rows, *above, *beside)),
        _ => None,
    };
    let Some((rows, above, beside)) = grid else { return Err(String::new()) };
    // All sizes with `⌈side / size⌉ = parts`. With one part, every size from `side` up is possible, and all are
    // equivalent.
    let sizes = |side: usize, parts: usize| match parts {
        0 => None,
        1 => Some((side, side)),
        _ => {
            let (least, most) = (side.div_ceil(parts), side.saturating_sub(1) / (parts - 1));
            (least > 0 && least <= most).then_some((least, most))
        }
    };
    let (Some(of_rows), Some(of_cols)) = (sizes(rows, above), sizes(cols, beside)) else { return Err(String::new()) };
    match (of_rows, of_cols) {
        ((rows, most_rows), (cols, most_cols)) if rows == most_rows && cols == most_cols => {
            Ok(Granularity::PerBlock { rows: rows.max(1), cols: cols.max(1) })
        }
        ((rows, most_rows), (cols, most_cols)) => {
            let range = |least: usize, most: usize| {
                if least == most { least.to_string() } else { format!("{least} to {most}") }
            };
            Err(format!(
                "; blocks of {} rows and {} columns would fit, but nothing says which",
                range(rows, most_rows),
                range(cols, most_cols)
            ))
        }
    }
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
                granularity_of(&info.shape, &scales.shape, block).map_err(|why| shards.invalid(name, why))?
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

    /// The tensor of this format and granularity whose codes and scales have these names, if they fit together. Codes
    /// of a format that has no dtype of its own are `U8`.
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
        granularity.validate().map_err(|error| shards.invalid(codes, error.to_string()))?;
        // Blocks are those of all rows, so that it must not matter whether they are those of each matrix.
        let is_cut_through = match (granularity, &info.shape[..]) {
            (Granularity::PerBlock { rows, .. }, [_, _, .., of_matrix, _] | [_, of_matrix, _]) => of_matrix % rows != 0,
            _ => false,
        };
        if is_cut_through {
            let why = format!("has shape {:?}, but {granularity} would run across its matrices", info.shape);
            return Err(shards.invalid(codes, why));
        }
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
            Some(StoredActivations::Static(_, scale)) => Some(scale),
            _ => None,
        };
        [Some(&self.codes), self.scales.as_ref(), input].into_iter().flatten().map(String::as_str)
    }

    /// The scales, one for each block of [`flat_granularity`](Self::flat_granularity), in their order. The scale of a
    /// block that holds only zeros may be zero, and counts as 1.
    pub(super) fn scale_values(&self, shards: &Shards) -> Result<Vec<f32>> {
        let Some(name) = &self.scales else { return Ok(vec![1.0]) };
        let mut scales = read_numbers(shards, name)?;
        if self.is_swizzled {
            scales = unswizzle(&scales, self.granularity.blocks(&self.shape).grid());
        }
        let mut scales = self.spread(scales);
        let count = self.flat_granularity().blocks(&self.shape).count();
        if scales.len() != count {
            let why = format!("has {} scales, but codes of shape {:?} have {count} blocks", scales.len(), self.shape);
            return Err(shards.invalid(name, why));
        }
        let is_wrong = |scale: &f32| !(scale.is_finite() && *scale > 0.0);
        if scales.iter().any(is_wrong) {
            let blocks = self.flat_granularity().blocks(&self.shape);
            let mut is_zero = vec![true; scales.len()];
            if scales.contains(&0.0) {
                let codes = shards.read(&self.codes)?;
                for (run, block) in blocks.runs_in(0..codes.len()) {
                    is_zero[block] &= codes[run].iter().all(|code| self.format.decode(*code) == 0.0);
                }
            }
            for (index, scale) in scales.iter_mut().enumerate() {
                if *scale == 0.0 && is_zero[index] {
                    *scale = 1.0;
                } else if is_wrong(scale) {
                    let what = if *scale == 0.0 { ", and the codes under it are not all zeros" } else { "" };
                    let why =
                        format!("has scale {scale} at index {index}, but a scale is a positive finite number{what}");
                    return Err(shards.invalid(name, why));
                }
            }
        }
        Ok(scales)
    }

    /// Whether it can be the weight of one layer: a matrix, or a tensor of more dimensions whose scales are also those
    /// of a matrix with a row for each index of the first dimension.
    pub(super) fn is_of_one_layer(&self) -> bool {
        self.shape.len() == 2 || self.granularity.of_matrix(&self.shape).is_some()
    }

    /// Which codes share a scale in the tensor, viewed as one matrix of all its rows. If the last block of each of
    /// several matrices is smaller, the blocks are parts of the declared ones, and scales are repeated.
    pub(super) fn flat_granularity(&self) -> Granularity {
        match (self.granularity, &self.shape[..]) {
            (Granularity::PerBlock { rows: block, cols }, [_, .., rows, _]) if self.shape.len() > 2 => {
                Granularity::PerBlock { rows: greatest_common_divisor(block, *rows).max(1), cols }
            }
            (Granularity::PerChannel, [channels, inner @ .., cols]) if !inner.is_empty() && *channels > 0 => {
                Granularity::PerBlock { rows: inner.iter().product::<usize>().max(1), cols: (*cols).max(1) }
            }
            (granularity, _) => granularity,
        }
    }

    /// The scales of the blocks of the flat granularity, from those of the declared blocks.
    fn spread(&self, scales: Vec<f32>) -> Vec<f32> {
        let (Granularity::PerBlock { rows: block, .. }, Granularity::PerBlock { rows: part, cols }) =
            (self.granularity, self.flat_granularity())
        else {
            return scales;
        };
        let [.., rows, width] = self.shape[..] else { return scales };
        let (beside, above) = (width.div_ceil(cols), rows.div_ceil(block));
        if part == block || beside == 0 || above == 0 {
            return scales;
        }
        let of_matrix = |scales: &[f32]| -> Vec<f32> {
            (0..rows).step_by(part).flat_map(|row| scales[row / block * beside..][..beside].to_vec()).collect()
        };
        scales.chunks_exact(above * beside).flat_map(of_matrix).collect()
    }

    /// The tensor as codes and scales, which dequantizes to `dtype`.
    pub(super) fn load(&self, shards: &Shards, dtype: DType, device: &Device) -> Result<Fp8Tensor> {
        let granularity = self.flat_granularity();
        let codes =
            Tensor::from_vec(shards.read(&self.codes)?, self.shape.as_slice(), &Device::Cpu)?.to_device(device)?;
        let scales = Tensor::from_vec(self.scale_values(shards)?, granularity.scale_dims(&self.shape), device)?;
        Fp8Tensor::from_parts(codes, scales, granularity, self.format, dtype)
            .map_err(|error| shards.invalid(&self.codes, error.to_string()))
    }

    /// Some rows of the tensor, viewed as one matrix of all its rows, dequantized. They must begin at the first row of
    /// a block; `scales` are all of its [`scale_values`](Self::scale_values).
    pub(super) fn load_rows(
        &self,
        shards: &Shards,
        scales: &[f32],
        rows: Range<usize>,
        dtype: DType,
    ) -> Result<Tensor> {
        let cols = self.shape.last().copied().unwrap_or(1);
        let granularity = self.flat_granularity();
        let dims = [rows.len(), cols];
        let of_rows = match granularity {
            Granularity::PerTensor => scales,
            Granularity::PerRow | Granularity::PerChannel => &scales[rows.clone()],
            Granularity::PerBlock { rows: block, .. } => {
                let (above, beside) = granularity.blocks(&dims).grid();
                &scales[rows.start / block * beside..][..above * beside]
            }
        };
        let codes = shards.read_part(&self.codes, rows.start * cols, rows.len() * cols)?;
        let codes = Tensor::from_vec(codes, &dims, &Device::Cpu)?;
        let of_rows = Tensor::from_slice(of_rows, granularity.scale_dims(&dims), &Device::Cpu)?;
        Fp8Tensor::from_parts(codes, of_rows, granularity, self.format, dtype)?.dequantize()
    }

    /// The quantizer of the layer's input.
    pub(super) fn activations(&self, shards: &Shards) -> Result<Option<Quantizer>> {
        match &self.activations {
            None => Ok(None),
            Some(StoredActivations::Dynamic(quantizer)) => Ok(Some(quantizer.clone())),
            Some(StoredActivations::Static(format, name)) => match read_scales(shards, name)?[..] {
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

/// A matrix of scales, from the order in which tensor cores read them (cuBLAS, "1D block scaling factors layout"):
/// tiles of 128 × 4, padded at the edges of the matrix; in a tile, the four rows that are 32 apart lie side by side.
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

/// Scales as numbers, which must be positive and finite; bytes are exponents.
pub(super) fn read_scales(shards: &Shards, name: &str) -> Result<Vec<f32>> {
    let scales = read_numbers(shards, name)?;
    match scales.iter().position(|scale| !(scale.is_finite() && *scale > 0.0)) {
        Some(index) => {
            let why = format!("has scale {} at index {index}, but a scale is a positive finite number", scales[index]);
            Err(shards.invalid(name, why))
        }
        None => Ok(scales),
    }
}

/// Scales as unchecked numbers; bytes are exponents (E8M0: 2 to the power of the byte minus 127).
fn read_numbers(shards: &Shards, name: &str) -> Result<Vec<f32>> {
    check_scale_dtype(shards, name)?;
    let bytes = shards.read(name)?;
    Ok(match shards.info(name).map(|info| info.dtype) {
        Some(Dtype::F32) => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Some(Dtype::BF16) => bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        Some(Dtype::F16) => bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        _ => bytes.iter().map(|exponent| exponent_scale(*exponent)).collect(),
    })
}

pub(super) fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// 2 to the power of a byte minus 127, or NaN for 255, by OCP Microscaling Formats 1.0, 5.4.1.
fn exponent_scale(exponent: u8) -> f32 {
    match exponent {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(exponent) << 23),
    }
}
