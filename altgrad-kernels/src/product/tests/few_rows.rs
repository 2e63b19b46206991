//! Products of few rows, whose codes are decoded on the way into the sums: by widening, where all codes allow it.

use super::*;

/// Codes of normal numbers, and as many others as there are in `others`, anywhere.
fn weights(format: Fp8, (n, k): (usize, usize), others: &[u8], random: &mut Random) -> Operand {
    // A format without exponents has subnormal numbers alone.
    let smallest = if format.exponent_bits() == 0 { 0 } else { 1u8 << format.mantissa_field() };
    let is_normal = |code: &u8| format.decode(*code).is_finite() && code & 0x7F >= smallest;
    let normal: Vec<u8> = (0..=u8::MAX).filter(is_normal).collect();
    let mut b = Operand::new(format, (n, k), (1, ALL), random, |random| normal[random.below(normal.len())]);
    for other in others {
        let place = random.below(b.codes.len());
        b.codes[place] = *other;
    }
    b
}

#[test]
fn every_format_with_and_without_subnormal_codes() {
    for (number, (name, format)) in Fp8::NAMED.into_iter().enumerate() {
        let random = &mut Random::new(number);
        let subnormals = vec![1; 700];
        for others in [&[][..], &[1, 0, 0x81], &subnormals] {
            for (m, n, k) in [(1, 64, 300), (2, 129, 33), (3, 70, 513), (4, 65, 258), (5, 64, 64)] {
                let b = weights(format, (n, k), others, random);
                let a = Operand::finite(Fp8::E4M3, (m, k), (1, ALL), random);
                let what = format!("{name} with {} other codes", others.len());
                check_products(&a, &floats(m * k, random), &b, &what);
            }
        }
    }
}

#[test]
fn values_at_the_ends_of_the_range() {
    let random = &mut Random::new(7);
    for (number, (name, format)) in Fp8::NAMED.into_iter().enumerate() {
        for exponent in [-126, -60, 0, 60, 110] {
            let (m, n, k) = (1 + number % 4, 66, 130);
            let b = weights(format, (n, k), &[1], random);
            let x: Vec<f32> = floats(m * k, random).iter().map(|x| x * 2f32.powi(exponent)).collect();
            let exact = Exact::new((m, n, k), &wide(&x), &b.values());
            let lhs = Lhs::Floats(FloatMatrix::new(&x, m, k));
            on_every_path(&lhs, &b, |c, path| exact.check(c, &format!("{name}, 2^{exponent}, {path}")));
        }
    }
}

#[test]
fn one_special_code_among_all() {
    for (name, format) in Fp8::NAMED {
        let specials: Vec<u8> = (0..=u8::MAX).filter(|code| !format.decode(*code).is_finite()).collect();
        for special in specials {
            let random = &mut Random::new(usize::from(special));
            let (m, n, k) = (2, 65, 131);
            let b = weights(format, (n, k), &[special], random);
            let a = Operand::finite(Fp8::E4M3, (m, k), (1, ALL), random);
            check_products(&a, &floats(m * k, random), &b, &format!("{name} with {special:#x}"));
        }
    }
}
