//! Every kernel against an oracle that knows nothing of this crate, element type by element type.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking and say what they ran")]

mod blocks;
mod special;
mod stochastic;
mod threads;

use std::fmt::Debug;

use altgrad_testing::{BF16, CUSTOM, CUSTOM_GOLDEN, F16, Kind, NAMED, Oracle, Spec, corpus};
use half::{bf16, f16};

use super::level::Level;
use super::{Blocks, Conversion, Element, Scale, elementwise};
use crate::{Fp8, Infinity, Overflow, Specials};

/// Powers of two, one that is not, and the ends of the range.
const SCALES: [f32; 7] = [1.0, 0.125, 0.3, 3.7e5, 1e-30, f32::MIN_POSITIVE, f32::MAX / 4.0];

/// Runs a kernel on every level that the machine has, and makes sure that all agree to the last bit.
fn on_every_level<R: PartialEq + Debug>(mut run: impl FnMut(Level) -> R) -> R {
    let mut levels = Level::available().map(|level| (level, run(level)));
    let (_, baseline) = levels.next().unwrap();
    levels.for_each(|(level, result)| assert!(result == baseline, "{level:?} differs from the baseline"));
    baseline
}

/// To `format` under one scale for all, as most tests want it.
fn whole(elements: usize, format: Fp8, scale: f32) -> Conversion {
    let (overflow, scales) = (Overflow::Saturate, vec![Scale::new(scale)]);
    Conversion { overflow, ..Conversion::saturating(format, Blocks::per_tensor(1, elements), scales) }
}

fn amax<T: Sample>(values: &[T]) -> f64 {
    let blocks = Blocks::per_tensor(1, values.len());
    let largest = on_every_level(|level| elementwise::amax(level, values, blocks)[0].to_bits());
    f64::from_bits(largest)
}

fn fake_quantize<T: Sample>(from: &[T], to: &mut [T], format: Fp8, scale: f32) {
    convert(from, to, &whole(from.len(), format, scale));
}

fn encode<T: Sample>(from: &[T], to: &mut [u8], format: Fp8, scale: f32) -> bool {
    convert_to_codes(from, to, &whole(from.len(), format, scale))
}

fn decode<T: Sample>(codes: &[u8], to: &mut [T], format: Fp8, scale: f32) {
    on_every_level(|level| {
        elementwise::decode(level, codes, to, format, Blocks::per_tensor(1, codes.len()), &[scale]);
        to.iter().map(|value| value.bits()).collect::<Vec<_>>()
    });
}

fn convert<T: Sample>(from: &[T], to: &mut [T], conversion: &Conversion) {
    on_every_level(|level| {
        elementwise::fake_quantize(level, from, to, conversion);
        to.iter().map(|value| value.bits()).collect::<Vec<_>>()
    });
}

fn convert_to_codes<T: Sample>(from: &[T], to: &mut [u8], conversion: &Conversion) -> bool {
    on_every_level(|level| (elementwise::encode(level, from, to, conversion), to.to_vec())).0
}

#[test]
fn levels_of_this_machine() {
    // Printed with `--nocapture`; a log that names only the baseline says what was not tested.
    println!("tested on {:?}", Level::available().collect::<Vec<_>>());
    assert!(matches!(Level::available().next(), Some(Level::Scalar)));
}

/// An element type with the arithmetic that its kernels must do.
trait Sample: Element + Debug {
    /// The nearest value; used for inputs only.
    fn near(value: f64) -> Self;

    /// The value, exact.
    fn exact(self) -> f64;

    fn bits(self) -> u64;

    /// The bits of `value × scale` for a `value` of a format: rounded to `f32` or `f64`, then to this type.
    fn product_bits(value: f64, scale: f32) -> u64;

    /// `self / scale` rounded to `f32` or `f64`.
    fn quotient(self, scale: f32) -> f64;

    /// `self × multiplier` rounded to `f32` or `f64`.
    fn times(self, multiplier: f32) -> f64;
}

impl Sample for f32 {
    fn near(value: f64) -> Self {
        value as f32
    }

    fn exact(self) -> f64 {
        f64::from(self)
    }

    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }

    fn product_bits(value: f64, scale: f32) -> u64 {
        (value as f32 * scale).bits()
    }

    fn quotient(self, scale: f32) -> f64 {
        f64::from(self / scale)
    }

    fn times(self, multiplier: f32) -> f64 {
        f64::from(self * multiplier)
    }
}

impl Sample for f64 {
    fn near(value: f64) -> Self {
        value
    }

    fn exact(self) -> f64 {
        self
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }

    fn product_bits(value: f64, scale: f32) -> u64 {
        (value * f64::from(scale)).bits()
    }

