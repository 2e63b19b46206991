//! Values and scales whose products come near the ends of `f32`, or are beyond.
//!
//! Products of codes are computed as if in a wider range than that of `f32`: what overflows or vanishes would do so in
//! the exact result. In products of floats, and of codes whose runs under one scale are short, elements count as
//! rounded to `f32` after their scales are applied. Products of floats that count as rounded to bf16 apply the scales
//! to sums, and those may leave the normal numbers of `f32` before.

use super::*;
use crate::Specials;

/// A power of two.
fn power(exponent: i32) -> f32 {
    2f64.powi(exponent) as f32
}

/// The formats with the widest ranges, and custom ones at the ends of what there can be.
fn formats() -> Vec<Fp8> {
    let custom = |(exponent_bits, bias)| Fp8::new(exponent_bits, 7 - exponent_bits, bias, Specials::None).unwrap();
    let large = [(7, 23), (6, -42), (4, -92), (0, -110)].map(custom);
    let small = [(7, 127), (7, 86), (6, 126), (6, 62), (4, 124), (1, 121), (0, 120)].map(custom);
    [Fp8::E7M0, Fp8::E6M1, Fp8::E4M3, Fp8::E5M2].into_iter().chain(large).chain(small).collect()
}

/// All pairs of formats, with whether `f32` has the product of their smallest values.
fn pairs() -> impl Iterator<Item = (Fp8, Fp8, bool)> {
    let smallest = |format: Fp8| f64::from(format.smallest_positive());
    let pairs = formats().into_iter().flat_map(|a| formats().into_iter().map(move |b| (a, b)));
    pairs.map(move |(a, b)| (a, b, smallest(a) * smallest(b) >= 2f64.powi(-149)))
}

/// Which codes a matrix has.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Largest,
    Smallest,
    /// Of both signs.
    Any,
    /// The largest and the smallest.
    Ends,
}

impl Fill {
    /// Whether a product of both is positive.
    fn is_positive(fills: (Self, Self)) -> bool {
        !matches!(fills, (Self::Any, _) | (_, Self::Any))
    }

    fn codes(self, format: Fp8, rows: usize, cols: usize, block: (usize, usize), scale: f32) -> Operand {
        let random = &mut Random::new(cols);
        let mut codes = Operand::new(format, (rows, cols), block, random, |random| {
            let code = random.next() as u8;
            match self {
                Self::Largest => format.largest_finite_code(),
                Self::Smallest => 1,
                Self::Any => {
                    if format.decode(code).is_finite() {
                        code
                    } else {
                        1
                    }
                }
                Self::Ends => [1, format.largest_finite_code()][random.below(2)],
            }
        });
        codes.scales.fill(scale);
        codes
    }
}

const FILLS: [(Fill, Fill); 7] = [
    (Fill::Largest, Fill::Largest),
    (Fill::Smallest, Fill::Smallest),
    (Fill::Largest, Fill::Smallest),
    (Fill::Smallest, Fill::Largest),
    (Fill::Any, Fill::Any),
    (Fill::Ends, Fill::Any),
    (Fill::Largest, Fill::Ends),
];

/// From the smallest number to nearly the largest.
fn scales() -> [f32; 6] {
    [power(-149), power(-126), 1.3 * power(-64), 1.0, 1.7 * power(60), power(119)]
}

/// Checks elements whose sums of magnitudes are in the range of `f32`, and that those of positive products beyond it
/// are infinite. There is nothing to say of others: partial sums may overflow.
fn check_in_range(exact: &Exact, c: &[f32], is_positive: bool, what: &str) {
    let twice = 2.0 * exact.shape.2 as f64;
    let slack = 1.0 + twice * HALF_ULP;
    for (at, (sum, magnitude)) in exact.sums.iter().zip(&exact.magnitudes).enumerate() {
        let one = Exact { shape: (1, 1, exact.shape.2), sums: vec![*sum], magnitudes: vec![*magnitude] };
        if magnitude * slack <= f64::from(f32::MAX) || sum.is_nan() || sum.is_infinite() {
            one.check(&c[at..=at], what);
        } else if is_positive && sum / slack > 2f64.powi(128) {
            assert_eq!(c[at], f32::INFINITY, "{what}: {sum:e}");
        }
    }
}

/// Checks products of codes of two formats, under one scale for all, against exact sums.
fn check_codes(a_format: Fp8, b_format: Fp8) {
    let (m, n) = (2, 3);
    let mut lengths = [1, 2, 530].into_iter().cycle();
    for (a_fill, b_fill) in FILLS {
        let is_positive = Fill::is_positive((a_fill, b_fill));
        for (a_scale, b_scale) in scales().into_iter().flat_map(|a| scales().map(|b| (a, b))) {
            let k = lengths.next().unwrap();
            let a = a_fill.codes(a_format, m, k, (ALL, ALL), a_scale);
            let b = b_fill.codes(b_format, n, k, (ALL, ALL), b_scale);
            let exact = Exact::new((m, n, k), &a.values(), &b.values());
            for level in Level::available() {
                let mut c = vec![f32::NAN; m * n];
                multiply(level, &Lhs::Codes(a.view()), &Rhs::Codes(b.view()), &mut c);
                let what = format!(
                    "{level}, {a_format:?} {a_fill:?} · {a_scale:e} by {b_format:?} {b_fill:?} · {b_scale:e}, {k} \
                     products"
                );
                check_in_range(&exact, &c, is_positive, &what);
            }
        }
    }
}

