//! Products without elements, and results that held something else.

use super::*;

#[test]
fn sums_of_nothing_are_zero() {
    for (m, n) in [(1, 1), (7, 65), (6, 64), (3, 200)] {
        let random = &mut Random::new(m);
        for block in [(ALL, ALL), (1, 32), (3, 5)] {
            let (a, b) =
                (Operand::finite(Fp8::E4M3, (m, 0), block, random), Operand::finite(Fp8::E5M2, (n, 0), block, random));
            for lhs in [
                Lhs::Codes(a.view()),
                Lhs::Codes(a.turned().view()),
                Lhs::Floats(FloatMatrix::new(&[], m, 0)),
                Lhs::RoundedFloats(FloatMatrix::new(&[], 0, m).transposed()),
            ] {
                on_every_path(&lhs, &b, |c, path| {
                    assert!(c.len() == m * n && c.iter().all(|sum| sum.to_bits() == 0), "{m} × {n}, {path}");
                });
            }
        }
    }
}

#[test]
fn results_without_elements() {
    for (m, n, k) in [(0, 0, 0), (0, 1, 1), (1, 0, 1), (0, 65, 300), (7, 0, 300), (0, 0, 5)] {
        let random = &mut Random::new(k);
        for block in [(ALL, ALL), (1, 32), (3, 5)] {
            let [a, b] = [m, n].map(|rows| Operand::finite(Fp8::E4M3, (rows, k), block, random));
            check_products(&a, &floats(m * k, random), &b, "nothing");
            let x = floats(m * k, random);
            on_every_path(&Lhs::RoundedFloats(FloatMatrix::new(&x, m, k)), &b, |c, _| assert!(c.is_empty()));
        }
    }
}

#[test]
fn what_the_result_held_does_not_matter() {
    for (m, n, k) in [(7, 67, 9), (1, 130, 600), (13, 64, 1030), (3, 3, 0)] {
        let random = &mut Random::new(k);
        let [a, b] = [m, n].map(|rows| Operand::finite(Fp8::E4M3, (rows, k), (1, 32), random));
        let x = floats(m * k, random);
        let x = FloatMatrix::new(&x, m, k);
        for lhs in [Lhs::Codes(a.view()), Lhs::Floats(x), Lhs::RoundedFloats(x)] {
            for level in Level::available() {
                let results = [f32::NAN, f32::INFINITY, -1e30, 0.0].map(|before| {
                    let mut c = vec![before; m * n];
                    multiply(level, &lhs, &Rhs::Codes(b.view()), &mut c);
                    c.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>()
                });
                assert!(results.iter().all(|result| *result == results[0]), "{level}, {m} × {n} × {k}");
            }
        }
    }
}