    fn quotient(self, scale: f32) -> f64 {
        self / f64::from(scale)
    }

    fn times(self, multiplier: f32) -> f64 {
        self * f64::from(multiplier)
    }
}

macro_rules! narrow_sample {
    ($type:ident, $narrow:ident) => {
        impl Sample for $type {
            fn near(value: f64) -> Self {
                $type::from_bits($narrow.bits($narrow.nearest(f64::from(value as f32))))
            }

            fn exact(self) -> f64 {
                f64::from(self)
            }

            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }

            fn product_bits(value: f64, scale: f32) -> u64 {
                u64::from($narrow.bits($narrow.nearest(f64::from(value as f32 * scale))))
            }

            fn quotient(self, scale: f32) -> f64 {
                f64::from(f32::from(self) / scale)
            }

            fn times(self, multiplier: f32) -> f64 {
                f64::from(f32::from(self) * multiplier)
            }
        }
    };
}

narrow_sample!(f16, F16);
narrow_sample!(bf16, BF16);

fn specs() -> impl Iterator<Item = Spec> {
    NAMED.into_iter().chain(CUSTOM_GOLDEN).chain(CUSTOM)
}

pub(crate) fn format_of(spec: Spec) -> Fp8 {
    let specials = match spec.kind {
        Kind::None => Specials::None,
        Kind::NanOnly => Specials::NanOnly,
        Kind::Ieee => Specials::Ieee,
        Kind::Fnuz => Specials::Fnuz,
    };
    Fp8::new(spec.exponent_bits, spec.mantissa_bits, spec.bias, specials).unwrap()
}

/// Asserts equal bits, or that both are NaN.
#[track_caller]
fn assert_bits<T: Sample>(actual: T, expected: u64, expected_is_nan: bool, context: &dyn Fn() -> String) {
    let agree = if expected_is_nan { actual.exact().is_nan() } else { actual.bits() == expected };
    assert!(agree, "{} gives {actual:?} ({:X}), expected {expected:X}", context(), actual.bits());
}

/// Checks encoding and fake quantization of the inputs under a scale.
fn check<T: Sample>(oracle: &Oracle, inputs: &[T], scale: f32) {
    let format = format_of(oracle.spec);
    let mut fake = vec![T::default(); inputs.len()];
    let mut codes = vec![0; inputs.len()];
    fake_quantize(inputs, &mut fake, format, scale);
    let complete = encode(inputs, &mut codes, format, scale);
    let has_nan = inputs.iter().any(|input| input.quotient(scale).is_nan());
    assert_eq!(complete, !has_nan || oracle.spec.has_nan(), "{format} × {scale:e}");
    for ((input, fake), code) in inputs.iter().zip(fake).zip(codes) {
        let context = || format!("{format}, scale {scale:e}, {input:?} ({:X})", input.bits());
        if let Some(expected) = oracle.saturated(input.quotient(scale)) {
            assert_eq!(code, expected, "{}", context());
            assert_bits(fake, T::product_bits(oracle.decode(expected), scale), false, &context);
        } else {
            assert_bits(fake, 0, true, &context);
            if oracle.spec.has_nan() {
                assert_eq!(Some(code), format.nan_code(), "{}", context());
            }
        }
    }
}

/// The corpus of a format as multiples of the scale, and as it is.
fn inputs<T: Sample>(oracle: &Oracle, scale: f32) -> Vec<T> {
    let corpus = corpus::f64s(oracle);
    let scaled = corpus.iter().map(|value| T::near(value * f64::from(scale)));
    scaled.chain(corpus.iter().map(|value| T::near(*value))).collect()
}

fn check_corpus<T: Sample>() {
    for spec in specs() {
        let oracle = Oracle::new(spec);
        for scale in SCALES {
            check(&oracle, &inputs::<T>(&oracle, scale), scale);
        }
    }
}

#[test]
fn corpus_in_f32() {
    check_corpus::<f32>();
}

#[test]
fn corpus_in_f64() {
    check_corpus::<f64>();
}

#[test]
fn all_of_f16() {
    let all: Vec<_> = (0..=u16::MAX).map(f16::from_bits).collect();
    for spec in specs() {
        for scale in SCALES {
            check(&Oracle::new(spec), &all, scale);
        }
    }
}

#[test]
fn all_of_bf16() {
    let all: Vec<_> = (0..=u16::MAX).map(bf16::from_bits).collect();
    for spec in specs() {
        for scale in SCALES {
            check(&Oracle::new(spec), &all, scale);
        }
    }
}

