//! From largest magnitudes to scales, over the whole range of `f32`.

use altgrad_core::{
    AmaxHistory, E8M0Rule, Fp8, Fp8Tensor, Granularity, Infinity, Quantizer, ScaleEncoding, Scaling, compute_scale,
    fake_quantize,
};
use altgrad_testing::Oracle;

use crate::tables::oracle;
use crate::{cpu, values};

const ENCODINGS: [ScaleEncoding; 5] = [
    ScaleEncoding::F32,
    ScaleEncoding::F32Reciprocal,
    ScaleEncoding::PowerOfTwo,
    ScaleEncoding::E8M0(E8M0Rule::Floor),
    ScaleEncoding::E8M0(E8M0Rule::RoundUp),
];

fn formats() -> impl Iterator<Item = (Fp8, Oracle)> {
    Fp8::NAMED.into_iter().map(|(_, format)| (format, oracle(format)))
}

/// Magnitudes of every binade and among the subnormals: the powers of two and the multiples of the largest value of a
/// format with what lies beside them, and some between.
fn amaxes(oracle: &Oracle) -> Vec<f32> {
    let fraction = (oracle.largest() as f32).to_bits() & 0x007F_FFFF;
    let points = [0, fraction, 0x0040_0000, 0x002A_AAAA, 0x0055_5555];
    let mut bits: Vec<u32> = (0..=254u32)
        .flat_map(|field| points.map(|fraction| field << 23 | fraction))
        .chain((0..23).map(|shift| 1 << shift))
        .flat_map(|bits| [-2, -1, 0, 1, 2].map(|ulps| bits.saturating_add_signed(ulps)))
        .chain((0..50).map(|ulps| f32::MAX.to_bits() - ulps))
        .filter(|bits| (1..=f32::MAX.to_bits()).contains(bits))
        .collect();
    bits.sort_unstable();
    bits.dedup();
    bits.into_iter().map(f32::from_bits).collect()
}

fn scale(format: Fp8, encoding: ScaleEncoding, amax: f32) -> f32 {
    let quantizer = Quantizer::new(format).scaling(Scaling::Current).scale_encoding(encoding);
    let scale = quantizer.scale(amax, &quantizer.history());
    assert_eq!(
        quantizer.scale(-amax, &quantizer.history()).to_bits(),
        scale.to_bits(),
        "{format} {encoding:?} {amax:e}"
    );
    scale
}

/// The exponents of powers of two that are scales: those with which the largest value of the format is a finite `f32`.
fn exponents(oracle: &Oracle) -> std::ops::RangeInclusive<i32> {
    let highest = (-127..=127).rfind(|exponent| oracle.largest() * 2f64.powi(*exponent) <= f64::from(f32::MAX));
    -127..=highest.unwrap()
}

#[test]
fn powers_of_two_are_the_smallest_with_which_nothing_saturates() {
    for (format, oracle) in formats() {
        let mut count = 0;
        for amax in amaxes(&oracle) {
            let mut exponents = exponents(&oracle);
            let highest = *exponents.end();
            let exponent = exponents
                .find(|exponent| oracle.largest() * 2f64.powi(*exponent) >= f64::from(amax))
                .unwrap_or(highest);
            for encoding in [ScaleEncoding::PowerOfTwo, ScaleEncoding::E8M0(E8M0Rule::RoundUp)] {
                let scale = scale(format, encoding, amax);
                assert_eq!(f64::from(scale), 2f64.powi(exponent), "{format} {encoding:?} {amax:e}");
            }
            count += 1;
        }
        assert!(count > 5000, "{count}");
    }
}

#[test]
fn the_floor_rule_takes_the_difference_of_exponents() {
    let floor_log2 = |x: f64| (-200..200).rfind(|exponent| 2f64.powi(*exponent) <= x).unwrap();
    for (format, oracle) in formats() {
        let (exponents, largest) = (exponents(&oracle), floor_log2(oracle.largest()));
        for amax in amaxes(&oracle) {
            let exponent = (floor_log2(amax.into()) - largest).clamp(*exponents.start(), *exponents.end());
            let scale = scale(format, ScaleEncoding::E8M0(E8M0Rule::Floor), amax);
            assert_eq!(f64::from(scale), 2f64.powi(exponent), "{format} {amax:e}");
        }
    }
}

#[test]
fn reciprocals_are_those_of_a_multiplier_in_f32() {
    for (format, oracle) in formats() {
        let mut differences = 0;
        for amax in amaxes(&oracle) {
            let multiplier = ((oracle.largest() / f64::from(amax)) as f32).min(f32::MAX);
            let expected = 1.0 / multiplier;
            let actual = scale(format, ScaleEncoding::F32Reciprocal, amax);
            if (expected * oracle.largest() as f32).is_finite() {
                assert_eq!(actual.to_bits(), expected.to_bits(), "{format} {amax:e}");
            } else {
                assert_eq!(
                    actual.to_bits(),
                    expected.min(f32::MAX).to_bits() - u32::from(oracle.largest() > 1.0),
                    "{format} {amax:e}"
                );
            }
            differences += usize::from(actual.to_bits() != compute_scale(amax, format).to_bits());
        }
        // Otherwise it would be the same as a quotient.
        let exact = oracle.largest().log2().fract() == 0.0;
        assert!(differences > if exact { 0 } else { 500 }, "{format}: {differences}");
    }
}

