//! NaN and infinities in operands, at every place of a tile, a panel and a run, and beside their ends.

use super::*;

/// In the last a run of one element follows one that fills the buffers, of which nothing must be left.
const SHAPES: [(usize, usize, usize); 6] = [(7, 67, 9), (1, 1, 3), (3, 65, 35), (6, 64, 64), (2, 5, 513), (2, 64, 513)];

/// Codes that are not finite.
fn specials(format: Fp8) -> Vec<u8> {
    format.values().filter(|(_, value)| !value.is_finite()).map(|(code, _)| code).collect()
}

/// Places of a side: beside its ends, and one between them.
fn places(side: usize) -> impl Iterator<Item = usize> {
    let mut places = vec![0, 1.min(side - 1), side / 2, side.saturating_sub(2), side - 1];
    places.sort_unstable();
    places.dedup();
    places.into_iter()
}

#[test]
fn every_special_code_on_either_side() {
    for (name, format) in Fp8::NAMED.into_iter().filter(|(_, format)| format.has_nan()) {
        let specials = specials(format);
        for (number, (m, n, k)) in SHAPES.into_iter().enumerate() {
            let mut special = specials.iter().copied().cycle();
            for (place, block) in places(k).zip(BLOCKS.into_iter().cycle().skip(number)) {
                let random = &mut Random::new(place);
                let a = Operand::finite(format, (m, k), (ALL, ALL), random);
                let b = Operand::finite(format, (n, k), block, random);
                let x = floats(m * k, random);
                let (mut a_special, mut b_special) = (a.clone(), b.clone());
                places(m).zip(&mut special).for_each(|(row, code)| a_special.codes[row * k + place] = code);
                places(n).zip(&mut special).for_each(|(row, code)| b_special.codes[row * k + place] = code);
                let what = format!("{name} at {place}, blocks {block:?}");
                check_products(&a_special, &x, &b, &what);
                check_products(&a, &x, &b_special, &what);
                check_products(&a_special, &x, &b_special, &what);
            }
        }
    }
}

#[test]
fn infinities_of_both_signs_and_zeros() {
    // ∞ − ∞ and ∞ · 0 are NaN, ∞ times anything else is not; nothing of this leaks to other elements.
    let format = Fp8::E5M2;
    let [infinity, zero, one] =
        [f32::INFINITY, 0.0, 1.0].map(|value| format.values().find(|(_, found)| *found == value).unwrap().0);
    for k in [1, 2, 3, 16, 33, 130, 257, 514] {
        let random = &mut Random::new(k);
        let any = |random: &mut Random| {
            let code = if random.below(k) > 1 { one } else { [infinity, zero, one][random.below(3)] };
            code | [0, 0x80][random.below(2)]
        };
        for block in [(ALL, ALL), (1, 32), (1, 3)] {
            let [a, b] = [13, 70].map(|rows| Operand::new(format, (rows, k), block, random, any));
            let x: Vec<f32> = a.codes.iter().map(|code| format.decode(*code)).collect();
            check_products(&a, &x, &b, &format!("blocks {block:?}"));
        }
    }
}

#[test]
fn one_special_float_in_a_left_operand() {
    for (m, n, k) in SHAPES {
        let random = &mut Random::new(k);
        let a = Operand::finite(Fp8::E4M3, (m, k), (ALL, ALL), random);
        let mut b = Operand::finite(Fp8::E4M3, (n, k), (1, 32), random);
        // Zeros of both signs, at which infinities become NaN.
        b.codes.iter_mut().step_by(5).for_each(|code| *code &= 0x80);
        for special in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0xFF80_0001)] {
            for (row, place) in places(m).zip(places(k).collect::<Vec<_>>().into_iter().rev().cycle()) {
                let mut x = floats(m * k, random);
                x[row * k + place] = special;
                check_products(&a, &x, &b, &format!("{special} at {row}, {place}"));
            }
        }
    }
}

#[test]
fn a_scale_that_is_nan_on_either_side() {
    for (m, n, k) in SHAPES {
        for (number, block) in BLOCKS.into_iter().enumerate() {
            let random = &mut Random::new(number);
            let a = Operand::finite(Fp8::E4M3, (m, k), block, random);
            let b = Operand::finite(Fp8::E5M2, (n, k), block, random);
            let x = floats(m * k, random);
            for place in places(a.scales.len()) {
                let mut a = a.clone();
                a.scales[place] = f32::NAN;
                check_products(&a, &x, &b, &format!("lhs scale {place}, blocks {block:?}"));
            }
            for place in places(b.scales.len()) {
                let mut b = b.clone();
                b.scales[place] = f32::NAN;
                check_products(&a, &x, &b, &format!("rhs scale {place}, blocks {block:?}"));
            }
        }
    }
}

#[test]
fn zeros_of_both_signs() {
    // A sum of zeros is a zero, whatever their signs: tested with the scales' units far from 1.
    let b = Operand::new(Fp8::E4M3, (65, 33), (1, 32), &mut Random::new(1), |random| 0x80 & random.next() as u8);
    let a = Operand::finite(Fp8::E5M2, (7, 33), (1, 3), &mut Random::new(2));
    check_products(&a, &floats(7 * 33, &mut Random::new(3)), &b, "zeros");
}
