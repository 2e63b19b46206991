//! How 8, 6 or 4 bits represent a number: [`Fp8`] as data, and the constants that hardware and papers use.

mod codec;
mod text;

pub(crate) use codec::power_of_two;

use serde::{Deserialize, Serialize};

use crate::{FormatError, Result};

/// What a format does with bit patterns that are not ordinary finite numbers.
///
/// The names follow the usual suffixes of 8-bit formats: IEEE 754, "FN" (finite, with NaN) and "FNUZ" (finite, with
/// NaN, unsigned zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Specials {
    /// Every code is a finite number.
    None,
    /// NaN where all seven magnitude bits are set (`S.1111.111`), no infinities: the OCP E4M3 ("FN") convention.
    NanOnly,
    /// Infinities and NaN wherever all exponent bits are set, as IEEE 754 does.
    Ieee,
    /// One NaN in the place of negative zero (code `0x80`), no infinities, no negative zero ("FNUZ").
    Fnuz,
}

/// What [`Fp8::encode_with`] does with a magnitude that rounds to more than the largest finite value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overflow {
    /// The largest finite value of the same sign, for infinities too.
    #[default]
    Saturate,
    /// Infinity if the format has it, otherwise NaN if the format has it, otherwise as [`Overflow::Saturate`].
    Special,
}

/// What a `Quantizer` does with infinities, and so with a tensor that is not finite.
///
/// A conversion that saturates maps ±∞ to the largest value (OCP 8-bit Floating Point Specification 1.0, section
/// 5.2.1), and [`Fp8::encode`] and the kernels do so by default. In a model this would hide what happened: a loss
/// scaler, for example, waits for gradients that are not finite. So a quantizer, and with it a layer, propagates them
/// by default.
///
/// What is not finite in the end depends on where the scale of the operand comes from; a "block" is the elements that
/// share a scale:
///
/// | ∞ or NaN in an operand of a product, and scales | `Propagate` | `Saturate` |
/// |---|---|---|
/// | from that tensor: `Current`, `Window` | all of its block | its NaN; ∞ saturates |
/// | known before: `Static`, `Delayed` | the element | its NaN; ∞ saturates |
/// | none: full precision | the element | the element |
///
/// The loss of a whole block agrees with torchao (448/∞ = 0, ∞·0 = NaN) and with the NaN scale of OCP Microscaling;
/// saturation under a known scale agrees with Transformer Engine. Where ∞ saturates in a tensor that its scale comes
/// from, the scale is made from the history, or is 1 if the history is empty.
///
/// With `Y = Q(X)·Q(W)ᵀ`, `dX = Q(dY)·Q(W)` and `dW = Q(dY)ᵀ·Q(X)` exactly the following is not finite under
/// `Propagate`, the default of every named recipe and of a format alone:
///
/// | recipe | ∞ or NaN in `X[t, i]` | in `W[o, i]` | in `dY[t, o]` |
/// |---|---|---|---|
/// | a format (weights only) | `Y[t, :]`, `dW[:, i]` | `Y`, `dX` | `dX[t, :]`, `dW[o, :]` |
/// | `tensorwise` | `Y`, `dW` | `Y`, `dX` | `dX`, `dW` |
/// | `rowwise`, `mxfp8`, `hybrid` | `Y[t, :]`, `dW[:, i]` | `Y[:, o]`, `dX[:, i]` | `dX[t, :]`, `dW[o, :]` |
/// | `blockwise` | `Y[t, :]`, `dW[:, i]` | `Y` of the block's outputs, `dX` of its inputs | `dX[t, :]`, `dW[o, :]` |
///
/// Histories ignore such steps in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Infinity {
    /// Everything that depends on an infinity is not finite. The infinity itself stays one in a format that has
    /// infinities, and becomes NaN in others.
    #[default]
    Propagate,
    /// An infinity becomes the largest value of the same sign, or what [`Overflow`] says. NaN stays NaN.
    Saturate,
}

