//! The loops themselves: one pass over a slice each, in blocks for types that compute in another precision.

use super::element::Element;
use super::level::{Level, for_every_level};
use super::round::Real;
use crate::format::Fp8;

/// Elements converted at a time for `f16` and `bf16`: two buffers of this length stay in the first-level cache.
const BLOCK: usize = 1024;

for_every_level! {
    /// The largest magnitude of `values`; NaN if any is NaN, 0 for an empty slice.
    fn amax = amax_loop, (values: &[T]) -> f64;

    /// `to[i] = decode(encode(from[i] / scale)) × scale`, NaN staying NaN; both slices have the same length.
    fn fake_quantize = fake_quantize_loop, (from: &[T], to: &mut [T], format: Fp8, scale: f32);

    /// `to[i] = encode(from[i] / scale)`; false if a value is NaN and the format has no NaN, and then `to` is of no use.
    fn encode = encode_loop, (from: &[T], to: &mut [u8], format: Fp8, scale: f32) -> bool;

    /// `to[i] = decode(codes[i]) × scale`; both slices have the same length.
    fn decode = decode_loop, (codes: &[u8], to: &mut [T], format: Fp8, scale: f32);
}

#[inline(always)]
fn amax_loop<T: Element>(values: &[T]) -> f64 {
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
    let largest = if let Some(values) = T::as_real(values) {
        fold(zero, values)
    } else {
        let mut buffer = [T::Real::default(); BLOCK];
        values.chunks(BLOCK).fold(zero, |largest, block| {
            let buffer = &mut buffer[..block.len()];
            T::widen(block, buffer);
            fold(largest, buffer)
        })
    };
    T::Real::from_bits(largest).to_f64()
}

#[inline(always)]
fn fake_quantize_loop<T: Element>(from: &[T], to: &mut [T], format: Fp8, scale: f32) {
    let rounder = T::Real::rounder(format);
    if format.mantissa_bits() == 0 {
        map(from, to, |x| x.divide(scale).round_to_power_of_two(&rounder).multiply(scale));
    } else {
        map(from, to, |x| x.divide(scale).round(&rounder).multiply(scale));
    }
}

#[inline(always)]
fn encode_loop<T: Element>(from: &[T], to: &mut [u8], format: Fp8, scale: f32) -> bool {
    let rounder = T::Real::rounder(format);
    let nan = format.nan_code().unwrap_or_default();
    let has_nan = if format.mantissa_bits() == 0 {
        encode_with(from, to, nan, |x| x.divide(scale).round_to_power_of_two(&rounder), |x| x.code(&rounder))
    } else {
        encode_with(from, to, nan, |x| x.divide(scale).round(&rounder), |x| x.code(&rounder))
    };
    !has_nan || format.has_nan()
}

#[inline(always)]
fn decode_loop<T: Element>(codes: &[u8], to: &mut [T], format: Fp8, scale: f32) {
    let mut values = [T::Real::default(); 256];
    for (code, value) in format.values() {
        values[usize::from(code)] = T::Real::from_f32(value).multiply(scale);
    }
    let mut table = [T::default(); 256];
    T::narrow(&values, &mut table);
    for (to, code) in to.iter_mut().zip(codes) {
        *to = table[usize::from(*code)];
    }
}

#[inline(always)]
fn map<T: Element>(from: &[T], to: &mut [T], function: impl Fn(T::Real) -> T::Real) {
    let apply = |from: &[T::Real], to: &mut [T::Real]| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = function(*from);
        }
    };
    if let (Some(from), Some(to)) = (T::as_real(from), T::as_real_mut(to)) {
        return apply(from, to);
    }
    let (mut wide, mut result) = ([T::Real::default(); BLOCK], [T::Real::default(); BLOCK]);
    for (from, to) in from.chunks(BLOCK).zip(to.chunks_mut(BLOCK)) {
        let (wide, result) = (&mut wide[..from.len()], &mut result[..from.len()]);
        T::widen(from, wide);
        apply(wide, result);
        T::narrow(result, to);
    }
}

/// Returns whether a value was NaN.
#[inline(always)]
fn encode_with<T: Element>(
    from: &[T],
    to: &mut [u8],
    nan: u8,
    round: impl Fn(T::Real) -> T::Real,
    code: impl Fn(T::Real) -> u8,
) -> bool {
    let apply = |from: &[T::Real], to: &mut [u8]| {
        let mut has_nan = false;
        for (to, from) in to.iter_mut().zip(from) {
            let rounded = round(*from);
            has_nan |= rounded.is_nan();
            *to = if rounded.is_nan() { nan } else { code(rounded) };
        }
        has_nan
    };
    if let Some(from) = T::as_real(from) {
        return apply(from, to);
    }
    let mut wide = [T::Real::default(); BLOCK];
    from.chunks(BLOCK).zip(to.chunks_mut(BLOCK)).fold(false, |has_nan, (from, to)| {
        let wide = &mut wide[..from.len()];
        T::widen(from, wide);
        apply(wide, to) | has_nan
    })
}
