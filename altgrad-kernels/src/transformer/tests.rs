//! Values against the same formulas in `f64`, and gradients against differences of those.

use std::ops::Range;

use super::{
    Activation, Norm, NormGradients, Positions, Rotation, TokenRows, activate, activation_gradient, cross_entropy,
    cross_entropy_gradient, gate, gate_gradients, merge_heads, norm, norm_gradients, rotate, softmax_gradient,
    softmax_rows, split_heads,
};

/// Relative to the largest value: a few roundings of `f32`, of values and of sums of up to some hundred.
const BOUND: f64 = 4e-6;

/// Numbers from -2 to 2 without a pattern.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / (1u32 << 30) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_close_to(found, expected, 1e-3, what);
}

/// The same where terms of up to `scale` may have canceled.
fn assert_close_to(found: &[f32], expected: &[f64], scale: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(scale, |largest: f64, value| largest.max(value.abs()));
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= BOUND * scale, "{what}: {found} at {place}, not {expected}");
    }
}

/// The gradient of `Σ dy·f(x)` by central differences.
fn differences(f: impl Fn(&[f64]) -> Vec<f64>, x: &[f64], dy: &[f32]) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let loss = |x: &[f64]| f(x).iter().zip(dy).map(|(y, dy)| y * f64::from(*dy)).sum::<f64>();
    (0..x.len())
        .map(|place| {
            let moved = |by| {
                let mut x = x.to_vec();
                x[place] += by;
                loss(&x)
            };
            (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
        })
        .collect()
}

/// Shapes of matrices with and without a rest behind the lanes, of one part and of several.
const SHAPES: [(usize, usize); 6] = [(0, 5), (1, 1), (3, 7), (2, 64), (5, 37), (700, 33)];

fn normalized(shape: Norm, x: &[f64], weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let cols = weight.len();
    let row = |row: &[f64]| {
        let mean = if shape.centered { row.iter().sum::<f64>() / cols as f64 } else { 0.0 };
        let square = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / cols as f64;
        let factor = (square + f64::from(shape.eps)).sqrt().recip();
        let columns = row.iter().zip(weight).enumerate();
        columns.map(|(col, (x, weight))| (x - mean) * factor * weight + bias.map_or(0.0, |bias| bias[col])).collect()
    };
    x.chunks_exact(cols).flat_map(|x| -> Vec<f64> { row(x) }).collect()
}

#[test]
fn norms_and_their_gradients() {
    for (rows, cols) in SHAPES {
        for centered in [false, true] {
            let shape = Norm { eps: 1e-3, centered };
            let (x, dy) = (numbers(rows * cols, 1), numbers(rows * cols, 2));
            let (weight, bias) = (numbers(cols, 3), numbers(cols, 4));
            let (wide_x, wide_weight, wide_bias) = (wide(&x), wide(&weight), wide(&bias));
            let mut found = vec![f32::NAN; x.len()];
            norm(shape, &x, &weight, None, &mut found);
            assert_close(&found, &normalized(shape, &wide_x, &wide_weight, None), "without bias");
            norm(shape, &x, &weight, Some(&bias), &mut found);
            assert_close(&found, &normalized(shape, &wide_x, &wide_weight, Some(&wide_bias)), "with bias");
            if rows > 100 {
                continue;
            }

            let (mut dx, mut dweight, mut dbias) = (found, vec![f32::NAN; cols], vec![f32::NAN; cols]);
            let to = NormGradients { x: Some(&mut dx), weight: Some(&mut dweight), bias: Some(&mut dbias) };
            norm_gradients(shape, &x, &weight, &dy, to);
            let of_x = differences(|x| normalized(shape, x, &wide_weight, Some(&wide_bias)), &wide_x, &dy);
            let of_weight =
                differences(|weight| normalized(shape, &wide_x, weight, Some(&wide_bias)), &wide_weight, &dy);
            let of_bias = differences(|bias| normalized(shape, &wide_x, &wide_weight, Some(bias)), &wide_bias, &dy);
            let what = format!("{rows} × {cols}, centered: {centered}");
            // Of a row of one element, both terms of the gradient are this large, and cancel.
            let term = wide_weight.iter().fold(0.0, |largest: f64, weight| largest.max(2.0 * weight.abs()));
            assert_close_to(&dx, &of_x, term, &what);
            assert_close(&dweight, &of_weight, &what);
            assert_close(&dbias, &of_bias, &what);
        }
    }
}