/// A floating-point format of 8, 6 or 4 bits: one sign bit, `exponent_bits + mantissa_bits` magnitude bits, a bias and
/// its [`Specials`].
///
/// With `e` the exponent field, `f` the mantissa field and `m` the number of mantissa bits, a code stands for
///
/// - `f × 2^(1 - bias - m)` if `e = 0` (zero and the subnormals; every code of a format without exponent bits),
/// - `(2^m + f) × 2^(e - bias - m)` otherwise,
///
/// which is the encoding of the OCP 8-bit Floating Point Specification (OFP8, revision 1.0, table 1) with the field
/// widths as parameters. Every value of every format that [`Fp8::new`] accepts is exact in `f32`, `f64` and `bf16`.
///
/// A code takes one byte in every format. A code of fewer than 8 bits takes the upper bits of the byte, and the other
/// bits are 0: a code `c` of the 4 bits of E2M1 is the byte `c << 4`, one of the 6 bits of E2M3 is `c << 2`. The byte
/// is therefore also the code of the same value in the format of 8 bits with the same exponent field and bias, which
/// is E2M5 for both, so decoding and multiplying codes need not distinguish the two. A byte that is not a code has
/// the value that it has in that format of 8 bits.
///
/// ```
/// use altgrad::Fp8;
///
/// assert_eq!(Fp8::E4M3.largest_finite(), 448.0);
/// assert_eq!(Fp8::E4M3.encode(1.0f32), Some(0x38));
/// assert_eq!(Fp8::E4M3.decode(0x38), 1.0);
/// assert_eq!(Fp8::E5M2.to_string(), "E5M2");
/// assert_eq!("e5m2_fnuz".parse::<Fp8>()?, Fp8::E5M2_FNUZ);
///
/// let values: Vec<f32> = Fp8::E2M1.values().map(|(_, value)| value).collect();
/// assert_eq!(values[..8], [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
/// assert_eq!(Fp8::E2M1.encode(3.0f32), Some(0x5 << 4));
/// # Ok::<(), altgrad::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fp8 {
    exponent_bits: u8,
    mantissa_bits: u8,
    bias: i16,
    specials: Specials,
}

impl Fp8 {
    /// Fixed point in steps of 2⁻⁷ up to 127/128.
    pub const E0M7: Self = Self::from_fields(0, 1, Specials::None);
    /// One exponent bit, bias 0; largest value 2·(1 + 63/64).
    pub const E1M6: Self = Self::from_fields(1, 0, Specials::None);
    /// Two exponent bits, bias 1; largest value 4·(1 + 31/32).
    pub const E2M5: Self = Self::from_fields(2, 1, Specials::None);
    /// Three exponent bits, bias 3; largest value 31.
    pub const E3M4: Self = Self::from_fields(3, 3, Specials::None);
    /// OCP E4M3 (`float8_e4m3fn`): bias 7, NaN but no infinities; largest value 448.
    pub const E4M3: Self = Self::from_fields(4, 7, Specials::NanOnly);
    /// OCP E5M2 (`float8_e5m2`): bias 15, infinities and NaN as IEEE 754; largest value 57344.
    pub const E5M2: Self = Self::from_fields(5, 15, Specials::Ieee);
    /// Six exponent bits, bias 31; largest value 1.5·2³².
    pub const E6M1: Self = Self::from_fields(6, 31, Specials::None);
    /// Zero and the powers of two from 2⁻⁶² to 2⁶⁴.
    pub const E7M0: Self = Self::from_fields(7, 63, Specials::None);
    /// `float8_e4m3fnuz` (AMD MI300, Graphcore): bias 8; largest value 240.
    pub const E4M3_FNUZ: Self = Self::from_fields(4, 8, Specials::Fnuz);
    /// `float8_e5m2fnuz` (AMD MI300, Graphcore): bias 16; largest value 57344.
    pub const E5M2_FNUZ: Self = Self::from_fields(5, 16, Specials::Fnuz);
    /// `float8_e4m3b11fnuz`: bias 11; largest value 30.
    pub const E4M3_B11_FNUZ: Self = Self::from_fields(4, 11, Specials::Fnuz);
    /// `float8_e4m3` of `ml_dtypes`: E4M3 with infinities and NaN as IEEE 754; largest value 240.
    pub const E4M3_IEEE: Self = Self::from_fields(4, 7, Specials::Ieee);
    /// `float8_e3m4` of `ml_dtypes`: E3M4 with infinities and NaN as IEEE 754; largest value 15.5.
    pub const E3M4_IEEE: Self = Self::from_fields(3, 3, Specials::Ieee);
    /// OCP MX FP6 E2M3 (`float6_e2m3fn`), 6 bits: bias 1, every code a finite number; largest value 7.5.
    pub const E2M3: Self = Self::narrow(2, 3, 1);
    /// OCP MX FP6 E3M2 (`float6_e3m2fn`), 6 bits: bias 3, every code a finite number; largest value 28.
    pub const E3M2: Self = Self::narrow(3, 2, 3);
    /// OCP MX FP4 (`float4_e2m1fn`), 4 bits: bias 1, every code a finite number; largest value 6.
    pub const E2M1: Self = Self::narrow(2, 1, 1);

