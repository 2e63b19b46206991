//! The loops themselves: one pass over a slice each, in blocks for types that compute in another precision.

use super::blocks::Blocks;
use super::conversion::{Conversion, Scale};
use super::draws::Draws;
use super::element::Element;
use super::level::{Level, for_every_level};
use super::round::Real;
use crate::format::Fp8;

/// Elements converted at a time: a few buffers of this length stay in the first-level cache.
const CHUNK: usize = 1024;

for_every_level! {
    /// The largest magnitude of each block; NaN if any of its values is NaN, 0 if it has none.
    fn amax = amax_loop, (values: &[T], blocks: Blocks) -> Vec<f64>;

    /// `to[i] = decode(encode(from[i] / scale)) × scale`, NaN staying NaN; both slices have the same length.
    fn fake_quantize = fake_quantize_loop, (from: &[T], to: &mut [T], conversion: &Conversion);

    /// `to[i] = encode(from[i] / scale)`; false if a value is NaN and the format has no NaN, and then `to` is of no use.
    fn encode = encode_loop, (from: &[T], to: &mut [u8], conversion: &Conversion) -> bool;

    /// `to[i] = decode(codes[i]) × scale`, with one scale for each block; both slices have the same length.
    fn decode = decode_loop, (codes: &[u8], to: &mut [T], format: Fp8, blocks: Blocks, scales: &[f32]);
}

#[inline(always)]
fn amax_loop<T: Element>(values: &[T], blocks: Blocks) -> Vec<f64> {
    let zero = T::Real::default().magnitude_bits();
    let fold = |largest, values: &[T::Real]| {
        // Independent lanes, so that the loop does not wait for one maximum after the other.
        let mut lanes = [largest; 32];
        let mut chunks = values.chunks_exact(32);
        for chunk in &mut chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = T::Real::larger(*lane, value.magnitude_bits());
            }
        }
        let rest = chunks.remainder().iter().map(|value| value.magnitude_bits());
        lanes.into_iter().chain(rest).fold(largest, T::Real::larger)
    };
    let mut largest = vec![zero; blocks.count()];
    let mut buffer = [T::Real::default(); CHUNK];
    for (run, block) in blocks.runs() {
        let run = &values[run];
        largest[block] = if let Some(run) = T::as_real(run) {
            fold(largest[block], run)
        } else {
            run.chunks(CHUNK).fold(largest[block], |largest, chunk| {
                let buffer = &mut buffer[..chunk.len()];
                T::widen(chunk, buffer);
                fold(largest, buffer)
            })
        };
    }
    largest.into_iter().map(|bits| T::Real::from_bits(bits).to_f64()).collect()
}

#[inline(always)]
fn fake_quantize_loop<T: Element>(from: &[T], to: &mut [T], conversion: &Conversion) {
    let Conversion { format, overflow, blocks, ref scales, draws } = *conversion;
    let rounder = T::Real::rounder(format, overflow);
    let (mut wide, mut result) = ([T::Real::default(); CHUNK], [T::Real::default(); CHUNK]);
    let mut rounding = Rounding::new(rounder, draws);
    for (run, block) in blocks.runs() {
        let scale = scales[block].value();
        rounding.start(scales[block], run.start);
        for (from, to) in from[run.clone()].chunks(CHUNK).zip(to[run].chunks_mut(CHUNK)) {
            let finish = |_, rounded: T::Real| rounded.multiply(scale);
            if let (Some(from), Some(to)) = (T::as_real(from), T::as_real_mut(to)) {
                rounding.apply(from, to, finish);
            } else {
                let (wide, result) = (&mut wide[..from.len()], &mut result[..from.len()]);
                T::widen(from, wide);
                rounding.apply(wide, result, finish);
                T::narrow(result, to);
            }
            rounding.first += from.len();
        }
    }
}