/// Where products with a multiplier and quotients by a scale part: a few steps around the scaled midpoints of a format,
/// the largest of which is `amax`.
fn around_midpoints(oracle: &Oracle, amax: f32) -> Vec<f32> {
    let scale = f64::from(amax) / oracle.largest();
    let points = oracle.points().into_iter().filter(|point| *point > 0.0 && *point < oracle.largest());
    let near = points.flat_map(|point| {
        let bits = ((point * scale) as f32).to_bits();
        [-2, -1, 0, 1, 2].map(|ulps| f32::from_bits(bits.saturating_add_signed(ulps)).min(amax))
    });
    near.chain([amax]).enumerate().map(|(i, x)| if i % 2 == 0 { x } else { -x }).collect()
}

#[test]
fn values_are_multiplied_by_the_multiplier() {
    for (format, oracle) in formats() {
        let mut differences = 0;
        for amax in [1.0, 1.1, 0.7, 1.3e-5, 9.1e7] {
            let x = around_midpoints(&oracle, amax);
            let multiplier = (oracle.largest() / f64::from(amax)) as f32;
            let quantizer =
                Quantizer::new(format).scaling(Scaling::Current).scale_encoding(ScaleEncoding::F32Reciprocal);
            let tensor = cpu(x.clone(), x.len());
            let packed = Fp8Tensor::quantize(&tensor, &quantizer).unwrap();
            let scale = packed.scales().to_scalar::<f32>().unwrap();
            assert_eq!(scale.to_bits(), (1.0 / multiplier).to_bits(), "{format}");
            let codes: Vec<u8> = packed.codes().to_vec1().unwrap();
            let values: Vec<f32> = fake_quantize(&tensor, &quantizer).unwrap().to_vec1().unwrap();
            for (x, (code, value)) in x.into_iter().zip(codes.into_iter().zip(values)) {
                let expected = oracle.saturated((x * multiplier).into()).unwrap();
                assert_eq!(code, expected, "{format} {x:e}");
                assert_eq!(value.to_bits(), (oracle.decode(code) as f32 * scale).to_bits(), "{format} {x:e}");
                differences += usize::from(oracle.saturated((x / scale).into()).unwrap() != expected);
            }
        }
        // Powers of two have exact reciprocals only where the multiplier is one.
        assert!(differences > 10, "{format}: {differences} codes tell the two from each other");
    }
}

#[test]
fn the_largest_value_times_the_scale_is_finite() {
    for (format, oracle) in formats() {
        for encoding in ENCODINGS {
            for amax in amaxes(&oracle) {
                let scale = scale(format, encoding, amax);
                assert!(
                    scale > 0.0 && (scale * oracle.largest() as f32).is_finite(),
                    "{format} {encoding:?} {amax:e}: {scale:e}"
                );
            }
        }
    }
}

