//! The loops themselves: one pass each over consecutive elements of a tensor, a chunk at a time.

use std::cell::Cell;

use super::blocks::{Blocks, Piece, Tile};
use super::conversion::Conversion;
use super::draws::Draws;
use super::element::Scalar;
use super::level::{Level, for_every_level};
use super::round::Real;
use super::values::Decoder;
use crate::format::Fp8;

/// Elements converted at a time: a few buffers of this length stay in the first-level cache.
pub(super) const CHUNK: usize = 1024;

for_every_level! {
    /// Raises each of `largest` to the largest magnitude of the elements of its block among `values`, the first of
    /// which is element number `first` of the tensor. NaN counts as larger than all others. `largest` starts with the
    /// block number `first_block`.
    fn amax = amax_loop, (first: usize, values: &[T], blocks: Blocks, first_block: usize, largest: &mut [f64]);

    /// `to[i] = decode(encode(from[i] / scale)) × scale`, NaN staying NaN and infinities saturated, for the elements
    /// from number `first` on; true if a quotient is not finite.
    fn fake_quantize = fake_quantize_loop, (first: usize, from: &[T], to: &mut [T], conversion: &Conversion) -> bool;

    /// `to[i] = encode(from[i] / scale)`, infinities saturated, for the elements from number `first` on; true if a
    /// quotient is not finite. The codes of NaN are meaningless.
    fn encode = encode_loop, (first: usize, from: &[T], to: &mut [u8], conversion: &Conversion) -> bool;

    /// `to[i] = decode(codes[i]) × scale` for the elements from number `first` on.
    fn decode = decode_loop, (first: usize, codes: &[u8], to: &mut [T], format: Fp8, blocks: Blocks, scales: &[f32]);
}

#[inline(always)]
fn amax_loop<T: Scalar>(first: usize, values: &[T], blocks: Blocks, first_block: usize, largest: &mut [f64]) {
    let mut pieces = blocks.pieces_in(first..first + values.len(), CHUNK).peekable();
    if pieces.peek().is_some_and(|piece| piece.tile.is_some()) {
        return amax_of_tiles(first, values, pieces, first_block, largest);
    }
    for (run, block) in blocks.runs_in(first..first + values.len()) {
        // Independent lanes, so that the loop does not wait for each maximum before the next.
        let mut lanes = [T::Real::default().magnitude_bits(); 32];
        let mut chunks = values[run.start - first..run.end - first].chunks_exact(32);
        for chunk in &mut chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = T::Real::larger(*lane, value.widen().magnitude_bits());
            }
        }
        // Fold halves onto halves: short runs would spend their time on one maximum after the other.
        for half in [16, 8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] = T::Real::larger(lanes[lane], lanes[lane + half]);
            }
        }
        let rest = chunks.remainder().iter().map(|value| value.widen().magnitude_bits());
        let of_run = rest.fold(lanes[0], T::Real::larger);
        let of_block = &mut largest[block - first_block];
        *of_block = larger_magnitude(*of_block, T::Real::from_bits(of_run).to_f64());
    }
}

/// The same for blocks that are narrow and high: one maximum for each column of a tile.
#[inline(always)]
fn amax_of_tiles<T: Scalar>(
    first: usize,
    values: &[T],
    pieces: impl Iterator<Item = Piece>,
    first_block: usize,
    largest: &mut [f64],
) {
    let none = T::Real::default().magnitude_bits();
    let mut of_columns = [none; CHUNK];
    let mut current: Option<Tile> = None;
    let mut finish = |tile: Tile, of_columns: &[_]| {
        for (block, bits) in tile.blocks().zip(of_columns) {
            let of_block = &mut largest[block - first_block];
            *of_block = larger_magnitude(*of_block, T::Real::from_bits(*bits).to_f64());
        }
    };
    for Piece { elements, tile } in pieces {
        if current != tile {
            if let Some(last) = std::mem::replace(&mut current, tile) {
                finish(last, &of_columns);
            }
            of_columns.fill(none);
        }
        let Some(tile) = tile else { continue };
        let of_piece = &mut of_columns[tile.column_of(elements.start)..];
        for (largest, value) in of_piece.iter_mut().zip(&values[elements.start - first..elements.end - first]) {
            *largest = T::Real::larger(*largest, value.widen().magnitude_bits());
        }
    }
    if let Some(last) = current {
        finish(last, &of_columns);
    }
}

