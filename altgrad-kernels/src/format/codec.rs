//! The one codec of all formats, written for clarity: the specification that every faster path is tested against.

use super::{Fp8, Overflow, Specials};

impl Fp8 {
    /// The value of `code`, exact.
    ///
    /// In a format of fewer than 8 bits, the bits that are 0 in every code count as further bits of the mantissa.
    #[must_use]
    pub const fn decode(self, code: u8) -> f32 {
        let magnitude = code & 0x7F;
        let negative = code & 0x80 != 0;
        let value = match self.specials {
            Specials::NanOnly if magnitude == 0x7F => f32::NAN,
            Specials::Fnuz if code == 0x80 => f32::NAN,
            Specials::Ieee if magnitude == self.infinity_magnitude() => f32::INFINITY,
            Specials::Ieee if magnitude > self.infinity_magnitude() => f32::NAN,
            _ => {
                let mantissa = (magnitude & ((1 << self.mantissa_field()) - 1)) as u32;
                let hidden_bit = if self.exponent_field(magnitude) == 0 { 0 } else { 1 << self.mantissa_field() };
                let step = self.exponent_of_code(magnitude) - self.mantissa_field() as i32;
                (hidden_bit + mantissa) as f32 * power_of_two(step)
            }
        };
        if negative { -value } else { value }
    }

    /// The code nearest to `value`, ties to the code with an even last bit, overflow saturated; see
    /// [`encode_with`](Self::encode_with).
    ///
    /// `None` only if `value` is NaN and the format has no NaN.
    #[must_use]
    pub fn encode(self, value: impl Into<f64>) -> Option<u8> {
        self.encode_with(value, Overflow::Saturate)
    }

    /// The code nearest to `value`, ties to the code with an even last bit.
    ///
    /// Rounds once, from the exact `value`: `f16`, `bf16` and `f32` convert to `f64` without loss. The sign of zero is
    /// kept where the format has a negative zero; NaN gives [`nan_code`](Self::nan_code).
    ///
    /// `None` only if `value` is NaN and the format has no NaN.
    ///
    /// ```
    /// use altgrad::{Fp8, Overflow};
    ///
    /// let e5m2 = Fp8::E5M2;
    /// assert_eq!(e5m2.encode_with(1e9, Overflow::Saturate), Some(e5m2.largest_finite_code()));
    /// assert_eq!(e5m2.encode_with(1e9, Overflow::Special), e5m2.infinity_code());
    /// assert_eq!(Fp8::E3M4.encode(f64::NAN), None);
    /// ```
    #[must_use]
    pub fn encode_with(self, value: impl Into<f64>, overflow: Overflow) -> Option<u8> {
        let value: f64 = value.into();
        if value.is_nan() {
            return self.nan_code();
        }
        let sign = if value.is_sign_negative() { 0x80 } else { 0 };
        let magnitude = self.encode_magnitude(value.abs());
        if magnitude > u32::from(self.largest_finite_code()) {
            return Some(match (overflow, self.infinity_code(), self.nan_code()) {
                (Overflow::Special, Some(infinity), _) => sign | infinity,
                (Overflow::Special, None, Some(nan)) => sign | nan,
                (Overflow::Saturate, ..) | (Overflow::Special, None, None) => sign | self.largest_finite_code(),
            });
        }
        let keeps_sign = magnitude != 0 || self.has_negative_zero();
        Some(if keeps_sign { sign } else { 0 } | magnitude as u8)
    }

    /// The magnitude bits of the nearest value, as if the exponent field had no upper end: on overflow they are above
    /// [`largest_finite_code`](Self::largest_finite_code).
    fn encode_magnitude(self, value: f64) -> u32 {
        // A subnormal `f64` lies below every format and may count as 2^-1023 here.
        let min_exponent = self.min_exponent();
        let exponent = ((value.to_bits() >> 52) as i32 - 1023).max(min_exponent);
        if exponent > 127 {
            return u32::MAX;
        }
        // Codes count the steps between neighbouring values: 2^m of them in the subnormals and in each binade.
        let binade = (exponent - min_exponent) as u32;
        let steps = value / f64::from(power_of_two(exponent - i32::from(self.mantissa_bits)));
        let floor = (binade << self.mantissa_bits) + steps as u32;
        let rest = steps.fract();
        let up = rest > 0.5 || (rest == 0.5 && floor % 2 == 1);
        (floor + u32::from(up)) << self.padding()
    }

    /// Exponent of the smallest normal value, which the subnormals share.
    #[doc(hidden)]
    #[must_use]
    pub const fn min_exponent(self) -> i32 {
        1 - self.bias as i32
    }

    const fn exponent_field(self, magnitude: u8) -> u8 {
        // A shift by 7 is in range for `u8`; there is no format with 8 mantissa bits.
        magnitude >> self.mantissa_field()
    }

    /// Exponent of the binade that the code lies in.
    pub(super) const fn exponent_of_code(self, magnitude: u8) -> i32 {
        let field = self.exponent_field(magnitude) as i32;
        (if field == 0 { 1 } else { field }) - self.bias as i32
    }
}

/// 2 to the power of `exponent`, which must lie in the normal range of `f32`.
pub(crate) const fn power_of_two(exponent: i32) -> f32 {
    debug_assert!(-126 <= exponent && exponent <= 127, "not a normal f32 exponent");
    f32::from_bits(((exponent + 127) as u32) << 23)
}
