//! Recipes that contradict themselves, and what is said of them.

use altgrad_core::{ConfigError, Error, Fp8, Granularity, QuantizedLinear, Quantizer, Recipe, ScaleEncoding, Scaling};

use crate::cpu;

fn e4m3() -> Quantizer {
    Quantizer::new(Fp8::E4M3)
}

/// Quantizers with what is wrong with them.
fn invalid() -> Vec<(Quantizer, &'static str)> {
    let block = |rows, cols| e4m3().granularity(Granularity::PerBlock { rows, cols });
    let per_row = |scaling| e4m3().granularity(Granularity::PerRow).scaling(scaling);
    vec![
        (
            e4m3().scaling(Scaling::Window { len: 0 }),
            "invalid quantizer: a window of length 0 has no amax to scale by; \
             use `Scaling::Window { len: 1 }` or more, or `Scaling::Current`",
        ),
        (
            e4m3().scaling(Scaling::Delayed { len: 0, margin: 0 }),
            "invalid quantizer: delayed scaling over 0 steps has no amax to scale by; \
             use a `len` of 1 or more, or `Scaling::Current`",
        ),
        (
            e4m3().scaling(Scaling::Delayed { len: 4, margin: 33 }),
            "invalid quantizer: a margin of 33 leaves nothing of the format's range; use -32 to 32, usually 0",
        ),
        (
            e4m3().scaling(Scaling::Delayed { len: 4, margin: -33 }),
            "invalid quantizer: a margin of -33 leaves nothing of the format's range; use -32 to 32, usually 0",
        ),
        (
            e4m3().scaling(Scaling::Delayed { len: 4, margin: i32::MIN }),
            "invalid quantizer: a margin of -2147483648 leaves nothing of the format's range; \
             use -32 to 32, usually 0",
        ),
        (e4m3().scaling(Scaling::Static(0.0)), "a scale must be a positive finite number, this one is 0"),
        (e4m3().scaling(Scaling::Static(-1.5)), "a scale must be a positive finite number, this one is -1.5"),
        (e4m3().scaling(Scaling::Static(f32::NAN)), "a scale must be a positive finite number, this one is NaN"),
        (e4m3().scaling(Scaling::Static(f32::INFINITY)), "a scale must be a positive finite number, this one is inf"),
        (
            e4m3().scaling(Scaling::Static(0.3)).scale_encoding(ScaleEncoding::PowerOfTwo),
            "invalid quantizer: a static scale of 0.3 is not a power of two from 2^-127 to 2^127, as its encoding \
             requires; use one, or `ScaleEncoding::F32`",
        ),
        (block(0, 4), "invalid quantizer: a block of 0 × 4 has no elements; both sides must be at least 1"),
        (block(4, 0), "invalid quantizer: a block of 4 × 0 has no elements; both sides must be at least 1"),
        (
            per_row(Scaling::Window { len: 16 }),
            "invalid quantizer: Window { len: 16 } scaling is for one scale a tensor, but the granularity is PerRow; \
             use `Scaling::Current`",
        ),
        (
            per_row(Scaling::Delayed { len: 16, margin: 1 }),
            "invalid quantizer: Delayed { len: 16, margin: 1 } scaling is for one scale a tensor, \
             but the granularity is PerRow; use `Scaling::Current`",
        ),
        (
            per_row(Scaling::Static(0.5)),
            "invalid quantizer: Static(0.5) scaling is for one scale a tensor, but the granularity is PerRow; \
             use `Scaling::Current`",
        ),
        (
            block(1, 32).scaling(Scaling::Window { len: 1 }),
            "invalid quantizer: Window { len: 1 } scaling is for one scale a tensor, \
             but the granularity is PerBlock { rows: 1, cols: 32 }; use `Scaling::Current`",
        ),
        (
            e4m3().amax_epsilon(-1e-12),
            "invalid quantizer: an amax_epsilon of -0.000000000001 is not a lower bound on amax; \
             use 0 or a small positive number such as 1e-12",
        ),
        (
            e4m3().amax_epsilon(f64::NAN),
            "invalid quantizer: an amax_epsilon of NaN is not a lower bound on amax; \
             use 0 or a small positive number such as 1e-12",
        ),
        (
            e4m3().amax_epsilon(f64::INFINITY),
            "invalid quantizer: an amax_epsilon of inf is not a lower bound on amax; \
             use 0 or a small positive number such as 1e-12",
        ),
    ]
}

