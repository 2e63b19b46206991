//! Products with fewer elements than sums of blocks, whose elements are scaled one by one.

use super::*;
use crate::product::{Dot, Product, RunScaling};

/// Codes under powers of two of many sizes. Some blocks hold zeros alone, under the scale that E8M0 gives those.
fn under_powers_of_two(format: Fp8, shape: (usize, usize), block: (usize, usize), random: &mut Random) -> Operand {
    let mut operand = Operand::finite(format, shape, block, random);
    for (number, scale) in operand.scales.iter_mut().enumerate() {
        *scale = 2f32.powi(random.below(41) as i32 - 20);
        if number % 7 == 3 {
            *scale = f32::from_bits(1 << 22);
        }
    }
    let of_each: Vec<f32> = operand.scale_of_each().collect();
    let zeros = operand.codes.iter_mut().zip(of_each).filter(|(_, scale)| scale.is_subnormal());
    zeros.for_each(|(code, _)| *code = if format.specials() == crate::Specials::Fnuz { 0 } else { *code & 0x80 });
    operand
}

/// How the product of two operands is computed.
fn choice(level: Level, a: &Operand, b: &Operand) -> (Dot, RunScaling) {
    let rhs = Rhs::Codes(b.view());
    let product = Product::new(level, &Lhs::Codes(a.view()), &rhs);
    (product.dot, product.scaling)
}

#[test]
fn many_short_blocks() {
    let formats = [Fp8::E4M3, Fp8::E5M2, Fp8::E4M3_FNUZ, Fp8::E3M4, Fp8::E1M6];
    for (number, format) in formats.into_iter().enumerate() {
        // The last of the runs that are decoded at a time is short, and so is the last block.
        for (m, n, k) in [(129, 130, 96), (150, 67, 1100), (65, 200, 75)] {
            let random = &mut Random::new(number * k);
            let [a, b] = [m, n].map(|rows| under_powers_of_two(format, (rows, k), (1, 32), random));
            check_products(&a, &floats(m * k, random), &b, &format!("{format}, {m} × {n} × {k}"));
            let c = Operand::finite(format, (n, k), (1, 32), random);
            check_products(&a, &floats(m * k, random), &c, &format!("{format}, any scales, {m} × {n} × {k}"));
        }
    }
}

#[test]
fn pairs_are_scaled_by_powers_of_two_alone() {
    let random = &mut Random::new(0);
    let shape = (200, 256);
    let powers = under_powers_of_two(Fp8::E4M3, shape, (1, 32), random);
    let others = Operand::finite(Fp8::E4M3, shape, (1, 32), random);
    // A scale out of the range of bf16's products, for a block that is not all zeros.
    let mut tiny = powers.clone();
    tiny.scales[5] = 2f32.powi(-125);
    for level in Level::available() {
        let dot = if level.has_pairs() { Dot::Pairs } else { Dot::Singles };
        assert_eq!(choice(level, &powers, &powers), (dot, RunScaling::Done), "{level}");
        assert_eq!(choice(level, &powers, &powers.turned()).0, dot, "{level}");
        let of_others = if level.has_pairs() { RunScaling::Single } else { RunScaling::Done };
        assert_eq!(choice(level, &powers, &others), (dot, of_others), "{level}");
        assert_eq!(choice(level, &powers, &tiny), (dot, RunScaling::Double), "{level}");
    }
}