#[test]
fn sums_over_many_rows_are_those_of_all() {
    let (rows, cols, shape) = (5000, 33, Norm { eps: 1e-5, centered: true });
    let (x, dy, weight) = (numbers(rows * cols, 1), numbers(rows * cols, 2), numbers(cols, 3));
    let (mut dweight, mut dbias) = (vec![0.0; cols], vec![0.0; cols]);
    let to = NormGradients { x: None, weight: Some(&mut dweight), bias: Some(&mut dbias) };
    norm_gradients(shape, &x, &weight, &dy, to);
    let hat = normalized(shape, &wide(&x), &vec![1.0; cols], None);
    let column = |term: &dyn Fn(usize) -> f64, col: usize| (0..rows).map(|row| term(row * cols + col)).sum::<f64>();
    let of_weight: Vec<f64> = (0..cols).map(|col| column(&|place| f64::from(dy[place]) * hat[place], col)).collect();
    let of_bias: Vec<f64> = (0..cols).map(|col| column(&|place| f64::from(dy[place]), col)).collect();
    assert_close(&dweight, &of_weight, "weight");
    assert_close(&dbias, &of_bias, "bias");
}

/// `erf` from its integral, by Simpson's rule.
fn erf(x: f64) -> f64 {
    const STEPS: usize = 2000;
    let step = x / STEPS as f64;
    let weight = |place| {
        if place == 0 || place == STEPS {
            1.0
        } else if place % 2 == 1 {
            4.0
        } else {
            2.0
        }
    };
    let sum: f64 = (0..=STEPS).map(|place| weight(place) * (-(place as f64 * step).powi(2)).exp()).sum();
    std::f64::consts::FRAC_2_SQRT_PI * sum * step / 3.0
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    }
}

const ACTIVATIONS: [Activation; 3] = [Activation::Silu, Activation::GeluTanh, Activation::GeluErf];

#[test]
fn activations_and_their_gradients() {
    for activation in ACTIVATIONS {
        for count in [0, 1, 77, 40_000] {
            let stretch = |numbers: Vec<f32>| numbers.into_iter().map(|x| 4.0 * x).collect::<Vec<_>>();
            let (x, up, dy) = (stretch(numbers(count, 1)), numbers(count, 2), numbers(count, 3));
            let mut found = vec![f32::NAN; count];
            activate(activation, &x, &mut found);
            let checked = count.min(500);
            let expected: Vec<f64> = x[..checked].iter().map(|x| activated(activation, f64::from(*x))).collect();
            assert_close(&found[..checked], &expected, "value");

            let mut gated = vec![f32::NAN; count];
            gate(activation, &x, &up, &mut gated);
            assert!(gated.iter().zip(&found).zip(&up).all(|((gated, value), up)| *gated == value * up));

            let mut dx = vec![f32::NAN; count];
            activation_gradient(activation, &x, &dy, &mut dx);
            let of_x: Vec<f64> = (0..checked)
                .flat_map(|place| {
                    let f = |x: &[f64]| vec![activated(activation, x[0])];
                    differences(f, &[f64::from(x[place])], &dy[place..=place])
                })
                .collect();
            assert_close(&dx[..checked], &of_x, "gradient");

            let (mut gate_dx, mut gate_dup) = (vec![f32::NAN; count], vec![f32::NAN; count]);
            gate_gradients(activation, &x, &up, &dy, &mut gate_dx, &mut gate_dup);
            let of_x: Vec<f64> = of_x.iter().zip(&up).map(|(dx, up)| dx * f64::from(*up)).collect();
            assert_close(&gate_dx[..checked], &of_x, "gradient of a gate");
            assert!(gate_dup.iter().zip(&found).zip(&dy).all(|((dup, value), dy)| *dup == dy * value));
        }
    }
}

