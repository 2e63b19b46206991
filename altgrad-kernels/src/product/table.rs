//! The values of a format's codes as bf16, which holds all of them exactly, in the shapes that kernels look them up in.

use half::bf16;

use crate::format::{Fp8, Specials};

/// The value of every byte as a code of a format, times a power of two.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The bits of each byte's value as bf16.
    pub(super) values: [u16; 256],
    /// The upper and lower bytes of the values of the codes without a sign bit.
    pub(super) upper: [u8; 128],
    pub(super) lower: [u8; 128],
    /// Whether the value of a code with the sign bit is the negative of that without, for all codes.
    pub(super) is_symmetric: bool,
    /// How to get values through half precision, for formats with at most as many exponent bits.
    pub(super) half: Option<Half>,
}

/// How the bits of a code become those of a number of half precision: a code in the upper byte of a word, the word
/// shifted right with its sign and masked, is the code's value divided by `factor`, subnormal numbers included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Half {
    pub(super) shift: i32,
    pub(super) mask: u16,
    pub(super) factor: f32,
    /// Codes above this one (without the sign bit) mean something else in half precision.
    pub(super) largest_code: u8,
}

impl Table {
    /// The values of `format` times `2^-fold`, which must leave them within the range of bf16's normal numbers.
    pub(super) fn new(format: Fp8, fold: i32) -> Self {
        let factor = f64::from(-fold).exp2();
        let mut values = [0; 256];
        for (code, value) in (0..=u8::MAX).zip(&mut values) {
            *value = bf16::from_f64(f64::from(format.decode(code)) * factor).to_bits();
        }
        let (mut upper, mut lower) = ([0; 128], [0; 128]);
        for ((value, upper), lower) in values.iter().zip(&mut upper).zip(&mut lower) {
            [*lower, *upper] = value.to_le_bytes();
        }
        // Only the FNUZ formats have NaN where negative zero would be.
        Self { values, upper, lower, is_symmetric: format.specials() != Specials::Fnuz, half: Half::new(format, fold) }
    }
}

impl Half {
    fn new(format: Fp8, fold: i32) -> Option<Self> {
        // Half precision has 5 exponent bits with a bias of 15, and 10 mantissa bits.
        let exponent = 15 - i32::from(format.bias()) - fold;
        if format.exponent_bits() > 5 || !(-126..=127).contains(&exponent) {
            return None;
        }
        let shift = i32::from(format.mantissa_field()) - 2;
        let mask = 0x8000 | 0x7F << (10 - format.mantissa_field());
        let factor = f32::from_bits(((exponent + 127) as u32) << 23);
        // With 5 exponent bits, codes with all of them set are infinity or NaN in half precision, regardless of the
        // format.
        let largest_code = format.largest_finite_byte().min(if format.exponent_bits() == 5 { 0x7B } else { 0x7F });
        Some(Self { shift, mask, factor, largest_code })
    }
}

#[cfg(test)]
mod tests {
    use super::Table;
    use crate::Fp8;

    #[test]
    fn every_value_is_exact_in_bf16() {
        for (name, format) in Fp8::NAMED {
            let table = Table::new(format, 0);
            for (code, value) in (0..=u8::MAX).map(|code| (code, format.decode(code))) {
                let found = f32::from_bits(u32::from(table.values[usize::from(code)]) << 16);
                assert!(found == value || found.is_nan() && value.is_nan(), "{name} {code:#x}: {found} for {value}");
            }
        }
    }
}
