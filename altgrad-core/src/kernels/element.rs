//! The element types of tensors that can be quantized, and the precision that each is computed in.

use candle_core::WithDType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::round::Real;

/// An element type: `f32` and `f64` compute in themselves, `f16` and `bf16` in `f32`, which holds them exactly.
pub(crate) trait Element: WithDType + Default {
    /// The type that quotients and products are rounded to.
    type Real: Real;

    /// Converts without loss; both slices have the same length.
    fn widen(from: &[Self], to: &mut [Self::Real]);

    /// Converts to the nearest value, ties to even; both slices have the same length.
    fn narrow(from: &[Self::Real], to: &mut [Self]);

    /// Whether the type is its own `Real`: then the slice as such, else `None`.
    fn as_real(values: &[Self]) -> Option<&[Self::Real]>;

    /// As [`as_real`](Self::as_real), mutable.
    fn as_real_mut(values: &mut [Self]) -> Option<&mut [Self::Real]>;
}

macro_rules! computes_in_itself {
    ($type:ty) => {
        impl Element for $type {
            type Real = $type;

            fn widen(from: &[Self], to: &mut [Self]) {
                to.copy_from_slice(from);
            }

            fn narrow(from: &[Self], to: &mut [Self]) {
                to.copy_from_slice(from);
            }

            fn as_real(values: &[Self]) -> Option<&[Self]> {
                Some(values)
            }

            fn as_real_mut(values: &mut [Self]) -> Option<&mut [Self]> {
                Some(values)
            }
        }
    };
}

macro_rules! computes_in_f32 {
    ($type:ty) => {
        impl Element for $type {
            type Real = f32;

            fn widen(from: &[Self], to: &mut [f32]) {
                from.convert_to_f32_slice(to);
            }

            fn narrow(from: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(from);
            }

            fn as_real(_: &[Self]) -> Option<&[f32]> {
                None
            }

            fn as_real_mut(_: &mut [Self]) -> Option<&mut [f32]> {
                None
            }
        }
    };
}

computes_in_itself!(f32);
computes_in_itself!(f64);
computes_in_f32!(f16);
computes_in_f32!(bf16);