/// The larger of two magnitudes, NaN if one is NaN: their bits order as they do.
#[inline(always)]
pub(super) fn larger_magnitude(a: f64, b: f64) -> f64 {
    f64::from_bits(a.to_bits().max(b.to_bits()))
}

#[inline(always)]
fn fake_quantize_loop<T: Scalar>(first: usize, from: &[T], to: &mut [T], conversion: &Conversion) -> bool {
    let rounder = T::Real::rounder(conversion.format, conversion.overflow);
    let is_special = Cell::new(false);
    let finish = |quotient: T::Real, rounded: T::Real, scale| {
        is_special.set(is_special.get() | !quotient.is_finite());
        T::narrow(rounded.multiply(scale))
    };
    let nearest = |quotient: T::Real, scale| finish(quotient, quotient.round(&rounder), scale);
    convert(first, from, to, conversion, &rounder, nearest, finish);
    is_special.get()
}

#[inline(always)]
fn encode_loop<T: Scalar>(first: usize, from: &[T], to: &mut [u8], conversion: &Conversion) -> bool {
    let format = conversion.format;
    let rounder = T::Real::rounder(format, conversion.overflow);
    let nan = format.nan_code().unwrap_or_default();
    let beyond = format.infinity_code().unwrap_or(nan);
    let is_special = Cell::new(false);
    let noted = |quotient: T::Real, code| {
        is_special.set(is_special.get() | !quotient.is_finite());
        code
    };
    let nearest = |quotient: T::Real, _| noted(quotient, quotient.code_of_nearest(&rounder));
    let finish = |quotient, rounded: T::Real, _| noted(quotient, rounded.code(&rounder, beyond));
    convert(first, from, to, conversion, &rounder, nearest, finish);
    is_special.get()
}

#[inline(always)]
fn decode_loop<T: Scalar>(first: usize, codes: &[u8], to: &mut [T], format: Fp8, blocks: Blocks, block_scales: &[f32]) {
    let decoder = Decoder::new(format);
    let mut scales = Spread::new();
    for piece in blocks.pieces_in(first..first + codes.len(), CHUNK) {
        let scales = scales.over(&piece, blocks, |block| block_scales[block]);
        let part = piece.elements.start - first..piece.elements.end - first;
        for ((to, code), scale) in to[part.clone()].iter_mut().zip(&codes[part]).zip(scales) {
            *to = T::narrow(T::Real::from_f32(decoder.value(*code)).multiply(*scale));
        }
    }
}

/// `to[i] = finish(quotient, round(quotient), scale)` with `quotient = from[i] / scale`, for the elements from number
/// `first` on; to round to the nearest value of a format that has mantissa bits, `nearest(quotient, scale)` instead.
#[inline(always)]
fn convert<T: Scalar, O>(
    first: usize,
    from: &[T],
    to: &mut [O],
    conversion: &Conversion,
    rounder: &<T::Real as Real>::Rounder,
    nearest: impl Fn(T::Real, f32) -> O,
    finish: impl Fn(T::Real, T::Real, f32) -> O,
) {
    let Conversion { blocks, ref scales, draws, .. } = *conversion;
    let multiplies = scales.first().is_some_and(|scale| scale.multiplier().is_some());
    let (mut spread_scales, mut spread_multipliers) = (Spread::new(), Spread::new());
    for piece in blocks.pieces_in(first..first + from.len(), CHUNK) {
        let start = piece.elements.start;
        let part = start - first..piece.elements.end - first;
        let (from, to) = (&from[part.clone()], &mut to[part]);
        let by_scale = spread_scales.over(&piece, blocks, |block| scales[block].value());
        if multiplies {
            let by = spread_multipliers.over(&piece, blocks, |block| scales[block].multiplier().unwrap_or(f32::NAN));
            let chunk = Chunk { start, from, by, scales: by_scale, draws };
            chunk.convert(to, rounder, T::Real::multiply, &nearest, &finish);
        } else {
            let chunk = Chunk { start, from, by: by_scale, scales: by_scale, draws };
            chunk.convert(to, rounder, T::Real::divide, &nearest, &finish);
        }
    }
}

