//! Exponentials that vectorize, and the functions that activations are made of.

/// `exp(x)` for `x` up to 0, within 4 units in the last place; 0 where that is below the normal numbers.
///
/// `exp(x) = 2ⁿ·exp(r)` with `n` the integer next to `x / ln 2`, and `|r| ≤ ln 2 / 2`, where the Taylor polynomial of
/// degree 7 is off by less than `r⁸/8! < 6·10⁻⁹`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
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

/// `σ(x) = 1 / (1 + exp(-x))` and `1 - σ(x)`, each within 8 units in the last place where it is above 2⁻¹²⁵.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> (f32, f32) {
    let small = exp(-x.abs());
    let larger = 1.0 / (1.0 + small);
    let smaller = small * larger;
    if x < 0.0 { (smaller, larger) } else { (larger, smaller) }
}

/// The density of the standard normal distribution and its integral up to `x`.
///
/// The smaller of the integrals to both sides is `exp(-x²/2)·t·Q(t)/2` with `t = 1 / (1 + p·|x|/√2)` and a polynomial
/// `Q` of degree 8 that was fitted to `erfc(z)·exp(z²)/t` for `z` up to 9, where its relative error is below 4·10⁻⁸.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    const P: f32 = 0.470_47;
    const Q: [f32; 9] = [
        -0.046_540_21,
        0.265_155_45,
        -0.558_209_5,
        0.459_336_52,
        -0.120_789_84,
        0.245_847_3,
        0.223_009_66,
        0.266_819,
        0.265_371_67,
    ];
    let decay = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + P * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let mut sum = 0.0;
    for coefficient in Q {
        sum = sum * t + coefficient;
    }
    let tail = 0.5 * decay * t * sum;
    let density = (0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2) * decay;
    (density, if x < 0.0 { tail } else { 1.0 - tail })
}

#[cfg(test)]
mod tests {
    use super::{exp, normal, sigmoid};

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
    fn sigmoids_are_within_8_units_in_the_last_place() {
        for bits in (0..=86f32.to_bits()).step_by(997) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                let (above, below) = sigmoid(x);
                for (found, x) in [(above, f64::from(x)), (below, -f64::from(x))] {
                    let expected = 1.0 / (1.0 + (-x).exp());
                    let unit = f64::from(f32::EPSILON) * expected.log2().floor().exp2();
                    assert!((f64::from(found) - expected).abs() <= 8.0 * unit, "σ({x}) = {found}, not {expected}");
                }
            }
        }
        assert_eq!(sigmoid(f32::INFINITY), (1.0, 0.0));
        assert_eq!(sigmoid(f32::NEG_INFINITY), (0.0, 1.0));
        assert!(sigmoid(f32::NAN).0.is_nan());
    }

    #[test]
    fn the_normal_distribution_is_that_of_tables() {
        // From a table of the standard normal distribution with 15 digits (the values of `scipy.special.ndtr`).
        for (x, below) in [
            (0.0, 0.5),
            (-0.5, 0.308_537_538_725_987),
            (-1.0, 0.158_655_253_931_457),
            (-2.0, 0.022_750_131_948_179_2),
            (-3.0, 1.349_898_031_630_09e-3),
            (-4.0, 3.167_124_183_311_99e-5),
            (-5.0, 2.866_515_718_791_94e-7),
            (-6.0, 9.865_876_450_376_98e-10),
            (-8.0, 6.220_960_574_271_78e-16),
            (-10.0, 7.619_853_024_160_53e-24),
        ] {
            // The exponent is rounded to a multiple of 2⁻²⁴ of itself.
            let bound = (8.0 + x * x) * f64::from(f32::EPSILON);
            let (density, found) = normal(x as f32);
            assert!((f64::from(found) / below - 1.0).abs() <= bound, "Φ({x}) = {found}, not {below}");
            assert!((f64::from(normal(-x as f32).1) - (1.0 - below)).abs() <= bound, "Φ({})", -x);
            let expected = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(density) / expected - 1.0).abs() <= bound, "φ({x}) = {density}, not {expected}");
        }
        assert_eq!(normal(f32::INFINITY), (0.0, 1.0));
        assert_eq!(normal(f32::NEG_INFINITY), (0.0, 0.0));
        assert!(normal(f32::NAN).1.is_nan());
    }
}