#[test]
fn the_largest_value_times_the_scale_is_finite_with_a_margin() {
    for (format, oracle) in formats() {
        for encoding in ENCODINGS {
            for margin in [-32, -1, 1, 3, 32] {
                let quantizer =
                    Quantizer::new(format).scaling(Scaling::Delayed { len: 1, margin }).scale_encoding(encoding);
                for amax in [f32::from_bits(1), 1.0, 1e30, 1e38, 3e38, f32::MAX] {
                    let mut history = quantizer.history();
                    quantizer.record(amax, &mut history);
                    let scale = quantizer.scale(1.0, &history);
                    assert!(
                        scale > 0.0 && (scale * oracle.largest() as f32).is_finite(),
                        "{format} {encoding:?} margin {margin}, {amax:e}: {scale:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_margin_is_a_power_of_two_of_the_scale() {
    for (format, oracle) in formats() {
        for encoding in ENCODINGS {
            for margin in [-2, -1, 1, 3] {
                let quantizer =
                    Quantizer::new(format).scaling(Scaling::Delayed { len: 1, margin }).scale_encoding(encoding);
                for amax in amaxes(&oracle).into_iter().filter(|amax| (1e-10..1e10).contains(amax)) {
                    let mut history = quantizer.history();
                    quantizer.record(amax, &mut history);
                    let expected = scale(format, encoding, amax) * 2f32.powi(margin);
                    let actual = quantizer.scale(7.0, &history);
                    assert_eq!(actual.to_bits(), expected.to_bits(), "{format} {encoding:?} margin {margin}, {amax:e}");
                }
            }
        }
    }
}

#[test]
fn tensors_of_the_largest_numbers_stay_finite() {
    let x: Vec<f32> =
        (0..70).map(|i| f32::from_bits(f32::MAX.to_bits() - (i * i * i) as u32) * [1.0, -1.0][i % 2]).collect();
    let granularities = [Granularity::PerTensor, Granularity::PerRow, Granularity::PerBlock { rows: 2, cols: 3 }];
    for (format, _) in formats() {
        for encoding in ENCODINGS {
            for granularity in granularities {
                let quantizer = Quantizer::new(format).granularity(granularity).scale_encoding(encoding);
                let actual = values(&fake_quantize(&cpu(x.clone(), (7, 10)), &quantizer).unwrap());
                assert!(actual.iter().all(|x| x.is_finite()), "{format} {encoding:?} {granularity:?}");
            }
        }
    }
}

#[test]
fn without_a_magnitude_scales_are_one_or_nan() {
    for (format, _) in formats() {
        for encoding in ENCODINGS {
            let quantizer = Quantizer::new(format).scaling(Scaling::Current).scale_encoding(encoding);
            for amax in [f32::NAN, f32::INFINITY] {
                let saturating = quantizer.clone().infinity(Infinity::Saturate);
                assert_eq!(saturating.scale(amax, &quantizer.history()), 1.0, "{format} {encoding:?} {amax}");
                assert!(quantizer.scale(amax, &quantizer.history()).is_nan(), "{format} {encoding:?} {amax}");
            }
            let of_zero = if let ScaleEncoding::E8M0(_) = encoding { 2f32.powi(-127) } else { 1.0 };
            assert_eq!(scale(format, encoding, 0.0).to_bits(), of_zero.to_bits(), "{format} {encoding:?}");
        }
    }
}

#[test]
fn magnitudes_below_the_epsilon_count_as_the_epsilon() {
    for (format, oracle) in formats() {
        for encoding in ENCODINGS {
            for epsilon in [1e-12, 0.25, 1e-30] {
                let with =
                    Quantizer::new(format).scaling(Scaling::Current).scale_encoding(encoding).amax_epsilon(epsilon);
                let scaled = |amax| with.scale(amax, &with.history());
                // The epsilon itself need not be an `f32`, but scales from it are.
                let expected = match encoding {
                    ScaleEncoding::F32 => (epsilon / oracle.largest()) as f32,
                    ScaleEncoding::F32Reciprocal => 1.0 / (oracle.largest() / epsilon) as f32,
                    _ => scale(format, encoding, epsilon as f32),
                };
                for amax in [0.0, -0.0, 1e-45, 1e-38, (epsilon * 0.99) as f32] {
                    let expected = if expected.is_normal() { expected } else { scaled(0.0) };
                    assert_eq!(
                        scaled(amax).to_bits(),
                        expected.to_bits(),
                        "{format} {encoding:?} {epsilon:e} {amax:e}"
                    );
                }
                for amax in [(epsilon * 1.01) as f32, 1.0, 1e30] {
                    assert_eq!(
                        scaled(amax),
                        scale(format, encoding, amax),
                        "{format} {encoding:?} {epsilon:e} {amax:e}"
                    );
                }
                for amax in [f32::NAN, f32::INFINITY] {
                    assert!(scaled(amax).is_nan(), "{format} {encoding:?} {epsilon:e} {amax:e}");
                }
            }
        }
    }
}

#[test]
fn a_static_scale_is_what_it_is() {
    let mut history = AmaxHistory::new(4);
    history.record(1e10);
    let mut told_apart = 0;
    for (format, oracle) in formats() {
        for encoding in ENCODINGS {
            for scale in [0.3f32, 1e-30, 1e10, f32::from_bits(1)] {
                let quantizer =
                    Quantizer::new(format).scaling(Scaling::Static(scale)).scale_encoding(encoding).amax_epsilon(1e-3);
                for amax in [0.0, 1.0, f32::NAN, f32::INFINITY] {
                    assert_eq!(quantizer.scale(amax, &history), scale, "{format} {encoding:?}");
                }
                assert_eq!(quantizer.history().capacity(), 0);
            }
            // Values are divided by it, whatever the encoding, of which some hold powers of two only.
            let any = matches!(encoding, ScaleEncoding::F32 | ScaleEncoding::F32Reciprocal);
            let scale = if any { 0.3 } else { 0.25 };
            let quantizer = Quantizer::new(format).scaling(Scaling::Static(scale)).scale_encoding(encoding);
            let x = around_midpoints(&oracle, oracle.largest() as f32 * scale);
            let packed = Fp8Tensor::quantize(&cpu(x.clone(), x.len()), &quantizer).unwrap();
            let code = |quotient: f32| oracle.saturated(quotient.into()).unwrap();
            let expected: Vec<u8> = x.iter().map(|x| code(x / scale)).collect();
            let differences = x.iter().zip(&expected).filter(|(x, expected)| code(*x * (1.0 / scale)) != **expected);
            told_apart += differences.count();
            assert_eq!(packed.codes().to_vec1::<u8>().unwrap(), expected, "{format} {encoding:?}");
        }
    }
    // By the two encodings whose scale is no power of two.
    assert!(told_apart > 800, "{told_apart} codes tell quotients from products");
}
