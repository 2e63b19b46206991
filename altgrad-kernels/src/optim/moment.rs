//! How an optimizer stores a moment: a number for each element of a variable, in 4, 2 or 1 bytes.

use half::bf16;

use crate::format::{Fp8, Overflow};
use crate::memory;
use crate::round::Real;
use crate::values::Decoder;

/// Elements of a moment of codes that share a scale.
pub const BLOCK: usize = 256;

/// The smallest largest magnitude that a scale is made from.
const LEAST_AMAX: f32 = 1e-12;

/// The moments of a variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Moment {
    /// As they are.
    F32(Vec<f32>),
    /// Rounded to the nearest bf16.
    Bf16(Vec<bf16>),
    /// E4M3 under a scale for each [`BLOCK`] of elements, `max(amax, 1e-12) / 448`.
    Codes {
        /// A byte for each element.
        codes: Vec<u8>,
        /// A scale for each block, the last of which may be short.
        scales: Vec<f32>,
    },
}

impl Moment {
    /// `len` zeros in `f32`.
    #[must_use]
    pub fn f32(len: usize) -> Self {
        Self::F32(memory::zeroed(len))
    }

    /// `len` zeros in bf16.
    #[must_use]
    pub fn bf16(len: usize) -> Self {
        Self::Bf16(memory::zeroed(len))
    }

    /// `len` zeros in codes.
    #[must_use]
    pub fn codes(len: usize) -> Self {
        Self::Codes { codes: memory::zeroed(len), scales: vec![LEAST_AMAX / 448.0; len.div_ceil(BLOCK)] }
    }

    /// Bytes that are stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(&values[..]),
            Self::Bf16(values) => size_of_val(&values[..]),
            Self::Codes { codes, scales } => codes.len() + size_of_val(&scales[..]),
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Codes { codes, .. } => codes.len(),
        }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in parts of `part`, a multiple of [`BLOCK`].
    pub(super) fn parts(&mut self, part: usize) -> Vec<MomentPart<'_>> {
        match self {
            Self::F32(values) => values.chunks_mut(part).map(MomentPart::F32).collect(),
            Self::Bf16(values) => values.chunks_mut(part).map(MomentPart::Bf16).collect(),
            Self::Codes { codes, scales } => {
                let parts = codes.chunks_mut(part).zip(scales.chunks_mut(part / BLOCK));
                parts.map(|(codes, scales)| MomentPart::Codes(codes, scales)).collect()
            }
        }
    }
}

/// Some elements of a moment, in whole blocks.
#[derive(Debug)]
pub(crate) enum MomentPart<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
    Codes(&'a mut [u8], &'a mut [f32]),
}

/// What reading and writing blocks needs.
#[derive(Clone, Copy)]
pub(super) struct Codec {
    decoder: Decoder,
    rounder: <f32 as Real>::Rounder,
}

impl Codec {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { decoder: Decoder::new(Fp8::E4M3), rounder: f32::rounder(Fp8::E4M3, Overflow::Saturate) }
    }
}

impl MomentPart<'_> {
    /// Reads block `number`.
    #[inline(always)]
    pub(super) fn load(&self, codec: &Codec, number: usize, to: &mut [f32]) {
        let start = number * BLOCK;
        match self {
            Self::F32(values) => to.copy_from_slice(&values[start..start + to.len()]),
            Self::Bf16(values) => {
                to.iter_mut().zip(&values[start..]).for_each(|(to, value)| *to = f32::from(*value));
            }
            Self::Codes(bytes, scales) => {
                let scale = scales[number];
                to.iter_mut().zip(&bytes[start..]).for_each(|(to, code)| *to = codec.decoder.value(*code) * scale);
            }
        }
    }

    /// Writes block `number`.
    #[inline(always)]
    pub(super) fn store(&mut self, codec: &Codec, number: usize, from: &[f32]) {
        let start = number * BLOCK;
        match self {
            Self::F32(values) => values[start..start + from.len()].copy_from_slice(from),
            Self::Bf16(values) => {
                values[start..].iter_mut().zip(from).for_each(|(to, value)| *to = nearest_bf16(*value));
            }
            Self::Codes(bytes, scales) => {
                let amax = from.iter().fold(0, |amax: u32, value| amax.max(value.to_bits() & 0x7FFF_FFFF));
                // An infinite moment becomes a large one: its square was too large for `f32`.
                let scale = f32::from_bits(amax).clamp(LEAST_AMAX, f32::MAX) / 448.0;
                scales[number] = scale;
                for (code, value) in bytes[start..].iter_mut().zip(from) {
                    *code = (value / scale).code_of_nearest(&codec.rounder);
                }
            }
        }
    }
}

/// The nearest bf16, ties to even, of a number that is not NaN; without branches.
#[inline(always)]
fn nearest_bf16(value: f32) -> bf16 {
    let bits = value.to_bits();
    bf16::from_bits(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16)
}
