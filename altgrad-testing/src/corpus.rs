//! Inputs at which rounding goes wrong if it goes wrong anywhere.

use super::Oracle;

/// Every value, every midpoint and what lies beside them in `f32`; powers of two, zeros, subnormals, infinities, NaN.
pub fn f32s(oracle: &Oracle) -> Vec<f32> {
    let mut bits: Vec<u32> = Vec::new();
    for point in oracle.points() {
        let near = (point as f32).to_bits();
        bits.extend([-0x1000, -0x100, -1, 0, 1, 0x100, 0x1000].map(|ulps| near.saturating_add_signed(ulps)));
    }
    bits.extend((0..=0xFF).map(|field: u32| field << 23));
    let largest = oracle.largest() as f32;
    for exponent in 0..=24 {
        let fraction = 2f32.powi(-exponent);
        bits.extend([largest * (1.0 - fraction), largest * (1.0 + fraction)].map(f32::to_bits));
    }
    bits.extend([0, 1, 2, 0x0012_3456, 0x003F_FFFF, 0x0040_0000, 0x007F_FFFF, 0x0080_0001]);
    bits.extend([0x7F7F_FFFF, 0x7F80_0000, 0x7F80_0001, 0x7FAB_CDEF, 0x7FC0_0000, 0x7FFF_FFFF]);
    bits.retain(|bits| *bits >> 31 == 0);
    bits.sort_unstable();
    bits.dedup();
    bits.iter().flat_map(|bits| [f32::from_bits(*bits), f32::from_bits(*bits | 1 << 31)]).collect()
}

/// As [`f32s`], with what lies beside each point in `f64`: nearer than any `f32` but for the point itself.
pub fn f64s(oracle: &Oracle) -> Vec<f64> {
    let mut values: Vec<f64> = f32s(oracle).into_iter().map(f64::from).collect();
    for point in oracle.points() {
        let bits = point.to_bits();
        let near = [-1 << 20, -1, 1, 1 << 20].map(|ulps| f64::from_bits(bits.saturating_add_signed(ulps)));
        values.extend(near.into_iter().flat_map(|value| [value, -value]));
    }
    let beyond = [5e-324, 1e-310, f64::MIN_POSITIVE, 1e-300, 2f64.powi(-150), 2f64.powi(128), 1e300, f64::MAX];
    values.extend(beyond.into_iter().flat_map(|value| [value, -value]));
    values.extend([f64::from_bits(0x7FF0_0000_0000_0001), f64::from_bits(0xFFFF_FFFF_FFFF_FFFF)]);
    values
}
