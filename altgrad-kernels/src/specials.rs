//! Values that are not finite: a second pass over the few tensors that hold any, so that the loops need not check.

use super::conversion::Conversion;
use super::element::Scalar;
use super::round::Real;
use crate::format::Infinity;

/// Replaces the saturated values that `fake_quantize` made of infinities that propagate: by the infinities in a
/// format that has them, otherwise by NaN.
pub(super) fn put_into_values<T: Scalar>(from: &[T], to: &mut [T], conversion: &Conversion) {
    if conversion.infinity == Infinity::Saturate {
        return;
    }
    let nan = T::narrow(T::Real::from_f32(f32::NAN));
    for (to, from) in to.iter_mut().zip(from) {
        if from.widen().is_infinite() {
            // Under a NaN scale the value is NaN already, and stays so.
            *to = if conversion.format.has_infinity() && !to.widen().is_nan() { *from } else { nan };
        }
    }
}

/// Writes the codes of NaN, and of infinities that propagate; false if the format has no code for one of them. The
/// elements are those from number `first` on.
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