#[test]
fn activations_of_large_numbers_do_not_overflow() {
    for activation in ACTIVATIONS {
        let x = [f32::MAX, -f32::MAX, 1e20, -1e20, 100.0, -100.0, f32::INFINITY];
        let expected = [f32::MAX, 0.0, 1e20, 0.0, 100.0, 0.0, f32::INFINITY];
        let mut found = [f32::NAN; 7];
        activate(activation, &x, &mut found);
        assert_eq!(found, expected, "{activation:?}");
        activation_gradient(activation, &x, &[1.0; 7], &mut found);
        assert_eq!(found, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0], "{activation:?}");
        let mut found = [0.0; 1];
        activate(activation, &[f32::NAN], &mut found);
        assert!(found[0].is_nan(), "{activation:?}");
    }
}

#[test]
fn rotations_turn_pairs_by_their_positions() {
    let (repeats, count, tables, dim, rounds) = (2, 3, 2, 6, 2);
    let rows = repeats * count * rounds * tables;
    let x = numbers(rows * dim, 1);
    let angles = numbers(tables * (count + 1) * dim / 2, 2);
    let cos: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
    let sin: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
    for interleaved in [false, true] {
        for tables in [1, tables] {
            let positions = Positions { repeats, count, rounds: if tables == 1 { 0 } else { rounds } };
            let mut turned = vec![f32::NAN; x.len()];
            let table = (&cos[..], &sin[..], count + 1);
            rotate(Rotation { interleaved, inverse: false }, &x, dim, table, positions, &mut turned);
            for row in 0..rows {
                let table = if tables == 1 { 0 } else { row / (repeats * count * rounds) };
                let position = table * (count + 1) + row / repeats % count;
                for pair in 0..dim / 2 {
                    let (i, j) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + dim / 2) };
                    let (a, b) = (f64::from(x[row * dim + i]), f64::from(x[row * dim + j]));
                    let (sin, cos) = f64::from(angles[position * dim / 2 + pair]).sin_cos();
                    let found = [turned[row * dim + i], turned[row * dim + j]];
                    assert_close(&found, &[a * cos - b * sin, a * sin + b * cos], "pair");
                }
            }
            let mut back = vec![f32::NAN; x.len()];
            rotate(Rotation { interleaved, inverse: true }, &turned, dim, table, positions, &mut back);
            assert_close(&back, &wide(&x), "there and back");
        }
    }
}

fn softmax(x: &[f64], cols: usize, visible: impl Fn(usize) -> Range<usize>) -> Vec<f64> {
    let row = |(row, x): (usize, &[f64])| {
        let sum: f64 = x[visible(row)].iter().map(|x| x.exp()).sum();
        let value = |(col, x): (usize, &f64)| if visible(row).contains(&col) { x.exp() / sum } else { 0.0 };
        x.iter().enumerate().map(value).collect::<Vec<_>>()
    };
    x.chunks_exact(cols).enumerate().flat_map(row).collect()
}

#[test]
fn softmaxes_of_what_is_visible_and_their_gradients() {
    for (rows, cols) in [(1, 1), (4, 9), (3, 70), (2000, 20)] {
        // Some rows see nothing.
        let visible = |row: usize| row % 5 % cols..(row * 7 % (cols + 1)).max(row % 5 % cols);
        let (x, dy) = (numbers(rows * cols, 1), numbers(rows * cols, 2));
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        softmax_rows(&x, cols, &visible, &mut y);
        assert_close(&y, &softmax(&wide(&x), cols, visible), "value");
        softmax_gradient(&y, &dy, cols, &mut dx);
        if rows < 100 {
            assert_close(&dx, &differences(|x| softmax(x, cols, visible), &wide(&x), &dy), "gradient");
        }
    }
    let mut large = [f32::NAN; 3];
    softmax_rows(&[1e4, -1e4, 1e4], 3, &|_| 0..3, &mut large);
    assert_eq!(large, [0.5, 0.0, 0.5]);
}

