//! Weights in formats of 6 and 4 bits, whose codes are the upper bits of bytes, against values of the tests' own.

use altgrad_testing::{Kind, NAMED, Spec};

use super::*;
use crate::{Conversion, Specials};

fn specs() -> impl Iterator<Item = Spec> {
    let custom =
        |name, exponent_bits, mantissa_bits, bias| Spec { name, exponent_bits, mantissa_bits, bias, kind: Kind::None };
    // Without a mantissa, without an exponent, and biases at both ends of what there can be.
    let custom = [
        custom("E3M0(bias=3, specials=none)", 3, 0, 3),
        custom("E5M0(bias=16, specials=none)", 5, 0, 16),
        custom("E0M3(bias=1, specials=none)", 0, 3, 1),
        custom("E2M1(bias=122, specials=none)", 2, 1, 122),
        custom("E3M2(bias=-99, specials=none)", 3, 2, -99),
    ];
    NAMED.into_iter().filter(|spec| spec.spacing() > 1).chain(custom)
}

fn format_of(spec: Spec) -> Fp8 {
    Fp8::new(spec.exponent_bits, spec.mantissa_bits, spec.bias, Specials::None).unwrap()
}

/// The exact values of an operand, by the definition of its format.
fn values(operand: &Operand, spec: Spec) -> Vec<f64> {
    let values = operand.codes.iter().map(|code| spec.decode(*code));
    values.zip(operand.scale_of_each()).map(|(value, scale)| value * f64::from(scale)).collect()
}

fn check(a: &Operand, x: &[f32], spec: Spec, b: &Operand, what: &str) {
    let ((m, k), (n, _)) = (a.blocks.shape(), b.blocks.shape());
    let exact = Exact::new((m, n, k), &a.values(), &values(b, spec));
    on_every_path(&Lhs::Codes(a.view()), b, |c, path| exact.check(c, &format!("{what}, lhs codes, {path}")));
    let exact = Exact::new((m, n, k), &wide(x), &values(b, spec));
    let lhs = Lhs::Floats(FloatMatrix::new(x, m, k));
    on_every_path(&lhs, b, |c, path| exact.check(c, &format!("{what}, lhs floats, {path}")));
}

#[test]
fn narrow_weights() {
    for (number, spec) in specs().enumerate() {
        let format = format_of(spec);
        let codes: Vec<u8> = spec.codes().collect();
        for ((m, n, k), block) in [(1, 130, 64), (7, 67, 83), (13, 64, 256), (3, 5, 300)].into_iter().zip(BLOCKS) {
            let random = &mut Random::new(number);
            let b = Operand::new(format, (n, k), block, random, |random| codes[random.below(codes.len())]);
            for a_format in [Fp8::E4M3, Fp8::E5M2, format] {
                let a = Operand::finite(a_format, (m, k), (1, 32), random);
                check(&a, &floats(m * k, random), spec, &b, &format!("{a_format} by {}", spec.name));
            }
        }
    }
}

#[test]
fn encoded_weights() {
    // From floats to codes to a product, in blocks of 32 with one scale each.
    let (m, n, k) = (5, 66, 96);
    for spec in specs().filter(|spec| spec.bias.abs() < 20) {
        let random = &mut Random::new(k);
        let w = floats(n * k, random);
        let blocks = Blocks::per_block((n, k), (1, 32));
        let largest = spec.codes().map(|code| spec.decode(code)).fold(0.0, f64::max);
        let scales: Vec<f32> =
            w.chunks(32).map(|w| w.iter().fold(0f32, |a, w| a.max(w.abs())) / largest as f32).collect();
        let conversion = Conversion::new(format_of(spec), blocks, scales.clone()).unwrap();
        let mut codes = vec![0xEE; w.len()];
        crate::encode(&w, &mut codes, &conversion).unwrap();
        let b = Operand { codes, format: format_of(spec), blocks, scales, transposed: false };
        assert!(b.codes.iter().all(|code| code % spec.spacing() == 0), "{}", spec.name);
        let values = values(&b, spec);
        // No other value of the format is nearer.
        for ((w, value), scale) in w.iter().zip(&values).zip(b.scale_of_each()) {
            let error = |value: f64| (f64::from(*w) - value).abs();
            let nearest = spec.codes().map(|code| error(spec.decode(code) * f64::from(scale))).fold(f64::MAX, f64::min);
            assert!(error(*value) <= nearest * (1.0 + 1e-6), "{}: {value:e} for {w:e}", spec.name);
        }
        let a = Operand::finite(Fp8::E4M3, (m, k), (1, 32), random);
        check(&a, &floats(m * k, random), spec, &b, spec.name);
    }
}