#[test]
fn codes_of_wide_formats() {
    pairs().filter(|(_, _, has_products)| *has_products).for_each(|(a, b, _)| check_codes(a, b));
}

#[test]
fn codes_of_formats_with_small_products() {
    pairs().filter(|(_, _, has_products)| !has_products).for_each(|(a, b, _)| check_codes(a, b));
}

#[test]
fn elements_that_are_scaled_one_by_one() {
    let (m, n, k) = (2, 3, 33);
    for (number, (a_format, b_format, _)) in pairs().enumerate() {
        let (a_fill, b_fill) = FILLS[number % FILLS.len()];
        let is_positive = Fill::is_positive((a_fill, b_fill));
        for (a_scale, b_scale) in
            scales().into_iter().flat_map(|a| scales().map(|b| (a, b))).skip(number % 3).step_by(3)
        {
            let a = a_fill.codes(a_format, m, k, (1, 3), a_scale);
            let b = b_fill.codes(b_format, n, k, (1, 3), b_scale);
            let exact = Exact::new((m, n, k), &wide(&a.rounded()), &wide(&b.rounded()));
            let x = a.rounded();
            for level in Level::available() {
                for lhs in [Lhs::Codes(a.view()), Lhs::Floats(FloatMatrix::new(&x, m, k))] {
                    let mut c = vec![f32::NAN; m * n];
                    multiply(level, &lhs, &Rhs::Codes(b.view()), &mut c);
                    check_in_range(
                        &exact,
                        &c,
                        is_positive,
                        &format!("{level}, {a_format:?} {a_scale:e} by {b_format:?} {b_scale:e}"),
                    );
                }
            }
        }
    }
}

/// Floats of one size.
fn floats_of(size: f32, count: usize) -> Vec<f32> {
    let random = &mut Random::new(count);
    (0..count).map(|_| size * random.significand() * [1.0, -1.0][random.below(2)]).collect()
}

#[test]
fn floats_of_all_sizes() {
    let (m, n, k) = (2, 3, 300);
    for (format, exponent) in
        formats().into_iter().flat_map(|format| [-149, -126, -60, 0, 60, 120].map(|e| (format, e)))
    {
        let x = floats_of(power(exponent), m * k);
        for (block, scale) in [(ALL, ALL), (1, 32)].into_iter().flat_map(|block| scales().map(|scale| (block, scale))) {
            let b = Fill::Any.codes(format, n, k, block, scale);
            // Elements that under their scale are no normal numbers of f32 may be rounded to what f32 has.
            if b.values().iter().any(|value| *value != 0.0 && !(*value as f32).is_normal()) {
                continue;
            }
            let exact = Exact::new((m, n, k), &wide(&x), &b.values());
            for level in Level::available() {
                let mut c = vec![f32::NAN; m * n];
                multiply(level, &Lhs::Floats(FloatMatrix::new(&x, m, k)), &Rhs::Codes(b.view()), &mut c);
                check_in_range(&exact, &c, false, &format!("{level}, 2^{exponent} by {format:?} {scale:e}"));
            }
        }
    }
}

/// Products of rounded floats of one size, with sums before they are scaled, and the scale.
fn rounded_products(exponent: i32, format: Fp8, scale: f32, mut check: impl FnMut(&Exact, &[f32], &str)) {
    let (m, n, k) = (2, 3, 300);
    // Numbers that bf16 has.
    let x: Vec<f32> =
        floats_of(1.0, m * k).iter().map(|x| f32::from_bits(x.to_bits() & !0xFFFF) * power(exponent)).collect();
    let b = Fill::Any.codes(format, n, k, (ALL, ALL), scale);
    let exact = Exact::new((m, n, k), &wide(&x), &b.values());
    for level in Level::available() {
        let mut c = vec![f32::NAN; m * n];
        multiply(level, &Lhs::RoundedFloats(FloatMatrix::new(&x, m, k)), &Rhs::Codes(b.view()), &mut c);
        check(&exact, &c, &format!("{level}, 2^{exponent} by {format:?} {scale:e}"));
    }
}

#[test]
fn rounded_floats_of_all_sizes_that_sums_can_hold() {
    for format in [Fp8::E4M3, Fp8::E5M2, Fp8::E3M4, Fp8::E0M7, Fp8::E6M1] {
        let largest = f64::from(format.largest_finite());
        for exponent in [-133, -126, -120, -60, 0, 60, 80] {
            for scale in [-40, -10, 0, 10].map(power) {
                rounded_products(exponent, format, scale, |exact, c, what| {
                    // Numbers below 2⁻¹²⁶ may count as zero, as operands and as sums.
                    let vanished = 2f64.powi(-126) * largest.max(1.0) * f64::from(scale);
                    let twice = 2.0 * exact.shape.2 as f64;
                    exact.check_within(c, twice * HALF_ULP, twice * (vanished + HALF_SUBNORMAL), what);
                });
            }
        }
    }
}

#[test]
fn rounded_floats_of_all_sizes() {
    let check = |exact: &Exact, c: &[f32], what: &str| check_in_range(exact, c, false, what);
    for (exponent, scale) in [(118, -40), (-120, 40)] {
        rounded_products(exponent, Fp8::E4M3, power(scale), check);
        rounded_products(exponent, Fp8::E5M2, power(scale), check);
    }
}