#[test]
fn invalid_quantizers_say_what_to_do() {
    for (quantizer, message) in invalid() {
        assert_eq!(quantizer.validate().unwrap_err().to_string(), message);
        let x = cpu(vec![1.0; 6], (2, 3));
        assert_eq!(altgrad_core::fake_quantize(&x, &quantizer).unwrap_err().to_string(), message);
        assert_eq!(altgrad_core::Fp8Tensor::quantize(&x, &quantizer).unwrap_err().to_string(), message);
        // Nothing panics on the way to that message.
        let mut history = quantizer.history();
        quantizer.record(1.0, &mut history);
        let _ = quantizer.scale(1.0, &history);
    }
    let too_large = e4m3().amax_epsilon(1e39).validate().unwrap_err();
    assert!(matches!(too_large, Error::Config(ConfigError::InvalidQuantizer { .. })), "{too_large}");
}

#[test]
fn invalid_recipes_say_whose_quantizer_it_is() {
    let linear = || candle_nn::Linear::new(cpu(vec![1.0; 6], (2, 3)), None);
    for (quantizer, message) in invalid() {
        let valid = Recipe::tensorwise();
        let recipes = [
            ("weights", valid.clone().weights(quantizer.clone())),
            ("activations", valid.clone().activations(quantizer.clone())),
            ("gradients", valid.clone().gradients(quantizer.clone())),
            // The first of several.
            ("weights", valid.weights(quantizer.clone()).activations(quantizer.clone()).gradients(quantizer)),
        ];
        for (role, recipe) in recipes {
            let error = recipe.validate().unwrap_err();
            assert_eq!(error.to_string(), format!("{role}: {message}"));
            assert!(matches!(error, Error::Role { role: actual, .. } if actual == role));
            let error = QuantizedLinear::new(linear(), recipe).unwrap_err();
            assert_eq!(error.to_string(), format!("{role}: {message}"));
        }
    }
}

#[test]
fn valid_ones_are_valid() {
    for (name, recipe) in Recipe::NAMED {
        assert!(recipe().validate().is_ok(), "{name}");
    }
    let valid = [
        e4m3(),
        e4m3().scaling(Scaling::Window { len: usize::MAX }),
        e4m3().scaling(Scaling::Delayed { len: usize::MAX, margin: 32 }),
        e4m3().scaling(Scaling::Delayed { len: 1, margin: -32 }),
        e4m3().scaling(Scaling::Static(f32::from_bits(1))),
        e4m3().scaling(Scaling::Static(f32::MAX)),
        e4m3().granularity(Granularity::PerBlock { rows: usize::MAX, cols: usize::MAX }),
        e4m3().granularity(Granularity::PerRow).scale_encoding(ScaleEncoding::F32Reciprocal),
        e4m3().amax_epsilon(f64::from(f32::MAX)),
        e4m3().amax_epsilon(5e-324),
        e4m3().amax_epsilon(-0.0),
    ];
    let x = cpu(vec![1.0, -2.0, 3.0, 0.0, 5.0, 6.0], (2, 3));
    for quantizer in valid {
        assert!(quantizer.validate().is_ok(), "{quantizer:?}");
        let packed = altgrad_core::Fp8Tensor::quantize(&x, &quantizer).unwrap();
        assert_eq!(packed.dequantize().unwrap().dims(), [2, 3], "{quantizer:?}");
    }
}

#[test]
fn a_finer_granularity_comes_with_the_scaling_that_goes_with_it() {
    let delayed = e4m3().scaling(Scaling::Delayed { len: 3, margin: 0 });
    assert_eq!(delayed.clone().granularity(Granularity::PerTensor).scaling, delayed.scaling);
    for granularity in [Granularity::PerRow, Granularity::PerBlock { rows: 2, cols: 3 }] {
        assert_eq!(delayed.clone().granularity(granularity).scaling, Scaling::Current);
    }
}

#[test]
fn weights_that_are_not_finite_are_errors() {
    for (name, recipe) in Recipe::NAMED {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let weight = cpu(vec![1.0, 2.0, 3.0, 4.0, value, value], (2, 3));
            let error = QuantizedLinear::new(candle_nn::Linear::new(weight, None), recipe()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "the weight has a value that is not finite ({value} at index [1, 1]), so no scale fits it; \
                     find out where it came from, or leave the layer in full precision"
                ),
                "{name}"
            );
        }
    }
}