#[inline(always)]
fn encode_loop<T: Element>(from: &[T], to: &mut [u8], conversion: &Conversion) -> bool {
    let Conversion { format, overflow, blocks, ref scales, draws } = *conversion;
    let rounder = T::Real::rounder(format, overflow);
    let nan = format.nan_code().unwrap_or_default();
    let beyond = format.infinity_code().unwrap_or(nan);
    let mut wide = [T::Real::default(); CHUNK];
    let mut has_nan = false;
    let mut rounding = Rounding::new(rounder, draws);
    for (run, block) in blocks.runs() {
        rounding.start(scales[block], run.start);
        for (from, to) in from[run.clone()].chunks(CHUNK).zip(to[run].chunks_mut(CHUNK)) {
            let values = if let Some(from) = T::as_real(from) {
                from
            } else {
                let wide = &mut wide[..from.len()];
                T::widen(from, wide);
                wide
            };
            let code = |value: T::Real, rounded: T::Real| {
                has_nan |= value.is_nan();
                if value.is_nan() { nan } else { rounded.code(&rounder, beyond) }
            };
            rounding.apply(values, to, code);
            rounding.first += from.len();
        }
    }
    !has_nan || format.has_nan()
}

#[inline(always)]
fn decode_loop<T: Element>(codes: &[u8], to: &mut [T], format: Fp8, blocks: Blocks, scales: &[f32]) {
    let mut values = [T::Real::default(); 256];
    for (code, value) in format.values() {
        values[usize::from(code)] = T::Real::from_f32(value);
    }
    let mut wide = [T::Real::default(); CHUNK];
    for (run, block) in blocks.runs() {
        let decode = |codes: &[u8], to: &mut [T::Real]| {
            for (to, code) in to.iter_mut().zip(codes) {
                *to = values[usize::from(*code)].multiply(scales[block]);
            }
        };
        for (codes, to) in codes[run.clone()].chunks(CHUNK).zip(to[run].chunks_mut(CHUNK)) {
            if let Some(to) = T::as_real_mut(to) {
                decode(codes, to);
            } else {
                let wide = &mut wide[..codes.len()];
                decode(codes, wide);
                T::narrow(wide, to);
            }
        }
    }
}

/// How the elements of one block are brought to values of the format.
struct Rounding<R: Real> {
    rounder: R::Rounder,
    scale: Scale,
    /// Where random numbers come from, with room for those of a chunk.
    draws: Option<(Draws, [u32; CHUNK])>,
    /// Number of the first element in the tensor.
    first: usize,
}

impl<R: Real> Rounding<R> {
    #[inline(always)]
    fn new(rounder: R::Rounder, draws: Option<Draws>) -> Self {
        Self { rounder, scale: Scale::new(1.0), draws: draws.map(|draws| (draws, [0; CHUNK])), first: 0 }
    }

    /// Goes on with another block.
    #[inline(always)]
    fn start(&mut self, scale: Scale, first: usize) {
        (self.scale, self.first) = (scale, first);
    }

    /// `to[i] = finish(from[i], round(from[i] / scale))` for at most [`CHUNK`] elements.
    #[inline(always)]
    fn apply<O>(&mut self, from: &[R], to: &mut [O], finish: impl FnMut(R, R) -> O) {
        let scale = self.scale.value();
        match self.scale.multiplier() {
            Some(multiplier) => self.round(from, to, |x| x.multiply(multiplier), finish),
            None => self.round(from, to, |x| x.divide(scale), finish),
        }
    }

    #[inline(always)]
    fn round<O>(&mut self, from: &[R], to: &mut [O], quotient: impl Fn(R) -> R, mut finish: impl FnMut(R, R) -> O) {
        let rounder = &self.rounder;
        if let Some((draws, buffer)) = &mut self.draws {
            let buffer = &mut buffer[..from.len()];
            draws.fill(self.first, buffer);
            for ((to, from), draw) in to.iter_mut().zip(from).zip(buffer) {
                *to = finish(*from, quotient(*from).round_stochastically(rounder, *draw));
            }
        } else if R::is_power_of_two(rounder) {
            map(from, to, |x| finish(x, quotient(x).round_to_power_of_two(rounder)));
        } else {
            map(from, to, |x| finish(x, quotient(x).round(rounder)));
        }
    }
}

#[inline(always)]
fn map<R: Copy, O>(from: &[R], to: &mut [O], mut function: impl FnMut(R) -> O) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = function(*from);
    }
}
