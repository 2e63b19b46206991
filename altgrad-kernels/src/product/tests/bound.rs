//! The bound of products for formats, scales and blocks of all kinds.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::Specials;

#[test]
fn every_pair_of_formats() {
    let shapes = [(7, 67, 83), (3, 5, 300), (13, 64, 32), (1, 130, 17)];
    let pairs = Fp8::NAMED.into_iter().flat_map(|a| Fp8::NAMED.map(|b| (a, b)));
    for (number, ((a_name, a_format), (b_name, b_format))) in pairs.enumerate() {
        let random = &mut Random::new(number);
        let (m, n, k) = shapes[number % shapes.len()];
        let blocks = [0, number / 3].map(|shift| BLOCKS[(number + shift) % BLOCKS.len()]);
        let a = Operand::finite(a_format, (m, k), blocks[0], random);
        let b = Operand::finite(b_format, (n, k), blocks[1], random);
        check_products(&a, &floats(m * k, random), &b, &format!("{a_name} {b_name} {blocks:?}"));
    }
}

#[test]
fn every_code_against_every_code() {
    // Sums of one product, of codes on both sides: that is exact but for the two scales.
    for (name, format) in Fp8::NAMED {
        let random = &mut Random::new(0);
        let [mut a, b] = [0, 1].map(|_| {
            let mut code = 0..=u8::MAX;
            Operand::new(format, (256, 1), (ALL, ALL), random, |_| code.next().unwrap())
        });
        check_products(&a, &floats(256, random), &b, name);
        (a.scales, a.format) = (vec![1.0], Fp8::E5M2);
        check_products(&a, &floats(256, random), &b, name);
    }
}

#[test]
fn long_sums_of_one_sign() {
    // Where errors of addition grow the most.
    for k in [512, 5000, 40_001] {
        let random = &mut Random::new(k);
        let codes = |random: &mut Random| 0x30 | random.next() as u8 & 0xF;
        let [a, b] = [2, 3].map(|rows| Operand::new(Fp8::E4M3, (rows, k), (1, 128), random, codes));
        let x: Vec<f32> = (0..2 * k).map(|_| random.significand()).collect();
        check_products(&a, &x, &b, "one sign");
    }
}

#[test]
fn sums_that_cancel() {
    // The second half of each row is the first with the other sign, but for its last element.
    let k = 1026;
    let random = &mut Random::new(3);
    let [mut a, mut b] = [5, 66].map(|rows| Operand::finite(Fp8::E4M3, (rows, k), (1, ALL), random));
    for row in a.codes.chunks_mut(k) {
        let (first, second) = row.split_at_mut(k / 2);
        second.copy_from_slice(first);
    }
    for row in b.codes.chunks_mut(k) {
        let (first, second) = row.split_at_mut(k / 2);
        second.iter_mut().zip(first).for_each(|(to, from)| *to = *from ^ 0x80);
        row[k - 1] = 1;
    }
    let x: Vec<f32> = a.rounded();
    check_products(&a, &x, &b, "cancelling");
}

fn formats() -> impl Strategy<Value = Fp8> {
    let specials = select(vec![Specials::None, Specials::NanOnly, Specials::Ieee, Specials::Fnuz]);
    let custom = (0u8..=7, -20i16..=40, specials)
        .prop_filter_map("not a format", |(bits, bias, specials)| Fp8::new(bits, 7 - bits, bias, specials).ok());
    let narrow = (select(vec![5u8, 3]), 0u8..=5, -20i16..=40).prop_filter_map("not a format", |(sum, bits, bias)| {
        Fp8::new(bits, sum.checked_sub(bits)?, bias, Specials::None).ok()
    });
    prop_oneof![select(Fp8::NAMED.map(|(_, format)| format).to_vec()), custom, narrow]
}

fn blocks() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![select(BLOCKS.to_vec()), (1usize..80, 1usize..80), (1usize..4, 1usize..600)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_operands(
        (m, n, k) in prop_oneof![(0usize..20, 0usize..140, 0usize..80), (0usize..9, 0usize..70, 0usize..1100)],
        (a_format, b_format) in (formats(), formats()),
        (a_block, b_block) in (blocks(), blocks()),
        seed in 0usize..1 << 30,
    ) {
        let random = &mut Random::new(seed);
        let a = Operand::finite(a_format, (m, k), a_block, random);
        let b = Operand::finite(b_format, (n, k), b_block, random);
        let what = format!("{a_format:?} by {a_block:?}, {b_format:?} by {b_block:?}");
        check_products(&a, &floats(m * k, random), &b, &what);
    }
}
