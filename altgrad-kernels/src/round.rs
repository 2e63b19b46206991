//! Rounding a real number to the nearest value of a format, without branches.

use std::ops::Add;

use crate::format::{Fp8, Overflow};

/// The arithmetic that rounding needs of `f32` and `f64`.
pub trait Real: Copy + Default + PartialOrd + Add<Output = Self> + 'static {
    /// The bits of a value.
    type Bits: Copy;

    /// Everything about a format that rounding to it needs.
    type Rounder: Copy;

    /// Prepares rounding to `format`.
    fn rounder(format: Fp8, overflow: Overflow) -> Self::Rounder;

    /// Whether the format has no mantissa bits.
    fn is_power_of_two(rounder: &Self::Rounder) -> bool;

    /// The value of `format` nearest to `self`, as [`Fp8::encode_with`] picks it; NaN stays NaN, in any format.
    fn round(self, rounder: &Self::Rounder) -> Self;

    /// As [`round`](Self::round) for a format without mantissa bits, whose ties go by the exponent's last bit.
    fn round_to_power_of_two(self, rounder: &Self::Rounder) -> Self;

    /// Rounds at random to one of the two values of `format` that `self` lies between. The probability of the one
    /// away from zero is the distance to the other, divided by the distance between the two. `draw` is uniform in all
    /// of its bits, of which `f32` uses the upper 24. Overflow is that of [`round`](Self::round), with the next value
    /// as if the format went on.
    fn round_stochastically(self, rounder: &Self::Rounder, draw: u32) -> Self;

    /// The code of the value that rounding returned for a number; `beyond` is the code of overflow.
    fn code(self, rounder: &Self::Rounder, beyond: u8) -> u8;

    /// The code of the value that [`round`](Self::round) returns for a number, without computing that value. Not for
    /// formats without mantissa bits.
    fn code_of_nearest(self, rounder: &Self::Rounder) -> u8;

    /// Correctly rounded quotient.
    fn divide(self, scale: f32) -> Self;

    /// Correctly rounded product.
    fn multiply(self, scale: f32) -> Self;

    fn is_nan(self) -> bool;

    fn is_finite(self) -> bool;

    fn is_infinite(self) -> bool;

    fn from_f32(value: f32) -> Self;

    fn to_f64(self) -> f64;

    /// The bits of the magnitude; they order as the magnitudes do, with infinity above all numbers and NaN above it.
    fn magnitude_bits(self) -> Self::Bits;

    fn from_bits(bits: Self::Bits) -> Self;

    /// The larger of two bit patterns.
    fn larger(a: Self::Bits, b: Self::Bits) -> Self::Bits;
}