/// Elements that are rounded at a time.
struct Chunk<'a, T> {
    /// The number of the first element in the tensor.
    start: usize,
    from: &'a [T],
    /// What each is divided or multiplied by on the way into the format, and its scale.
    by: &'a [f32],
    scales: &'a [f32],
    draws: Option<Draws>,
}

impl<T: Scalar> Chunk<'_, T> {
    #[inline(always)]
    fn convert<O>(
        &self,
        to: &mut [O],
        rounder: &<T::Real as Real>::Rounder,
        quotient: impl Fn(T::Real, f32) -> T::Real,
        nearest: &impl Fn(T::Real, f32) -> O,
        finish: &impl Fn(T::Real, T::Real, f32) -> O,
    ) {
        if let Some(draws) = self.draws {
            let mut buffer = [0; CHUNK];
            draws.fill(self.start, &mut buffer[..self.from.len()]);
            let elements = to.iter_mut().zip(self.from).zip(self.by).zip(self.scales).zip(&buffer);
            for ((((to, from), by), scale), draw) in elements {
                let quotient = quotient(from.widen(), *by);
                *to = finish(quotient, quotient.round_stochastically(rounder, *draw), *scale);
            }
        } else if T::Real::is_power_of_two(rounder) {
            self.map(to, quotient, |quotient, scale| finish(quotient, quotient.round_to_power_of_two(rounder), scale));
        } else {
            self.map(to, quotient, nearest);
        }
    }

    #[inline(always)]
    fn map<O>(&self, to: &mut [O], quotient: impl Fn(T::Real, f32) -> T::Real, function: impl Fn(T::Real, f32) -> O) {
        for (((to, from), by), scale) in to.iter_mut().zip(self.from).zip(self.by).zip(self.scales) {
            *to = function(quotient(from.widen(), *by), *scale);
        }
    }
}

/// Numbers that are written at a time where runs are short.
const AT_ONCE: usize = 32;

/// One number for each element of a chunk, expanded from one for each block, so that loops are the same for all
/// blocks.
struct Spread {
    /// The numbers of the elements, with room behind them.
    numbers: [f32; CHUNK + AT_ONCE],
    /// The block whose number fills all of them, if there is one.
    block: Option<usize>,
    /// The tile whose columns they are for, if there is one.
    tile: Option<Tile>,
}

impl Spread {
    #[inline(always)]
    fn new() -> Self {
        Self { numbers: [0.0; CHUNK + AT_ONCE], block: None, tile: None }
    }

    /// The numbers for a piece of at most [`CHUNK`] elements.
    #[inline(always)]
    fn over(&mut self, piece: &Piece, blocks: Blocks, number: impl Fn(usize) -> f32) -> &[f32] {
        let (start, len) = (piece.elements.start, piece.elements.len());
        if let Some(tile) = piece.tile {
            if self.tile != piece.tile {
                self.numbers.iter_mut().zip(tile.blocks()).for_each(|(to, block)| *to = number(block));
                self.tile = piece.tile;
            }
            return &self.numbers[tile.column_of(start)..][..len];
        }
        let mut runs = blocks.runs_in(start..start + len);
        match runs.clone().next() {
            Some((run, block)) if run.len() == len => {
                if self.block != Some(block) {
                    self.numbers.fill(number(block));
                    self.block = Some(block);
                }
            }
            _ => {
                for (run, block) in &mut runs {
                    // What is written past the end of a run is overwritten by the next one: two whole vectors are
                    // written faster than a number of elements that is known only at run time.
                    let number = [number(block); AT_ONCE];
                    for at in (run.start - start..run.end - start).step_by(AT_ONCE) {
                        self.numbers[at..at + AT_ONCE].copy_from_slice(&number);
                    }
                }
                self.block = None;
            }
        }
        &self.numbers[..len]
    }
}
