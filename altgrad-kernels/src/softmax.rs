//! The softmax of a row, with an exponential that vectorizes.

use super::element::Scalar;
use super::level::{Level, for_every_level};

for_every_level! {
    /// `exp(row[i]) / Σ exp(row[j])`, in place. NaN if an element is NaN or the largest is infinite.
    fn softmax = softmax_loop, (row: &mut [f32]);
}

/// Independent lanes, so that sums do not wait for one another.
const LANES: usize = 32;

#[inline(always)]
fn softmax_loop(row: &mut [f32]) {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *value);
        }
    }
    let largest = rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, larger);
    let mut sums = [0.0; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (value, sum) in chunk.iter_mut().zip(&mut sums) {
            *value = exp(*value - largest);
            *sum += *value;
        }
    }
    for (value, sum) in rest.iter_mut().zip(&mut sums) {
        *value = exp(*value - largest);
        *sum += *value;
    }
    let factor = 1.0 / sums.iter().sum::<f32>();
    for value in row {
        *value *= factor;
    }
}

/// `exp(x)` for `x` up to 0, within 4 units in the last place; 0 where that is below the normal numbers.
///
/// `exp(x) = 2ⁿ·exp(r)` with `n` the integer next to `x / ln 2`, and `|r| ≤ ln 2 / 2`, where the Taylor polynomial of
/// degree 7 is off by less than `r⁸/8! < 6·10⁻⁹`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5·2²³: adding it leaves an integer in the lower bits.
    const MAGIC: f32 = 12_582_912.0;
    /// `ln 2` in two parts, the first of which has few enough bits for `n·LN2_HIGH` to be exact (Cody and Waite).
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    if x < -87.3 { 0.0 } else { sum * power }
}

#[cfg(test)]
mod tests {
    use super::{exp, softmax};
    use crate::level::Level;

    #[test]
    fn exponentials_are_within_4_units_in_the_last_place() {
        // Every 97th of all floats from -87.3 to 0.
        for bits in (0x8000_0000_u32..=(-87.3f32).to_bits()).step_by(97) {
            let x = f32::from_bits(bits);
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            let unit = f64::from(f32::EPSILON) * expected.log2().floor().exp2();
            assert!((found - expected).abs() <= 4.0 * unit, "exp({x}) = {found}, not {expected}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_softmax_sums_to_one_and_passes_nan_on() {
        for level in Level::available() {
            for len in [1, 2, 31, 32, 33, 300] {
                let row: Vec<f32> = (0..len).map(|place| (place * 37 % 101) as f32 / 7.0 - 5.0).collect();
                let sum: f64 = row.iter().map(|value| f64::from(*value).exp()).sum();
                let mut found = row.clone();
                softmax::<f32>(level, &mut found);
                for (found, value) in found.iter().zip(&row) {
                    let expected = f64::from(*value).exp() / sum;
                    // An exponential and a sum of `len` terms.
                    let bound = expected * (8 + len) as f64 * f64::from(f32::EPSILON);
                    assert!((f64::from(*found) - expected).abs() <= bound, "{level}, {len}: {found} for {expected}");
                }
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut row = row.clone();
                    row[len / 2] = bad;
                    softmax::<f32>(level, &mut row);
                    assert!(row.iter().any(|value| value.is_nan()), "{level}, {len}, {bad}");
                }
            }
        }
    }
}