#[test]
fn cross_entropies_and_their_gradients() {
    let loss = |x: &[f64], classes: usize, targets: &[u32]| {
        let of_row = |(x, target): (&[f64], &u32)| x.iter().map(|x| x.exp()).sum::<f64>().ln() - x[*target as usize];
        x.chunks_exact(classes).zip(targets).map(of_row).sum::<f64>() / targets.len() as f64
    };
    for (rows, classes) in [(1, 1), (5, 3), (7, 50), (900, 40)] {
        let x = numbers(rows * classes, 1);
        let targets: Vec<u32> = (0..rows).map(|row| (row * 7 % classes) as u32).collect();
        let (found, log_sums) = cross_entropy(&x, classes, &targets);
        assert_close(&[found], &[loss(&wide(&x), classes, &targets)], "loss");
        let mut dx = vec![f32::NAN; x.len()];
        cross_entropy_gradient(&x, classes, &targets, &log_sums, 0.5, &mut dx);
        if rows < 100 {
            assert_close(&dx, &differences(|x| vec![loss(x, classes, &targets)], &wide(&x), &[0.5]), "gradient");
        }
    }
    // Large logits, and a target that is impossible.
    let x = [1e4, -1e4, 0.0, 1.0, f32::NEG_INFINITY, 0.0];
    let (found, log_sums) = cross_entropy(&x[..3], 3, &[0]);
    assert_eq!((found, &log_sums[..]), (0.0, &[1e4f32][..]));
    let (found, log_sums) = cross_entropy(&x[3..], 3, &[1]);
    assert_eq!(found, f32::INFINITY);
    let mut dx = [f32::NAN; 3];
    cross_entropy_gradient(&x[3..], 3, &[1], &log_sums, 1.0, &mut dx);
    assert!(dx.iter().all(|dx| dx.is_finite()) && dx[1] == -1.0, "{dx:?}");
    assert!(cross_entropy(&[], 3, &[]).0.is_nan());
}

#[test]
fn heads_are_split_and_merged() {
    for (batch, time, parts, dim) in
        [(2, 3, vec![4, 2, 2], 5), (1, 1, vec![1], 1), (3, 70, vec![3, 1], 64), (0, 2, vec![1], 4)]
    {
        let heads: usize = parts.iter().sum();
        let rows = TokenRows { time, heads, dim };
        let from = numbers(batch * time * heads * dim, 7);
        let mut first = 0;
        let mut split = Vec::new();
        for part in &parts {
            let mut to = vec![0.0; batch * part * time * dim];
            split_heads(&from, rows, first..first + part, &mut to);
            for (place, value) in to.iter().enumerate() {
                let (element, token) = (place % dim, place / dim % time);
                let (head, sequence) = (place / dim / time % part, place / dim / time / part);
                assert_eq!(*value, from[((sequence * time + token) * heads + first + head) * dim + element]);
            }
            split.push((*part, to));
            first += part;
        }
        let mut merged = vec![9.0; from.len()];
        let views: Vec<_> = split.iter().map(|(heads, values)| (*heads, Some(&values[..]))).collect();
        merge_heads(&views, rows, &mut merged);
        assert_eq!(merged, from);
        let mut partly = vec![9.0; from.len()];
        merge_heads(
            &[(heads - 1, None), (1, split.last().filter(|(count, _)| *count == 1).map(|(_, values)| &values[..]))],
            rows,
            &mut partly,
        );
        assert!(partly.chunks(heads * dim).all(|row| row[..(heads - 1) * dim].iter().all(|value| *value == 9.0)));
    }
}
