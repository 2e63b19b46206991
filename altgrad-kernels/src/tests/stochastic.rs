//! Stochastic rounding: which neighbour a value becomes is decided by the draw and the exact distance, and by nothing
//! else.

use half::bf16;

use super::*;
use crate::Draws;
use crate::round::Real;

const DRAWS: Draws = Draws { seed: 5, stream: 6, step: 7 };

/// The magnitude code that a quotient becomes with a number in [0, 1); the one after the largest for overflow.
fn expected_magnitude(oracle: &Oracle, quotient: f64, uniform: f64) -> u8 {
    // The magnitudes of all codes and of the next one.
    let (magnitudes, spacing) = (oracle.magnitudes(), oracle.spec.spacing());
    let magnitudes = &magnitudes[..magnitudes.len() - 1];
    let above = magnitudes.partition_point(|magnitude| *magnitude <= quotient.abs());
    if above == magnitudes.len() {
        return oracle.largest_code + spacing;
    }
    let (low, high) = (magnitudes[above - 1], magnitudes[above]);
    let fraction = (quotient.abs() - low) / (high - low);
    (if fraction > uniform { above } else { above - 1 }) as u8 * spacing
}

fn check<T: Sample>(overflow: Overflow, uniform: impl Fn(u32) -> f64) {
    for spec in specs() {
        let (oracle, scale) = (Oracle::new(spec), 0.3);
        let format = format_of(spec);
        let mut inputs = inputs::<T>(&oracle, scale);
        inputs.retain(|input| !input.exact().is_nan());
        // Each a few times, with other draws.
        let inputs = inputs.repeat(3);
        let conversion = Conversion { overflow, draws: Some(DRAWS), ..whole(inputs.len(), format, scale) };
        let (mut fake, mut codes) = (vec![T::default(); inputs.len()], vec![0; inputs.len()]);
        convert(&inputs, &mut fake, &conversion);
        assert!(convert_to_codes(&inputs, &mut codes, &conversion));
        let mut draws = vec![0; inputs.len()];
        DRAWS.fill(0, &mut draws);
        for (((input, fake), code), draw) in inputs.iter().zip(fake).zip(codes).zip(draws) {
            let quotient = input.quotient(scale);
            let context = || format!("{format}, {overflow:?}, {input:?}, draw {draw:X}");
            let magnitude = expected_magnitude(&oracle, quotient, uniform(draw));
            let sign = if quotient.is_sign_negative() { 0x80 } else { 0 };
            let overflows = magnitude > oracle.largest_code;
            let expected = match (overflow, spec.kind) {
                (Overflow::Special, Kind::Ieee) if overflows => oracle.largest_code + 1,
                (Overflow::Special, Kind::NanOnly | Kind::Fnuz) if overflows => {
                    assert_bits(fake, 0, true, &context);
                    assert!(format.decode(code).is_nan(), "{}", context());
                    continue;
                }
                _ => magnitude.min(oracle.largest_code),
            };
            let expected = if expected == 0 && !spec.has_negative_zero() { 0 } else { expected | sign };
            assert_eq!(code, expected, "{}", context());
            assert_bits(fake, T::product_bits(oracle.decode(expected), scale), false, &context);
        }
    }
}

#[test]
fn the_draw_and_the_distance_decide_in_f32() {
    for overflow in [Overflow::Saturate, Overflow::Special] {
        check::<f32>(overflow, |draw| f64::from(draw >> 8) / 2f64.powi(24));
        check::<bf16>(overflow, |draw| f64::from(draw >> 8) / 2f64.powi(24));
    }
}

#[test]
fn the_draw_and_the_distance_decide_in_f64() {
    for overflow in [Overflow::Saturate, Overflow::Special] {
        check::<f64>(overflow, |draw| f64::from(draw) / 2f64.powi(32));
    }
}

#[test]
fn values_of_the_format_stay_whatever_the_draw() {
    for spec in specs() {
        let format = format_of(spec);
        let rounder = <f32 as Real>::rounder(format, Overflow::Saturate);
        for (_, value) in format.values().filter(|(_, value)| value.is_finite()) {
            for draw in [0, 1, u32::MAX / 2, u32::MAX] {
                assert_eq!(value.round_stochastically(&rounder, draw).to_bits(), value.to_bits(), "{format}");
            }
        }
    }
}

#[test]
fn draws_go_by_the_number_of_the_element_whatever_the_blocks() {
    let values: Vec<f32> = (0..5 * 2500).map(|i| 0.001 * i as f32).collect();
    let conversion = Conversion { draws: Some(DRAWS), ..whole(values.len(), Fp8::E4M3, 1.0) };
    let mut expected = vec![0; values.len()];
    convert_to_codes(&values, &mut expected, &conversion);
    for (block_rows, block_cols) in [(1, 2500), (1, 32), (1, 1), (3, 1333), (5, 7)] {
        let blocks = Blocks::new(5, 2500, block_rows, block_cols);
        let conversion = Conversion { blocks, scales: vec![Scale::new(1.0); blocks.count()], ..conversion.clone() };
        let mut codes = vec![0; values.len()];
        convert_to_codes(&values, &mut codes, &conversion);
        assert_eq!(codes, expected, "{block_rows}×{block_cols}");
    }
}
