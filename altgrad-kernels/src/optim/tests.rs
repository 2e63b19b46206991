//! Steps against the rules in `f64`, with numbers that the tests make themselves.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::adamw::AdamW;
use super::*;
use crate::Fp8;

/// Deterministic numbers of both signs and several binades.
fn numbers(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let mut number = move || (next() as f32 / 8_388_608.0 - 1.0) * 2f32.powi((next() % 9) as i32 - 6);
    (0..len).map(|_| number()).collect()
}

/// Lengths around those of blocks and parts.
const LENGTHS: [usize; 9] = [0, 1, 7, 255, 256, 257, 4096, PART, 3 * PART + 300];

const RULE: AdamW = AdamW {
    learning_rate: 1e-2,
    decay: 0.999,
    betas: [0.9, 0.99],
    rests: [0.1, 0.01],
    corrections: [1.0, 1.0],
    eps: 1e-8,
    gradient_factor: 0.5,
};

/// The rule after `step` steps.
fn rule(step: i32) -> AdamW {
    AdamW { corrections: [0.9f64, 0.99].map(|beta| (1.0 / (1.0 - beta.powi(step))) as f32), ..RULE }
}

#[test]
fn adamw_follows_its_rule() {
    for len in LENGTHS {
        let mut weights = numbers(1, len);
        let mut exact: Vec<[f64; 3]> = weights.iter().map(|w| [f64::from(*w), 0.0, 0.0]).collect();
        let (mut first, mut second) = (Moment::f32(len), Moment::f32(len));
        for step in 1..=5 {
            let gradients = numbers(10 + step as u32, len);
            adamw(rule(step), &mut weights, &gradients, &mut first, &mut second);
            for ([w, m, v], g) in exact.iter_mut().zip(&gradients) {
                let g = 0.5 * f64::from(*g);
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.99 * *v + 0.01 * g * g;
                let (m, v) = (*m / (1.0 - 0.9f64.powi(step)), *v / (1.0 - 0.99f64.powi(step)));
                *w = *w * 0.999 - 1e-2 * m / (v.sqrt() + 1e-8);
            }
        }
        for (w, [exact, ..]) in weights.iter().zip(&exact) {
            // Some thirty roundings, half of them of updates of up to 1e-2 each.
            let bound = 2f64.powi(-24) * (12.0 * exact.abs() + 5.0 * 20.0 * 1e-2) + 1e-9;
            assert!((f64::from(*w) - exact).abs() <= bound, "{len}: {w} for {exact}");
        }
    }
}

#[test]
fn sgd_follows_its_rule() {
    for len in LENGTHS {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let rule = Sgd { learning_rate: 0.1, weight_decay: 0.01, momentum, nesterov, gradient_factor: 2.0 };
            let mut weights = numbers(1, len);
            let mut exact: Vec<[f64; 2]> = weights.iter().map(|w| [f64::from(*w), 0.0]).collect();
            let mut velocity = Moment::f32(len);
            for step in 0..4 {
                let gradients = numbers(10 + step, len);
                sgd(rule, &mut weights, &gradients, (momentum > 0.0).then_some(&mut velocity));
                for ([w, b], g) in exact.iter_mut().zip(&gradients) {
                    let momentum = f64::from(momentum);
                    let g = 2.0 * f64::from(*g) + 0.01 * *w;
                    *b = momentum * *b + g;
                    *w -= 0.1 * if nesterov { g + momentum * *b } else { *b };
                }
            }
            for (w, [exact, ..]) in weights.iter().zip(&exact) {
                let bound = 2f64.powi(-24) * 40.0 * (exact.abs() + 20.0);
                assert!((f64::from(*w) - exact).abs() <= bound, "{len}, {momentum}: {w} for {exact}");
            }
        }
    }
}

#[test]
fn moments_are_stored_by_their_definition() {
    for len in LENGTHS {
        let gradients = numbers(3, len);
        let mut rule = rule(1);
        rule.gradient_factor = 1.0;
        for (mut first, mut second) in
            [(Moment::bf16(len), Moment::bf16(len)), (Moment::codes(len), Moment::codes(len))]
        {
            let mut weights = vec![1.0; len];
            adamw(rule, &mut weights, &gradients, &mut first, &mut second);
            for (moment, of_gradient) in
                [(&first, (|g| g * 0.1) as fn(f32) -> f32), (&second, (|g| g * g * 0.01) as fn(f32) -> f32)]
            {
                let values: Vec<f32> = gradients.iter().map(|g| of_gradient(*g)).collect();
                match moment {
                    Moment::F32(_) => unreachable!(),
                    Moment::Bf16(found) => {
                        let expected: Vec<half::bf16> =
                            values.iter().map(|value| half::bf16::from_f32(*value)).collect();
                        assert_eq!(found, &expected, "{len}");
                    }
                    Moment::Codes { codes, scales } => {
                        for ((values, codes), scale) in values.chunks(256).zip(codes.chunks(256)).zip(scales) {
                            let amax = values.iter().fold(0f32, |amax, value| amax.max(value.abs()));
                            assert_eq!(*scale, amax.max(1e-12) / 448.0);
                            let expected: Vec<u8> =
                                values.iter().map(|value| Fp8::E4M3.encode(value / scale).unwrap()).collect();
                            assert_eq!(codes, expected, "{len}");
                        }
                        assert_eq!(scales.len(), len.div_ceil(256));
                    }
                }
            }
        }
    }
}

#[test]
fn every_level_and_number_of_threads_gives_the_same_bits() {
    let len = 4 * PART + 77;
    let run = |level: Option<Level>, moment: fn(usize) -> Moment| {
        let mut weights = numbers(1, len);
        let (mut first, mut second) = (moment(len), moment(len));
        for step in 1..=3 {
            let gradients = numbers(5 + step as u32, len);
            match level {
                None => adamw(rule(step), &mut weights, &gradients, &mut first, &mut second),
                Some(level) => {
                    let (mut first, mut second) =
                        (first.parts(len.next_multiple_of(BLOCK)), second.parts(len.next_multiple_of(BLOCK)));
                    let (first, second) = (first.remove(0), second.remove(0));
                    adamw::adamw_part::<f32>(level, rule(step), &mut weights, &gradients, first, second);
                }
            }
        }
        (weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>(), first, second)
    };
    for moment in [Moment::f32, Moment::bf16, Moment::codes] {
        let expected = run(None, moment);
        for level in Level::available() {
            assert!(run(Some(level), moment) == expected, "{level}");
        }
    }
}

#[test]
fn a_moment_too_large_for_f32_is_a_large_one_in_codes() {
    let (mut first, mut second) = (Moment::codes(300), Moment::codes(300));
    let mut weights = vec![1.0; 300];
    for step in 1..=3 {
        adamw(rule(step), &mut weights, &vec![1e30; 300], &mut first, &mut second);
        assert!(weights.iter().all(|w| w.is_finite()), "{step}");
    }
}

#[test]
fn sums_of_squares_show_what_is_not_finite() {
    for len in LENGTHS {
        let mut values = numbers(9, len);
        let exact: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
        assert!((sum_of_squares(&values) - exact).abs() <= 1e-12 * exact, "{len}");
        for (value, is_finite) in [(f32::MAX, true), (f32::NAN, false), (f32::NEG_INFINITY, false)] {
            if let Some(last) = values.last_mut() {
                *last = value;
                assert_eq!(sum_of_squares(&values).is_finite(), is_finite, "{len} {value}");
            }
        }
    }
}