#[test]
fn encode_says_whether_a_format_could_hold_all_values() {
    fn check_nan<T: Sample>() {
        for (name, format) in Fp8::NAMED {
            for len in [1, 5, 32, 33, 1024, 1030, 2050] {
                let mut values = vec![T::near(0.5); len];
                let mut codes = vec![0xEE; len];
                assert!(encode(&values, &mut codes, format, 1.0), "{name}");
                for position in [0, len / 2, len - 1] {
                    values.fill(T::near(0.5));
                    values[position] = T::near(f64::NAN);
                    let complete = encode(&values, &mut codes, format, 1.0);
                    assert_eq!(complete, format.has_nan(), "{name}, {position} of {len}");
                    assert!(!complete || format.decode(codes[position]).is_nan(), "{name}, {position} of {len}");
                }
            }
        }
    }
    check_nan::<f32>();
    check_nan::<f64>();
    check_nan::<f16>();
    check_nan::<bf16>();
    assert!(encode::<f32>(&[], &mut [], Fp8::E3M4, 1.0));
}

#[test]
fn nan_with_any_payload_stays_nan() {
    let payloads = (0..23).map(|bit| 1u32 << bit).chain([0x007F_FFFF, 0x0040_0001, 0x002B_CDEF]);
    let nans: Vec<_> = payloads.flat_map(|p| [0x7F80_0000 | p, 0xFF80_0000 | p]).map(f32::from_bits).collect();
    let wide: Vec<_> = (0..52).flat_map(|bit| [0x7FFu64, 0xFFF].map(|top| top << 52 | 1 << bit)).collect();
    let wide: Vec<_> = wide.into_iter().map(f64::from_bits).collect();
    for spec in specs() {
        let oracle = Oracle::new(spec);
        check(&oracle, &nans, 0.3);
        check(&oracle, &wide, 0.3);
    }
}

#[test]
fn decode_gives_every_value() {
    fn check_decode<T: Sample>() {
        let codes: Vec<u8> = (0..=u8::MAX).rev().chain(0..=u8::MAX).collect();
        for spec in specs() {
            for scale in SCALES {
                let mut values = vec![T::default(); codes.len()];
                decode(&codes, &mut values, format_of(spec), scale);
                for (code, value) in codes.iter().zip(values) {
                    let expected = spec.decode(*code);
                    let context = || format!("{}, scale {scale:e}, code {code:02X}", spec.name);
                    assert_bits(value, T::product_bits(expected, scale), expected.is_nan(), &context);
                }
            }
        }
    }
    check_decode::<f32>();
    check_decode::<f64>();
    check_decode::<f16>();
    check_decode::<bf16>();
}

/// Lengths up to twice a vector of 32 elements and around one and two blocks.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=67).chain(1020..=1029).chain(2045..=2052)
}

#[test]
fn all_lengths_and_offsets() {
    fn check_slices<T: Sample>() {
        const MARGIN: usize = 9;
        let oracles = [Fp8::E4M3, Fp8::E7M0, Fp8::E5M2_FNUZ, Fp8::E3M4].map(|format| {
            let (name, _) = Fp8::NAMED.into_iter().find(|(_, named)| *named == format).unwrap();
            Oracle::new(NAMED.into_iter().find(|spec| spec.name == name).unwrap())
        });
        let untouched = T::near(77.0);
        for oracle in oracles {
            let format = format_of(oracle.spec);
            // An odd step through the corpus, which has few ordinary numbers in a row.
            let corpus: Vec<T> = inputs::<T>(&oracle, 0.3);
            let numbers = (0..).map(|i| corpus[i * 37 % corpus.len()]).filter(|x| !x.exact().is_nan());
            let source: Vec<T> = numbers.take(2052 + MARGIN).collect();
            for len in lengths() {
                for offset in [0, 1, 2, 3, 4, 7, 8] {
                    let from = &source[offset..offset + len];
                    let range = MARGIN - offset..MARGIN - offset + len;
                    let mut fake = vec![untouched; len + 2 * MARGIN];
                    let mut codes = vec![0xEE; len + 2 * MARGIN];
                    let mut decoded = vec![untouched; len + 2 * MARGIN];
                    fake_quantize(from, &mut fake[range.clone()], format, 0.3);
                    assert!(encode(from, &mut codes[range.clone()], format, 0.3));
                    decode(&codes[range.clone()], &mut decoded[range.clone()], format, 0.3);
                    for i in 0..fake.len() {
                        let context = || format!("{format}, element {i} of {len} at {offset}");
                        let (code, bits) = if range.contains(&i) {
                            let code = oracle.saturated(from[i - range.start].quotient(0.3)).unwrap();
                            (code, T::product_bits(oracle.decode(code), 0.3))
                        } else {
                            (0xEE, untouched.bits())
                        };
                        assert_eq!(codes[i], code, "{}", context());
                        assert_bits(fake[i], bits, false, &context);
                        assert_bits(decoded[i], bits, false, &context);
                    }
                }
            }
        }
    }
    check_slices::<f32>();
    check_slices::<f64>();
    check_slices::<f16>();
    check_slices::<bf16>();
}

