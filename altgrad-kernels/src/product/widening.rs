//! How codes become single values by widening alone, without a table: as bits of a shorter float.
//!
//! A code in the upper byte of a 16-bit word, shifted right with its sign and masked, is the code's value times a power
//! of two in half precision, or in bf16. Subnormal codes become subnormal numbers there, so no code is a special case
//! but those of NaN and infinity. The power of two goes to the left operand's values, which have room for it.

use super::plan::ExponentRange;
use crate::format::{Fp8, Specials};

/// How codes become single values, and what the values of the left operand and the sums are multiplied by for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widening {
    pub(super) through: Short,
    /// Bits that a word with the code in its upper byte is shifted right by.
    pub(super) shift: i32,
    /// Bits of the shifted word that are kept.
    pub(super) mask: u16,
    /// Factor of the left operand's values.
    pub(super) before: f32,
    /// Factor of sums.
    pub(super) after: f32,
}

/// The shorter float that codes are widened through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// Half precision, which an instruction widens, subnormal numbers included.
    Half,
    /// bf16, which is the upper half of a single value. Subnormal codes become subnormal single values, which some
    /// processors multiply a hundred times slower than others.
    Brain,
}

/// What kinds of codes a matrix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Census {
    /// None stands for NaN or an infinity.
    all_finite: bool,
    /// So few are subnormal that it does not matter how slow these are.
    few_subnormals: bool,
}

impl Census {
    /// Looks at all codes.
    pub(super) fn of(format: Fp8, codes: &[u8]) -> Self {
        let smallest_normal = 1 << format.mantissa_field();
        // Sums of bytes compile to vectors; a chunk's fit in one.
        let count = |chunk: &[u8]| {
            usize::from(
                chunk.iter().fold(0u8, |sum, code| sum + u8::from((code & 0x7F).wrapping_sub(1) < smallest_normal - 1)),
            )
        };
        let subnormals: usize = codes.chunks(255).map(count).sum();
        Self { few_subnormals: subnormals <= codes.len() / 1024, ..Self::of_specials(format, codes) }
    }

    /// Looks for NaN and infinities alone.
    pub(super) fn of_specials(format: Fp8, codes: &[u8]) -> Self {
        let largest = codes.iter().fold(0, |largest, code| (code & 0x7F).max(largest));
        let is_nan = |code: &u8| format.specials() == Specials::Fnuz && *code == 0x80;
        let has_nan = codes.iter().fold(false, |any, code| any | is_nan(code));
        Self { all_finite: largest <= format.largest_finite_byte() && !has_nan, few_subnormals: false }
    }
}

impl Widening {
    /// The fastest way for codes of a format in products with others; `None` if there is none.
    pub(super) fn new(format: Fp8, census: Census, range: ExponentRange) -> Option<Self> {
        if !census.all_finite {
            return None;
        }
        let through = if census.few_subnormals { Short::Brain } else { Short::Half };
        // Of mantissas the room that they have.
        let (exponent_bits, bias, room) = match through {
            Short::Half => (5, 15, 10),
            Short::Brain => (8, 127, 7),
        };
        let is_all_ones = format.exponent_bits() == exponent_bits
            && format.largest_finite_byte() >= 0x7F << format.mantissa_field() & 0x7F;
        if format.exponent_bits() > exponent_bits || is_all_ones {
            return None;
        }
        let (before, after) = range.split(bias - i32::from(format.bias()))?;
        let field = i32::from(format.mantissa_field());
        Some(Self {
            through,
            // The lowest bit of the exponent is bit `8 + field` and becomes bit `room`.
            shift: 8 + field - room,
            mask: 0x8000 | 0x7F << (room - field),
            before: power_of_two(before),
            after: power_of_two(after),
        })
    }
}

/// 2 to a power that a normal number has.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::{Census, Short, Widening};
    use crate::Fp8;
    use crate::product::plan::ExponentRange;

    #[test]
    fn every_finite_code_widens_to_its_value() {
        for (name, format) in Fp8::NAMED {
            let finite = |code: &u8| format.decode(*code).is_finite();
            let codes: Vec<u8> = (0..=u8::MAX).filter(finite).collect();
            let range = ExponentRange::of_floats(1.0, format, 1).unwrap();
            for few_subnormals in [false, true] {
                let census = Census { few_subnormals, ..Census::of_specials(format, &codes) };
                let Some(widening) = Widening::new(format, census, range) else {
                    assert!(format.exponent_bits() > 4 && !few_subnormals, "{name} can be widened");
                    continue;
                };
                for code in &codes {
                    let word = i16::from_be_bytes([*code, 0]) >> widening.shift;
                    let bits = word as u16 & widening.mask;
                    let value = match widening.through {
                        Short::Half => f16::from_bits(bits).to_f32(),
                        Short::Brain => bf16::from_bits(bits).to_f32(),
                    };
                    let value = f64::from(value) * f64::from(widening.before) * f64::from(widening.after);
                    assert_eq!(value as f32, format.decode(*code), "{name} {code:#x} {:?}", widening.through);
                }
            }
        }
    }

    #[test]
    fn specials_are_found_wherever_they_are() {
        for (name, format) in Fp8::NAMED {
            for code in 0..=u8::MAX {
                let codes = [0, code, 0x10];
                let expected = format.decode(code).is_finite();
                assert_eq!(Census::of(format, &codes).all_finite, expected, "{name} {code:#x}");
            }
        }
    }

    #[test]
    fn subnormal_codes_are_counted() {
        for (many, expected) in [(false, true), (true, false)] {
            let mut codes = vec![0x38; 4096];
            codes[..if many { 5 } else { 4 }].fill(0x83);
            assert_eq!(Census::of(Fp8::E4M3, &codes).few_subnormals, expected);
        }
        assert!(Census::of(Fp8::E4M3, &[0, 0x80, 0x08, 0x88]).few_subnormals, "zeros and normal numbers are not");
    }
}