    /// Every named format with the name that [`Display`](std::fmt::Display) prints and
    /// [`FromStr`](std::str::FromStr) reads.
    pub const NAMED: [(&'static str, Self); 16] = [
        ("E0M7", Self::E0M7),
        ("E1M6", Self::E1M6),
        ("E2M5", Self::E2M5),
        ("E3M4", Self::E3M4),
        ("E4M3", Self::E4M3),
        ("E5M2", Self::E5M2),
        ("E6M1", Self::E6M1),
        ("E7M0", Self::E7M0),
        ("E4M3_FNUZ", Self::E4M3_FNUZ),
        ("E5M2_FNUZ", Self::E5M2_FNUZ),
        ("E4M3_B11_FNUZ", Self::E4M3_B11_FNUZ),
        ("E4M3_IEEE", Self::E4M3_IEEE),
        ("E3M4_IEEE", Self::E3M4_IEEE),
        ("E2M3", Self::E2M3),
        ("E3M2", Self::E3M2),
        ("E2M1", Self::E2M1),
    ];

    /// A format of 8 bits.
    const fn from_fields(exponent_bits: u8, bias: i16, specials: Specials) -> Self {
        Self { exponent_bits, mantissa_bits: 7 - exponent_bits, bias, specials }
    }

    /// A format of 6 or 4 bits.
    const fn narrow(exponent_bits: u8, mantissa_bits: u8, bias: i16) -> Self {
        Self { exponent_bits, mantissa_bits, bias, specials: Specials::None }
    }

    /// A format of your own.
    ///
    /// A format without exponent bits is fixed point in steps of `2^(1 - bias - mantissa_bits)`.
    ///
    /// # Errors
    ///
    /// [`FormatError::InvalidFormat`] if the bits do not add up to 7, 5 or 3 (the sign is one more); if a format of 6
    /// or 4 bits is to have other [`Specials`] than [`Specials::None`]; if [`Specials::Ieee`] leaves no finite value
    /// or no NaN (it needs an exponent bit and a mantissa bit); or if the bias puts values out of the range in which
    /// normal numbers of `f32` can hold and round them.
    pub fn new(exponent_bits: u8, mantissa_bits: u8, bias: i16, specials: Specials) -> Result<Self> {
        let invalid = |why: String| Err(FormatError::InvalidFormat { why });
        let Some(magnitude_bits @ (7 | 5 | 3)) = exponent_bits.checked_add(mantissa_bits) else {
            return invalid(format!(
                "{exponent_bits} exponent bits and {mantissa_bits} mantissa bits must add up to 7, 5 or 3: \
                 with the sign that is a format of 8, 6 or 4 bits"
            ));
        };
        if magnitude_bits < 7 && specials != Specials::None {
            return invalid(format!(
                "`Specials::{specials:?}` needs 8 bits, but this format has {}; use `Specials::None`",
                magnitude_bits + 1
            ));
        }
        if specials == Specials::Ieee && (exponent_bits == 0 || mantissa_bits == 0) {
            return invalid(format!(
                "`Specials::Ieee` needs an exponent bit and a mantissa bit to spell infinity and NaN, \
                 but this format has {exponent_bits} and {mantissa_bits}; use another `Specials`"
            ));
        }
        let format = Self { exponent_bits, mantissa_bits, bias, specials };
        // The lowest step of any byte must be a normal `f32`, and so must 2^23 times the highest step of the codes,
        // which the kernels add and subtract to round.
        let lowest = i32::from(bias) <= 1 + 126 - i32::from(format.mantissa_field());
        let highest = format.exponent_of_code(0x7F) + 23 - i32::from(mantissa_bits) <= 127;
        if !(lowest && highest) {
            let top_field = (1i32 << exponent_bits) - 1;
            return invalid(format!(
                "bias {bias} puts values out of the range of f32; with {exponent_bits} exponent bits it may be {} to \
                 {}",
                top_field.max(1) - 104 - i32::from(mantissa_bits),
                127 - i32::from(format.mantissa_field()),
            ));
        }
        Ok(format)
    }

    /// Number of bits of a code, the sign included: 8, 6 or 4.
    #[must_use]
    pub const fn bits(self) -> u8 {
        1 + self.exponent_bits + self.mantissa_bits
    }

    /// Number of exponent bits.
    #[must_use]
    pub const fn exponent_bits(self) -> u8 {
        self.exponent_bits
    }

    /// Number of mantissa bits, the hidden bit not counted.
    #[must_use]
    pub const fn mantissa_bits(self) -> u8 {
        self.mantissa_bits
    }

    /// Exponent bias: an exponent field `e > 0` stands for `2^(e - bias)`.
    #[must_use]
    pub const fn bias(self) -> i16 {
        self.bias
    }

    /// Which special values the format has.
    #[must_use]
    pub const fn specials(self) -> Specials {
        self.specials
    }

    /// Whether the format has a code for NaN.
    #[must_use]
    pub const fn has_nan(self) -> bool {
        !matches!(self.specials, Specials::None)
    }

    /// Whether the format has codes for infinities.
    #[must_use]
    pub const fn has_infinity(self) -> bool {
        matches!(self.specials, Specials::Ieee)
    }

    /// Whether negative zero has a code of its own.
    #[must_use]
    pub const fn has_negative_zero(self) -> bool {
        !matches!(self.specials, Specials::Fnuz)
    }

    /// The canonical (positive, quiet) NaN code, if the format has one.
    #[must_use]
    pub const fn nan_code(self) -> Option<u8> {
        match self.specials {
            Specials::None => None,
            Specials::NanOnly => Some(0x7F),
            Specials::Ieee => Some(self.infinity_magnitude() | 1 << (self.mantissa_field() - 1)),
            Specials::Fnuz => Some(0x80),
        }
    }

    /// The code of +∞, if the format has one.
    #[must_use]
    pub const fn infinity_code(self) -> Option<u8> {
        if self.has_infinity() { Some(self.infinity_magnitude()) } else { None }
    }

    /// The code of the largest finite value.
    #[must_use]
    pub const fn largest_finite_code(self) -> u8 {
        match self.specials {
            Specials::None | Specials::Fnuz => (0x7F << self.padding()) & 0x7F,
            Specials::NanOnly => 0x7E,
            Specials::Ieee => self.infinity_magnitude() - 1,
        }
    }

    /// The largest finite value.
    #[must_use]
    pub const fn largest_finite(self) -> f32 {
        self.decode(self.largest_finite_code())
    }

    /// The midpoint between the largest finite value and the one that would follow it: smaller magnitudes round to a
    /// finite value, larger ones overflow.
    #[doc(hidden)]
    #[must_use]
    pub const fn overflow_midpoint(self) -> f32 {
        let code = self.largest_finite_code();
        let step = power_of_two(self.exponent_of_code(code) - self.mantissa_bits as i32);
        self.decode(code) + 0.5 * step
    }

    /// Whether the midpoint itself overflows: ties go to the code with an even last bit.
    #[doc(hidden)]
    #[must_use]
    pub const fn overflow_midpoint_overflows(self) -> bool {
        (self.largest_finite_code() >> self.padding()) % 2 == 1
    }

    /// What becomes of a positive number that overflows.
    #[doc(hidden)]
    #[must_use]
    pub const fn overflow_value(self, overflow: Overflow) -> f32 {
        match overflow {
            Overflow::Special if self.has_infinity() => f32::INFINITY,
            Overflow::Special if self.has_nan() => f32::NAN,
            Overflow::Saturate | Overflow::Special => self.largest_finite(),
        }
    }

    /// The smallest value above zero.
    #[must_use]
    pub const fn smallest_positive(self) -> f32 {
        self.decode(1 << self.padding())
    }

    /// The smallest value with a full mantissa, `2^(1 - bias)`; `None` for a format whose finite values are all
    /// subnormal: one without exponent bits, or with one exponent bit and [`Specials::Ieee`].
    #[must_use]
    pub const fn smallest_normal(self) -> Option<f32> {
        let code = 1 << self.mantissa_field();
        if code <= self.largest_finite_code() { Some(self.decode(code)) } else { None }
    }

    /// All codes with their values, in the order of the codes: 256 of them, 64 in a format of 6 bits, 16 in one of 4.
    #[must_use]
    pub fn values(self) -> impl ExactSizeIterator<Item = (u8, f32)> {
        // A `u16` range knows its length, an inclusive `u8` range does not.
        (0..1u16 << self.bits()).map(move |number| {
            let code = (number << self.padding()) as u8;
            (code, self.decode(code))
        })
    }

    /// Number of the lower bits of a byte that are 0 in every code.
    #[doc(hidden)]
    #[must_use]
    pub const fn padding(self) -> u8 {
        8 - self.bits()
    }

    /// Number of the bits of a byte below the exponent field: the mantissa and the padding. Decoding treats all of
    /// them as mantissa, so that a byte that is not a code has a value as well.
    pub(crate) const fn mantissa_field(self) -> u8 {
        7 - self.exponent_bits
    }

    /// The largest byte without a sign bit that stands for a finite value, whether it is a code or not.
    pub(crate) const fn largest_finite_byte(self) -> u8 {
        self.largest_finite_code() | ((1 << self.padding()) - 1)
    }

    /// All exponent bits set, no mantissa bit: +∞ under [`Specials::Ieee`].
    const fn infinity_magnitude(self) -> u8 {
        (0x7F << self.mantissa_field()) & 0x7F
    }
}
