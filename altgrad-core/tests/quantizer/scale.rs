//! From the largest magnitude, now and before, to the scale.

use altgrad_core::{AmaxHistory, ConfigError, Error, Fp8, Infinity, Quantizer, Scaling, compute_scale};

#[test]
fn compute_scale_of_ordinary_magnitudes() {
    let cases = [
        (448.0, Fp8::E4M3, 1.0),
        (896.0, Fp8::E4M3, 2.0),
        (-896.0, Fp8::E4M3, 2.0),
        (1.75, Fp8::E4M3, 0.003_906_25),
        (57344.0, Fp8::E5M2, 1.0),
        (3.5, Fp8::E5M2, 2f32.powi(-14)),
        (31.0, Fp8::E3M4, 1.0),
        (127.0, Fp8::E0M7, 128.0),
        (240.0, Fp8::E4M3_FNUZ, 1.0),
        (1.0, Fp8::E7M0, 2f32.powi(-64)),
        // 1 / 448 and 1 / 31, rounded to `f32`.
        (1.0, Fp8::E4M3, f32::from_bits(0x3B12_4925)),
        (1.0, Fp8::E3M4, f32::from_bits(0x3D04_2108)),
    ];
    for (amax, format, scale) in cases {
        assert_eq!(compute_scale(amax, format), scale, "{amax} in {format}");
    }
}

#[test]
fn compute_scale_without_a_magnitude_is_one() {
    for (_, format) in Fp8::NAMED {
        for amax in [0.0, -0.0, f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(compute_scale(amax, format).to_bits(), 1f32.to_bits(), "{amax} in {format}");
        }
    }
}

#[test]
fn compute_scale_stays_a_normal_number() {
    let smallest = [f32::from_bits(1), 1e-40, f32::from_bits(0x007F_FFFF), f32::MIN_POSITIVE];
    for (_, format) in Fp8::NAMED {
        for amax in smallest {
            let scale = compute_scale(amax, format);
            assert!(scale >= f32::MIN_POSITIVE, "{amax:e} in {format}");
            if format.largest_finite() >= 1.0 {
                assert_eq!(scale, f32::MIN_POSITIVE, "{amax:e} in {format}");
            }
        }
        assert!(compute_scale(f32::MAX, format).is_finite(), "{format}");
    }
    // 2^-126 / (127/128) is no multiple of the smallest step and rounds to 2^-126 × (1 + 2^-7 + 2^-14 + 2^-21).
    let above = f32::MIN_POSITIVE * (1.0 + 2f32.powi(-7) + 2f32.powi(-14) + 2f32.powi(-21));
    assert_eq!(compute_scale(f32::MIN_POSITIVE, Fp8::E0M7), above);
    assert_eq!(compute_scale(f32::MAX, Fp8::E0M7), f32::MAX);
    assert_eq!(compute_scale(2f32.powi(127), Fp8::E7M0), 2f32.powi(63));
}

#[test]
fn the_largest_value_times_the_scale_is_finite() {
    for (format, oracle) in crate::formats() {
        for ulps in 0..2000 {
            let amax = f32::from_bits(f32::MAX.to_bits() - ulps);
            let scale = compute_scale(amax, format);
            let largest = oracle.largest() as f32 * scale;
            assert!(largest.is_finite(), "{amax:e} in {format}");
            // Still the best scale or its neighbour.
            let error = (f64::from(largest) / f64::from(amax) - 1.0).abs();
            assert!(error < 2f64.powi(-22) || format == Fp8::E0M7, "{amax:e} in {format}: {error:e}");
        }
    }
}

#[test]
fn history_forgets_the_oldest() {
    let mut history = AmaxHistory::new(3);
    assert_eq!((history.len(), history.capacity(), history.is_empty(), history.largest()), (0, 3, true, None));
    // After each step: what is held, oldest first.
    let steps: [(f32, &[f32]); 9] = [
        (5.0, &[5.0]),
        (-7.0, &[5.0, 7.0]),
        (f32::NAN, &[5.0, 7.0]),
        (0.0, &[5.0, 7.0, 0.0]),
        (1.0, &[7.0, 0.0, 1.0]),
        (f32::INFINITY, &[7.0, 0.0, 1.0]),
        (f32::NEG_INFINITY, &[7.0, 0.0, 1.0]),
        (f32::MAX, &[0.0, 1.0, f32::MAX]),
        (1e-45, &[1.0, f32::MAX, 1e-45]),
    ];
    for (amax, held) in steps {
        history.record(amax);
        assert_eq!(history.iter().collect::<Vec<_>>(), held, "after {amax}");
        assert_eq!(history.len(), held.len(), "after {amax}");
        assert_eq!(history.largest(), held.iter().copied().max_by(f32::total_cmp), "after {amax}");
    }
    history.clear();
    assert_eq!(history, AmaxHistory::new(3));
    assert_ne!(history, AmaxHistory::new(4));
    history.record(-0.0);
    assert_eq!(history.largest().map(f32::to_bits), Some(0));
}

#[test]
fn history_of_no_steps_holds_nothing() {
    let mut history = AmaxHistory::new(0);
    history.record(3.0);
    assert!(history.is_empty());
    assert_eq!(history.largest(), None);
}