#[test]
fn amax_finds_the_largest_wherever_it_is() {
    fn check_amax<T: Sample>() {
        let small = |i: usize| T::near(if i.is_multiple_of(2) { 0.5 } else { -0.75 });
        let source: Vec<T> = (0..2060).map(small).collect();
        for len in lengths() {
            for offset in [0, 1, 3, 8] {
                let mut values = source.clone();
                // What lies outside of the slice must not count.
                values[..offset].fill(T::near(1e4));
                values[offset + len..].fill(T::near(1e4));
                let expected = [0.0, if offset % 2 == 1 { 0.75 } else { 0.5 }, 0.75][len.min(2)];
                assert_eq!(amax(&values[offset..offset + len]).to_bits(), f64::to_bits(expected), "{len} at {offset}");
                for position in [0, 1, 31, 32, 33, 1023, 1024, len.saturating_sub(1)] {
                    if position >= len {
                        continue;
                    }
                    let of = |value: f64| {
                        let mut values = values.clone();
                        values[offset + position] = T::near(value);
                        amax(&values[offset..offset + len])
                    };
                    assert_eq!(of(-3.5).to_bits(), 3.5f64.to_bits(), "{position} of {len}");
                    assert_eq!(of(f64::NEG_INFINITY).to_bits(), f64::INFINITY.to_bits(), "{position} of {len}");
                    assert!(of(f64::NAN).is_nan() && of(-f64::NAN).is_nan(), "{position} of {len}");
                }
            }
        }
        // NaN outweighs infinity, whatever its sign and payload; zero is without a sign.
        let [nan, infinity, zero] = [f64::NAN, f64::INFINITY, -0.0].map(T::near);
        assert!(amax(&[infinity, nan, infinity]).is_nan());
        assert_eq!(amax(&[zero, zero]).to_bits(), 0);
        assert_eq!(amax::<T>(&[]).to_bits(), 0);
    }
    check_amax::<f32>();
    check_amax::<f64>();
    check_amax::<f16>();
    check_amax::<bf16>();
    assert!(amax(&[f32::INFINITY, f32::from_bits(0xFF80_0001)]).is_nan());
    assert!(amax(&[f16::INFINITY, f16::from_bits(0xFC01)]).is_nan());
    assert!(amax(&[bf16::INFINITY, bf16::from_bits(0x7F81)]).is_nan());
}

#[test]
fn amax_is_exact() {
    assert_eq!(amax(&[1e-45f32, -f32::from_bits(3)]).to_bits(), (3.0 * 2f64.powi(-149)).to_bits());
    assert_eq!(amax(&[5e-324f64]).to_bits(), 1);
    assert_eq!(amax(&[f64::MAX, -1.0]).to_bits(), f64::MAX.to_bits());
    assert_eq!(amax(&[f16::from_bits(0x8001)]).to_bits(), 2f64.powi(-24).to_bits());
    assert_eq!(amax(&[f16::MIN]).to_bits(), 65504f64.to_bits());
    assert_eq!(amax(&[bf16::from_bits(1)]).to_bits(), 2f64.powi(-133).to_bits());
}

/// Consecutive `f32` inputs in chunks, by `step` in their bits.
fn check_f32_range(spec: Spec, first: u64, end: u64, step: usize) {
    let oracle = Oracle::new(spec);
    let mut chunk = Vec::with_capacity(1 << 16);
    for bits in (first..end).step_by(step) {
        chunk.push(f32::from_bits(bits as u32));
        if chunk.len() == chunk.capacity() {
            check(&oracle, &chunk, 1.0);
            chunk.clear();
        }
    }
    check(&oracle, &chunk, 1.0);
}

#[test]
fn f32_in_an_odd_stride() {
    for spec in specs() {
        check_f32_range(spec, 0, 1 << 32, 10_007);
    }
}

#[test]
#[ignore = "takes minutes"]
fn all_of_f32() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    for name in ["E4M3", "E5M2"] {
        let spec = NAMED.into_iter().find(|spec| spec.name == name).unwrap();
        let share = (1u64 << 32).div_ceil(threads);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || check_f32_range(spec, thread * share, ((thread + 1) * share).min(1 << 32), 1));
            }
        });
    }
}
