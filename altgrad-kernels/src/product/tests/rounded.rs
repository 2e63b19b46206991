//! Products of floats that count as rounded to bf16.

use half::bf16;

use super::*;

/// What rounding to bf16 changes a number by at most, relative to it: it keeps 8 bits.
const HALF_ULP_OF_BF16: f64 = 1.0 / 256.0;

/// The nearest value of bf16, ties to even, by arithmetic on the bits of a finite number.
fn nearest(value: f32) -> f32 {
    let bits = value.to_bits();
    let (kept, rest) = (bits >> 16, bits & 0xFFFF);
    let up = rest > 0x8000 || rest == 0x8000 && kept % 2 == 1;
    f32::from_bits((kept + u32::from(up)) << 16)
}

/// Checks the product of `x` rounded, as it is and transposed, against the sums of rounded and of other values.
fn check_rounded(x: &[f32], b: &Operand, what: &str) {
    let (n, k) = b.blocks.shape();
    let m = x.len().checked_div(k).unwrap_or_default();
    let near: Vec<f32> = x.iter().copied().map(nearest).collect();
    let of_rounded = Exact::new((m, n, k), &wide(&near), &b.values());
    let of_others = Exact::new((m, n, k), &wide(x), &b.values());
    let turned = turned(x, m, k);
    for x in [FloatMatrix::new(x, m, k), FloatMatrix::new(&turned, k, m).transposed()] {
        on_every_path(&Lhs::RoundedFloats(x), b, |c, path| {
            let what = format!("{what}, {path}");
            of_rounded.check(c, &what);
            // Of the bound for sums there is a little more, as rounded values may be larger.
            let sums = 2.0 * k as f64 * HALF_ULP * (1.0 + HALF_ULP_OF_BF16);
            of_others.check_within(c, sums + HALF_ULP_OF_BF16, 0.0, &what);
        });
    }
}

#[test]
fn rounded_floats_by_blocks_of_all_kinds() {
    for (number, (m, n, k)) in
        [(1, 1, 1), (7, 67, 37), (3, 5, 300), (13, 64, 512), (2, 130, 513), (5, 3, 1027), (6, 63, 0), (1, 64, 2)]
            .into_iter()
            .enumerate()
    {
        for (block, (_, format)) in BLOCKS.into_iter().zip(Fp8::NAMED.into_iter().cycle().skip(number)) {
            let random = &mut Random::new(number);
            let b = Operand::finite(format, (n, k), block, random);
            check_rounded(&floats(m * k, random), &b, &format!("{format} by {block:?}"));
        }
    }
}

#[test]
fn every_format() {
    for (name, format) in Fp8::NAMED {
        let random = &mut Random::new(5);
        let b = Operand::finite(format, (66, 97), (ALL, ALL), random);
        check_rounded(&floats(7 * 97, random), &b, name);
    }
}

#[test]
fn ties_go_to_even() {
    // One code for 1, so that each row of the result is the rounded float itself.
    let one = Fp8::E4M3.encode(1.0).unwrap();
    let mut b = Operand::new(Fp8::E4M3, (3, 1), (ALL, ALL), &mut Random::new(0), |_| one);
    b.scales = vec![1.0];
    let mut x = Vec::new();
    for kept in [0x3F80_u32, 0x3F81, 0x3FFF, 0xBF80, 0xC0FF, 0x0080, 0x7F7E, 0x4000, 0x4001] {
        for rest in [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF] {
            x.push(f32::from_bits(kept << 16 | rest));
        }
    }
    let expected: Vec<f32> = x.iter().flat_map(|value| [nearest(*value); 3]).collect();
    // The portable rounding is that of the `half` crate as well, beyond the largest number too.
    assert!(x.iter().all(|value| bf16::from_f32(*value).to_f32() == nearest(*value)));
    on_every_path(&Lhs::RoundedFloats(FloatMatrix::new(&x, x.len(), 1)), &b, |c, path| {
        assert_eq!(c, expected, "{path}");
    });
}

#[test]
fn specials_stay_what_they_are() {
    let one = Fp8::E4M3.encode(1.0).unwrap();
    let mut b = Operand::new(Fp8::E4M3, (65, 3), (ALL, ALL), &mut Random::new(0), |_| one);
    b.scales = vec![1.0];
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7F80_0001), f32::MAX, f32::MIN] {
        for place in 0..3 {
            let mut x = vec![1.0; 7 * 3];
            x[3 * 4 + place] = special;
            on_every_path(&Lhs::RoundedFloats(FloatMatrix::new(&x, 7, 3)), &b, |c, path| {
                for (at, found) in c.iter().enumerate() {
                    // The largest number of `f32` is nearer to infinity than to the largest of bf16.
                    let expected = if at / 65 != 4 {
                        3.0
                    } else if special.is_nan() {
                        f32::NAN
                    } else {
                        special * f32::INFINITY
                    };
                    let is_right = *found == expected || found.is_nan() && expected.is_nan();
                    assert!(is_right, "{special} at {place}, {path}: {found} at {at}");
                }
            });
        }
    }
}