/// Runs steps of training: the scale of each, then its amax goes into the history.
fn scales(quantizer: &Quantizer, steps: &[f32]) -> Vec<f32> {
    let mut history = quantizer.history();
    let step = |amax: &f32| {
        let scale = quantizer.scale(*amax, &history);
        history.record(*amax);
        scale
    };
    steps.iter().map(step).collect()
}

#[test]
fn window_is_the_largest_of_the_last_steps_with_this_one() {
    // In multiples of 448, so that the scale of E4M3 is the multiple.
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    let cases: [(usize, &[f32], &[f32]); 9] = [
        (1, &[3.0, 8.0, 2.0, 5.0], &[3.0, 8.0, 2.0, 5.0]),
        (2, &[3.0, 8.0, 2.0, 5.0, 4.0, 4.0], &[3.0, 8.0, 8.0, 5.0, 5.0, 4.0]),
        (3, &[3.0, 8.0, 2.0, 5.0, 4.0, 4.0, 2.0], &[3.0, 8.0, 8.0, 8.0, 5.0, 5.0, 4.0]),
        // An outlier is in exactly `len` scales.
        (4, &[2.0, 64.0, 2.0, 2.0, 2.0, 2.0], &[2.0, 64.0, 64.0, 64.0, 64.0, 2.0]),
        // Growth shows at once.
        (16, &[2.0, 3.0, 4.0, 5.0], &[2.0, 3.0, 4.0, 5.0]),
        // Steps without a finite amax use the history and leave no trace in it.
        (3, &[3.0, NAN, 2.0, INF, 2.0, 2.0], &[3.0, 3.0, 3.0, 3.0, 3.0, 2.0]),
        // Nothing to go by.
        (3, &[NAN, INF, 5.0], &[1.0, 1.0, 5.0]),
        // Zeros count as steps, but give no scale of their own.
        (3, &[0.0, 5.0, 0.0, 0.0, 0.0], &[1.0, 5.0, 5.0, 5.0, 1.0]),
        (1, &[0.0, 5.0, 0.0, NAN, 7.0], &[1.0, 5.0, 1.0, 1.0, 7.0]),
    ];
    for (len, steps, expected) in cases {
        let quantizer = Quantizer::new(Fp8::E4M3).scaling(Scaling::Window { len });
        let steps: Vec<_> = steps.iter().map(|step| step * 448.0).collect();
        let saturating = scales(&quantizer.clone().infinity(Infinity::Saturate), &steps);
        assert_eq!(saturating, expected, "window of {len} over {steps:?}");
        // Else they have a scale that shows it, and the others the same.
        for ((step, scale), expected) in steps.iter().zip(scales(&quantizer, &steps)).zip(expected) {
            assert!(if step.is_finite() { scale == *expected } else { scale.is_nan() }, "{len}, {steps:?}: {scale}");
        }
    }
}

#[test]
fn current_looks_at_this_step_only() {
    let quantizer = Quantizer::new(Fp8::E4M3).scaling(Scaling::Current);
    let steps = [448.0, 896.0, 0.0, 1344.0, f32::NAN, 448.0];
    assert_eq!(scales(&quantizer.clone().infinity(Infinity::Saturate), &steps), [1.0, 2.0, 1.0, 3.0, 1.0, 1.0]);
    assert!(quantizer.scale(f32::NAN, &quantizer.history()).is_nan());
    assert!(quantizer.scale(f32::INFINITY, &quantizer.history()).is_nan());
    let mut history = AmaxHistory::new(4);
    history.record(1e6);
    assert_eq!(quantizer.scale(896.0, &history), 2.0);
}

#[test]
fn history_holds_the_window_but_for_this_step() {
    let capacity = |scaling| Quantizer::new(Fp8::E4M3).scaling(scaling).history().capacity();
    assert_eq!(capacity(Scaling::Current), 0);
    assert_eq!(capacity(Scaling::Window { len: 0 }), 0);
    assert_eq!(capacity(Scaling::Window { len: 1 }), 0);
    assert_eq!(capacity(Scaling::Window { len: 16 }), 15);
}

#[test]
fn a_bare_format_looks_back_sixteen_steps() {
    let quantizer = Quantizer::from(Fp8::E5M2);
    assert_eq!(quantizer.format, Fp8::E5M2);
    assert_eq!(quantizer.scaling, Scaling::Window { len: 16 });
    assert_eq!(quantizer, Quantizer::new(Fp8::E5M2));
    let mut steps = [57344.0f32; 18];
    steps[0] *= 4.0;
    let mut expected = [4.0f32; 18];
    expected[16..].fill(1.0);
    assert_eq!(scales(&quantizer, &steps), expected);
}

#[test]
fn a_window_of_no_steps_is_an_error() {
    let valid = [Scaling::Current, Scaling::Window { len: 1 }, Scaling::Window { len: usize::MAX }];
    for scaling in valid {
        assert!(Quantizer::new(Fp8::E4M3).scaling(scaling).validate().is_ok());
    }
    let error = Quantizer::new(Fp8::E4M3).scaling(Scaling::Window { len: 0 }).validate().unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::InvalidQuantizer { .. })));
    assert_eq!(
        error.to_string(),
        "invalid quantizer: a window of length 0 has no amax to scale by; \
         use `Scaling::Window { len: 1 }` or more, or `Scaling::Current`"
    );
}
