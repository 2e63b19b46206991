//! The values of a format's codes as bf16, which holds all of them exactly, in the shapes that kernels look them up in.

use half::bf16;

use crate::format::{Fp8, Specials};

/// The value of every code of a format, times a power of two.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The bits of each code's value as bf16.
    pub(super) values: [u16; 256],
    /// The upper and lower bytes of the values of the codes without a sign bit.
    pub(super) upper: [u8; 128],
    pub(super) lower: [u8; 128],
    /// Whether the value of a code with the sign bit is the negative of that without, for all codes.
    pub(super) is_symmetric: bool,
}

impl Table {
    /// The values of `format` times `2^-fold`, which must leave them within the range of bf16's normal numbers.
    pub(super) fn new(format: Fp8, fold: i32) -> Self {
        let factor = f32::from_bits(((127 - fold) as u32) << 23);
        let mut values = [0; 256];
        for (code, value) in format.values() {
            values[usize::from(code)] = bf16::from_f32(value * factor).to_bits();
        }
        let (mut upper, mut lower) = ([0; 128], [0; 128]);
        for ((value, upper), lower) in values.iter().zip(&mut upper).zip(&mut lower) {
            [*lower, *upper] = value.to_le_bytes();
        }
        // Only the FNUZ formats spell NaN where negative zero would be.
        Self { values, upper, lower, is_symmetric: format.specials() != Specials::Fnuz }
    }

    /// The value of a code as `f32`.
    pub(super) fn value(&self, code: u8) -> f32 {
        f32::from_bits(u32::from(self.values[usize::from(code)]) << 16)
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
            for (code, value) in format.values() {
                let found = table.value(code);
                assert!(found == value || found.is_nan() && value.is_nan(), "{name} {code:#x}: {found} for {value}");
            }
        }
    }
}
