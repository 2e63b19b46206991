//! The values of codes, without branches or tables.

use crate::format::{Fp8, power_of_two};

/// A format's constants, as decoding needs them.
#[derive(Clone, Copy)]
pub(super) struct Decoder {
    /// Number of fraction bits that `f32` has and a byte lacks.
    shift: u32,
    /// The difference between the bits of a normal value and its code shifted left by `shift`.
    offset: u32,
    /// The first magnitude of a normal value.
    lowest_normal: u32,
    /// The step of the subnormals.
    step: f32,
    /// The magnitude of infinity; above all others if there is none.
    infinity: u32,
    /// What is added to a code so that the codes of NaN come last: 0, or the number that takes a NaN in the place of
    /// negative zero to 0xFF.
    turn: u32,
    /// The bits of that sum that count: those of the magnitude, or all eight.
    counted: u32,
    /// The last sum that is not that of a NaN.
    last_number: u32,
}

impl Decoder {
    pub(super) fn new(format: Fp8) -> Self {
        const NONE: u32 = 1 << 8;
        let mantissa_bits = u32::from(format.mantissa_field());
        let fraction_bits = f32::MANTISSA_DIGITS - 1;
        let (turn, counted, last_number) = if format.has_negative_zero() {
            (0, 0x7F, format.infinity_code().unwrap_or(format.largest_finite_byte()))
        } else {
            (0x7F, 0xFF, 0xFE)
        };
        Self {
            shift: fraction_bits - mantissa_bits,
            offset: power_of_two(format.min_exponent()).to_bits() - (1 << fraction_bits),
            lowest_normal: 1 << mantissa_bits,
            step: power_of_two(format.min_exponent() - mantissa_bits as i32),
            infinity: format.infinity_code().map_or(NONE, u32::from),
            turn,
            counted,
            last_number: last_number.into(),
        }
    }

    /// The value of a code, as [`Fp8::decode`] gives it.
    #[inline(always)]
    pub(super) fn value(&self, code: u8) -> f32 {
        let code = u32::from(code);
        let magnitude = code & 0x7F;
        let normal = (magnitude << self.shift).wrapping_add(self.offset);
        let subnormal = (magnitude as i32 as f32 * self.step).to_bits();
        let finite = if magnitude < self.lowest_normal { subnormal } else { normal };
        let number = if magnitude == self.infinity { f32::INFINITY.to_bits() } else { finite };
        let is_nan = (code.wrapping_add(self.turn) & self.counted) > self.last_number;
        f32::from_bits(if is_nan { f32::NAN.to_bits() } else { number } | (code & 0x80) << 24)
    }
}

#[cfg(test)]
mod tests {
    use super::Decoder;
    use crate::tests::format_of;
    use altgrad_testing::{CUSTOM, CUSTOM_GOLDEN, NAMED};

    #[test]
    fn every_byte_of_every_format_has_its_value() {
        for format in NAMED.into_iter().chain(CUSTOM_GOLDEN).chain(CUSTOM).map(format_of) {
            let decoder = Decoder::new(format);
            for (code, value) in (0..=u8::MAX).map(|code| (code, format.decode(code))) {
                assert_eq!(decoder.value(code).to_bits(), value.to_bits(), "{format} {code:02X}");
            }
        }
    }
}
