//! What is not finite: a second pass over the few tensors that hold any such value, so that the loops need not look.

use super::conversion::Conversion;
use super::element::Scalar;
use super::round::Real;
use crate::format::Infinity;

/// Puts infinities that propagate in place of the saturated ones that `fake_quantize` made of them: the same in a
/// format that has them, else NaN.
pub(super) fn put_into_values<T: Scalar>(from: &[T], to: &mut [T], conversion: &Conversion) {
    if conversion.infinity == Infinity::Saturate {
        return;
    }
    let nan = T::narrow(T::Real::from_f32(f32::NAN));
    for (to, from) in to.iter_mut().zip(from) {
        if from.widen().is_infinite() {
            // A scale that is NaN has made it that already, which it stays.
            *to = if conversion.format.has_infinity() && !to.widen().is_nan() { *from } else { nan };
        }
    }
}

/// Puts the codes of NaN, and of infinities that propagate, in their places; false if there is one for which the format
/// has no code. The elements are those from number `first` on.
pub(super) fn put_into_codes<T: Scalar>(first: usize, from: &[T], to: &mut [u8], conversion: &Conversion) -> bool {
    let Conversion { format, infinity, blocks, ref scales, .. } = *conversion;
    let (nan, infinite) = (format.nan_code(), format.infinity_code());
    for (run, block) in blocks.runs_in(first..first + from.len()) {
        let is_unknown = scales[block].value().is_nan();
        let run = run.start - first..run.end - first;
        for (to, from) in to[run.clone()].iter_mut().zip(&from[run]) {
            let value = from.widen();
            let code = if is_unknown || value.is_nan() {
                nan
            } else if value.is_infinite() && infinity == Infinity::Propagate {
                let sign = if value < T::Real::default() { 0x80 } else { 0 };
                infinite.map(|code| code | sign).or(nan)
            } else {
                continue;
            };
            let Some(code) = code else { return false };
            *to = code;
        }
    }
    true
}
