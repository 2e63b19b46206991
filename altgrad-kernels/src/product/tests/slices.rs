//! Operands and results that start anywhere in memory: nothing beside them is written, and nothing beside them matters.

use super::*;

/// Elements after what is multiplied.
const AFTER: usize = 67;

/// `elements` from the place `offset` of a larger vector on, between others.
fn between<E: Copy>(elements: &[E], offset: usize, other: E) -> Vec<E> {
    let others = |count: usize| std::iter::repeat_n(other, count);
    others(offset).chain(elements.iter().copied()).chain(others(AFTER)).collect()
}

/// What is between.
fn inner<E>(elements: &[E], offset: usize) -> &[E] {
    &elements[offset..elements.len() - AFTER]
}

/// Codes and scales among NaN, which would show in a result.
fn among_nan(codes: &Operand, offset: usize) -> (Vec<u8>, Vec<f32>) {
    (between(&codes.codes, offset, 0x7F), between(&codes.scales, offset, f32::NAN))
}

/// Checks that a result does not depend on `offset`, and that nothing beside it is written.
fn check_offset(offset: usize, lhs: &Lhs<'_>, rhs: &Rhs<'_>, expected: &[f32], level: Level) {
    let guard = 12345.0;
    let mut c = between(&vec![f32::NAN; expected.len()], offset, guard);
    multiply(level, lhs, rhs, &mut c[offset..][..expected.len()]);
    assert!(c == between(expected, offset, guard), "{level}, all moved by {offset}");
}

fn check_every_offset((m, n, k): (usize, usize, usize), block: (usize, usize)) {
    let random = &mut Random::new(n);
    let [a, b] = [m, n].map(|rows| Operand::finite(Fp8::E4M3, (rows, k), block, random));
    let x = floats(m * k, random);
    for (a, b) in [(a.clone(), b.clone()), (a.turned(), b.turned())] {
        for level in Level::available() {
            let (mut of_codes, mut of_floats) = (vec![0.0; m * n], vec![0.0; m * n]);
            let matrix = FloatMatrix::new(&x, m, k);
            multiply(level, &Lhs::Codes(a.view()), &Rhs::Codes(b.view()), &mut of_codes);
            multiply(level, &Lhs::Floats(matrix), &Rhs::Codes(b.view()), &mut of_floats);
            for offset in 0..64 {
                let [(a_codes, a_scales), (b_codes, b_scales)] = [&a, &b].map(|codes| among_nan(codes, offset));
                let view = |of: &Operand, codes, scales| {
                    let view = CodeMatrix::new(inner(codes, offset), of.format, of.blocks, inner(scales, offset));
                    if of.transposed { view.transposed() } else { view }
                };
                let values = between(&x, offset, f32::NAN);
                let rhs = Rhs::Codes(view(&b, &b_codes, &b_scales));
                check_offset(offset, &Lhs::Codes(view(&a, &a_codes, &a_scales)), &rhs, &of_codes, level);
                let lhs = Lhs::Floats(FloatMatrix::new(inner(&values, offset), m, k));
                check_offset(offset, &lhs, &rhs, &of_floats, level);
            }
        }
    }
}

#[test]
fn everything_at_every_offset() {
    for (shape, block) in
        [((7, 67, 37), (1, 32)), ((2, 64, 64), (1, ALL)), ((1, 3, 530), (ALL, 128)), ((1, 70, 5), (3, 2))]
    {
        check_every_offset(shape, block);
    }
}