macro_rules! real {
    ($real:ident, $bits:ident, $rounder:ident, $draw_bits:literal) => {
        #[doc = concat!("A format's constants as bits and values of `", stringify!($real), "`.")]
        #[derive(Clone, Copy)]
        pub struct $rounder {
            /// Largest finite value.
            largest: $real,
            /// What magnitudes are limited to: the largest value, or the one that would follow it where overflow
            /// shows.
            ceiling: $real,
            /// What becomes of a magnitude that overflows.
            beyond: $real,
            /// Bits of the power of two at or below the largest value.
            highest_binade: $bits,
            /// Bits of the smallest normal value, 2^(1 - bias), whose step the subnormals share.
            lowest_binade: $bits,
            /// What takes the bits of 2^e to those of the number whose unit in the last place is the format's step in
            /// the binade of 2^e.
            magic_offset: $bits,
            /// The sign bit if the format has a negative zero, else 0: what a zero result keeps of its sign.
            zero_sign: $bits,
            /// Number of fraction bits that the real has and the format lacks.
            shift: u32,
            /// Number of fraction bits that the real has and a code, with the zeros below its mantissa, lacks.
            code_shift: u32,
            /// The number whose unit in the last place is what one more in a byte means among the subnormals.
            subnormal_magic: $real,
            /// What a normal value's bits, shifted right by `code_shift`, exceed its code by.
            code_offset: $bits,
            /// Number of the zeros below the mantissa of a code.
            padding: u32,
            /// 1 if the last bit of an exponent field differs between the real and the format.
            parity: $bits,
        }

        impl $rounder {
            const SIGN: $bits = 1 << ($bits::BITS - 1);
            const FRACTION_BITS: u32 = $real::MANTISSA_DIGITS - 1;
            const EXPONENT: $bits = $real::INFINITY.to_bits();

            /// A number in [0, 1) from the upper bits of a draw, exact.
            #[inline(always)]
            fn uniform(draw: u32) -> $real {
                const STEP: $real = 1.0 / (1u64 << $draw_bits) as $real;
                (draw >> (u32::BITS - $draw_bits)) as $real * STEP
            }
        }

        impl Real for $real {
            type Bits = $bits;
            type Rounder = $rounder;

            fn is_power_of_two(rounder: &$rounder) -> bool {
                rounder.shift == $rounder::FRACTION_BITS
            }

            fn rounder(format: Fp8, overflow: Overflow) -> $rounder {
                let mantissa_bits = u32::from(format.mantissa_bits());
                let shift = $rounder::FRACTION_BITS - mantissa_bits;
                let padding = u32::from(format.padding());
                let (code_shift, code_mantissa_bits) = (shift - padding, mantissa_bits + padding);
                let exponent_bias = $real::MAX_EXP - 1;
                let exponent_field = |exponent: i32| (exponent + exponent_bias) as $bits;
                let lowest_binade = exponent_field(format.min_exponent()) << $rounder::FRACTION_BITS;
                let magic_offset = (shift as $bits) << $rounder::FRACTION_BITS;
                let largest = format.largest_finite() as $real;
                let beyond = format.overflow_value(overflow) as $real;
                let highest_binade = (largest.to_bits() & $rounder::EXPONENT).max(lowest_binade);
                let step = $real::from_bits(highest_binade - ((mantissa_bits as $bits) << $rounder::FRACTION_BITS));
                $rounder {
                    largest,
                    ceiling: if beyond == largest { largest } else { largest + step },
                    beyond,
                    highest_binade,
                    lowest_binade,
                    magic_offset,
                    zero_sign: if format.has_negative_zero() { $rounder::SIGN } else { 0 },
                    shift,
                    code_shift,
                    subnormal_magic: $real::from_bits(
                        lowest_binade + ((code_shift as $bits) << $rounder::FRACTION_BITS),
                    ),
                    code_offset: (lowest_binade >> code_shift) - (1 << code_mantissa_bits),
                    padding,
                    parity: (exponent_field(format.min_exponent()) - 1) & 1,
                }
            }

            #[inline(always)]
            fn round(self, rounder: &$rounder) -> $real {
                let magnitude = self.abs();
                // `min` would turn NaN into the largest value; the comparison lets it pass.
                let clamped = if magnitude > rounder.ceiling { rounder.ceiling } else { magnitude };
                let magic = $real::from_bits(rounder.binade(clamped) + rounder.magic_offset);
                let rounded = (clamped + magic) - magic;
                rounder.finish(rounded, self)
            }

            #[inline(always)]
            fn round_to_power_of_two(self, rounder: &$rounder) -> $real {
                let magnitude = self.abs();
                let clamped = if magnitude > rounder.ceiling { rounder.ceiling } else { magnitude };
                let bits = clamped.to_bits();
                let odd = ((bits >> $rounder::FRACTION_BITS) ^ rounder.parity) & 1;
                let half = 1 << ($rounder::FRACTION_BITS - 1);
                let nearest = $real::from_bits((bits + (half - 1) + odd) & $rounder::EXPONENT);
                let lowest = $real::from_bits(rounder.lowest_binade);
                let below = if clamped > lowest * 0.5 { lowest } else { 0.0 };
                let rounded = if clamped < lowest { below } else { nearest };
                rounder.finish(if clamped.is_nan() { clamped } else { rounded }, self)
            }

            #[inline(always)]
            fn round_stochastically(self, rounder: &$rounder, draw: u32) -> $real {
                let magnitude = self.abs();
                let clamped = if magnitude > rounder.ceiling { rounder.ceiling } else { magnitude };
                let binade = rounder.binade(clamped);
                let step = binade - ((($rounder::FRACTION_BITS - rounder.shift) as $bits) << $rounder::FRACTION_BITS);
                // Both are powers of two, so their exponent fields add up to twice the bias.
                let per_step = $real::from_bits((2 * $real::to_bits(1.0)) - step);
                let (step, magic) = ($real::from_bits(step), $real::from_bits(binade + rounder.magic_offset));
                let nearest = (clamped + magic) - magic;
                let below = if nearest > clamped { nearest - step } else { nearest };
                // Exact: the difference is a multiple of the last place of `clamped`, and the factor a power of two.
                let fraction = (clamped - below) * per_step;
                let rounded = if fraction > $rounder::uniform(draw) { below + step } else { below };
                rounder.finish(rounded, self)
            }

            #[inline(always)]
            fn code(self, rounder: &$rounder, beyond: u8) -> u8 {
                let magnitude = self.abs();
                let bits = magnitude.to_bits();
                let normal = (bits >> rounder.code_shift).wrapping_sub(rounder.code_offset);
                let subnormal = (magnitude + rounder.subnormal_magic).to_bits();
                let code = if bits < rounder.lowest_binade { subnormal } else { normal } as u8 & 0x7F;
                let code = if magnitude <= rounder.largest { code } else { beyond };
                let sign = (self.to_bits() >> ($bits::BITS - 8)) as u8 & 0x80;
                code | sign
            }

            #[inline(always)]
            fn code_of_nearest(self, rounder: &$rounder) -> u8 {
                let magnitude = self.abs();
                let clamped = if magnitude > rounder.ceiling { rounder.ceiling } else { magnitude };
                let binade = rounder.binade(clamped);
                let magic = binade + rounder.magic_offset;
                // The sum's bits exceed those of the summand by a number of steps of the binade; a code also counts
                // the steps of the binades below, and every binade has the same number of steps. The ceiling of a
                // format with specials is one step beyond its largest value, and the code after the largest is that
                // of infinity, or else that of NaN.
                let steps = (clamped + $real::from_bits(magic)).to_bits().wrapping_sub(magic);
                let code = steps.wrapping_add((binade - rounder.lowest_binade) >> rounder.shift) << rounder.padding;
                let kept = if code == 0 { rounder.zero_sign } else { $rounder::SIGN };
                (code | (self.to_bits() & kept) >> ($bits::BITS - 8)) as u8
            }

            #[inline(always)]
            fn divide(self, scale: f32) -> $real {
                self / scale as $real
            }

            #[inline(always)]
            fn multiply(self, scale: f32) -> $real {
                self * scale as $real
            }

            #[inline(always)]
            fn is_nan(self) -> bool {
                $real::is_nan(self)
            }

            #[inline(always)]
            fn is_finite(self) -> bool {
                $real::is_finite(self)
            }

            #[inline(always)]
            fn is_infinite(self) -> bool {
                $real::is_infinite(self)
            }

            #[inline(always)]
            fn from_f32(value: f32) -> $real {
                value as $real
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }

            #[inline(always)]
            fn magnitude_bits(self) -> $bits {
                self.to_bits() & !$rounder::SIGN
            }

            #[inline(always)]
            fn from_bits(bits: $bits) -> $real {
                $real::from_bits(bits)
            }

            #[inline(always)]
            fn larger(a: $bits, b: $bits) -> $bits {
                a.max(b)
            }
        }

        impl $rounder {
            /// Bits of the power of two at or below a magnitude, from which the step between the format's values
            /// follows. Next to a number whose unit in the last place is that step, addition rounds to a multiple of
            /// the step, ties to an even one, and taking the number away again is exact.
            #[inline(always)]
            fn binade(&self, magnitude: $real) -> $bits {
                (magnitude.to_bits() & Self::EXPONENT).max(self.lowest_binade).min(self.highest_binade)
            }

            #[inline(always)]
            fn finish(&self, rounded: $real, signed: $real) -> $real {
                self.with_sign_of(if rounded > self.largest { self.beyond } else { rounded }, signed)
            }

            #[inline(always)]
            fn with_sign_of(&self, magnitude: $real, signed: $real) -> $real {
                let kept = if magnitude == 0.0 { self.zero_sign } else { Self::SIGN };
                $real::from_bits(magnitude.to_bits() | (signed.to_bits() & kept))
            }
        }
    };
}

real!(f32, u32, RounderF32, 24);
real!(f64, u64, RounderF64, 32);
