//! The element types of tensors that can be quantized, and the precision that each is computed in.

use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

use crate::memory;
use crate::round::Real;

impl sealed::Sealed for f32 {}
impl sealed::Sealed for f64 {}
impl sealed::Sealed for f16 {}
impl sealed::Sealed for bf16 {}

/// So that no other type can implement [`Scalar`].
mod sealed {
    pub trait Sealed {}
}

/// What kernels need of an element type of tensors: the precision that it is computed in, and conversion to and from
/// that precision.
pub trait Scalar: sealed::Sealed + Copy + Default + Send + Sync + 'static {
    /// The type that quotients and products are rounded to.
    type Real: Real;

    /// The same value.
    fn widen(self) -> Self::Real;

    /// The nearest value, ties to even.
    fn narrow(value: Self::Real) -> Self;

    /// `len` zeros, for results.
    fn zeroed(len: usize) -> Vec<Self>;
}

macro_rules! computes_in_itself {
    ($type:ty) => {
        impl Scalar for $type {
            type Real = $type;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }

            #[inline(always)]
            fn narrow(value: Self) -> Self {
                value
            }

            fn zeroed(len: usize) -> Vec<Self> {
                memory::zeroed(len)
            }
        }
    };
}

computes_in_itself!(f32);
computes_in_itself!(f64);

/// The bits of an `f32`, as a `u32`: its sign, and everything else.
const SIGN: u32 = 1 << 31;
const MAGNITUDE: u32 = !SIGN;

impl Scalar for bf16 {
    type Real = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let odd = (bits >> 16) & 1;
        let nearest = (bits.wrapping_add(0x7FFF + odd)) >> 16;
        // A NaN keeps its upper bits and becomes quiet.
        let nan = bits >> 16 | 0x0040;
        Self::from_bits(if value.is_nan() { nan } else { nearest } as u16)
    }

    fn zeroed(len: usize) -> Vec<Self> {
        memory::zeroed::<u16>(len).reinterpret_into()
    }
}

impl Scalar for f16 {
    type Real = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        /// The difference between the exponent fields of the two types.
        const OFFSET: u32 = (127 - 15) << 23;
        /// The step of the subnormals, 2⁻²⁴.
        const STEP: f32 = 1.0 / (1 << 24) as f32;
        let bits = u32::from(self.to_bits());
        let magnitude = bits & 0x7FFF;
        let normal = (magnitude << 13) + OFFSET;
        let subnormal = (magnitude as i32 as f32 * STEP).to_bits();
        let quiet = if magnitude > 0x7C00 { 1 << 22 } else { 0 };
        let special = (normal + OFFSET) | quiet;
        let finite = if magnitude < 0x0400 { subnormal } else { normal };
        f32::from_bits(if magnitude < 0x7C00 { finite } else { special } | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        /// The smallest normal value of `f16`, 2⁻¹⁴.
        const LOWEST: u32 = (127 - 14) << 23;
        /// The number whose unit in the last place is the step of the subnormals.
        const MAGIC: f32 = 0.5;
        let bits = value.to_bits() & MAGNITUDE;
        let odd = (bits >> 13) & 1;
        // Rounding up past the largest value carries into the exponent, up to that of infinity or past it.
        let normal = ((bits + 0x0FFF + odd).wrapping_sub((127 - 15) << 23) >> 13).min(0x7C00);
        let subnormal = (f32::from_bits(bits) + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits());
        let nan = 0x7E00 | (bits >> 13 & 0x03FF);
        let number = if bits < LOWEST { subnormal } else { normal };
        let magnitude = if value.is_nan() { nan } else { number };
        Self::from_bits((magnitude | (value.to_bits() & SIGN) >> 16) as u16)
    }

    fn zeroed(len: usize) -> Vec<Self> {
        memory::zeroed::<u16>(len).reinterpret_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_to_what_the_half_crate_says() {
        for bits in 0..=u16::MAX {
            let (short, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert_eq!(short.widen().to_bits(), short.to_f32().to_bits(), "f16 {bits:04X}");
            // A signalling NaN stays one, to become quiet in the next operation.
            let (widened, expected) = (brain.widen(), brain.to_f32());
            assert!(widened.to_bits() == expected.to_bits() || brain.is_nan() && widened.is_nan(), "bf16 {bits:04X}");
            assert_eq!(f16::narrow(short.widen()).to_bits(), short.to_bits() | quiet(short.is_nan(), 0x0200));
            assert_eq!(bf16::narrow(brain.widen()).to_bits(), brain.to_bits() | quiet(brain.is_nan(), 0x0040));
        }
    }

    fn quiet(is_nan: bool, bit: u16) -> u16 {
        if is_nan { bit } else { 0 }
    }

    #[test]
    fn floats_narrow_to_what_the_half_crate_says() {
        // Around every midpoint and every value of both types, and numbers in between.
        let near = (0..=u16::MAX).flat_map(|upper| {
            let lower = [0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001, 0x7FFF, 0x8000, 0x8001, 0xFFFF];
            lower.map(|lower| u32::from(upper) << 16 | lower)
        });
        for bits in near.chain((0..=u32::MAX).step_by(4099)) {
            let value = f32::from_bits(bits);
            assert_eq!(f16::narrow(value).to_bits(), f16::from_f32(value).to_bits(), "f16 of {bits:08X}");
            assert_eq!(bf16::narrow(value).to_bits(), bf16::from_f32(value).to_bits(), "bf16 of {bits:08X}");
        }
    }
}
