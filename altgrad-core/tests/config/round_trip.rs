//! A config that is written and read is the same config.

use altgrad_core::{
    E8M0Rule, Fp8, Granularity, Overflow, QuantConfig, Quantizer, Recipe, Rounding, ScaleEncoding, Scaling, Specials,
    Ste, TiePolicy,
};
use proptest::prelude::*;
use proptest::sample::select;

fn formats() -> impl Strategy<Value = Fp8> {
    let specials = select(vec![Specials::None, Specials::NanOnly, Specials::Ieee, Specials::Fnuz]);
    let custom = (0u8..=7, -120i16..=120, specials)
        .prop_filter_map("not a format", |(bits, bias, specials)| Fp8::new(bits, 7 - bits, bias, specials).ok());
    prop_oneof![select(Fp8::NAMED.map(|(_, format)| format).to_vec()), custom]
}

/// Positive finite numbers of every size, subnormal ones included.
fn scales() -> impl Strategy<Value = f32> {
    (1..f32::INFINITY.to_bits()).prop_map(f32::from_bits)
}

fn granularities_and_scalings() -> impl Strategy<Value = (Granularity, Scaling)> {
    let scalings = prop_oneof![
        Just(Scaling::Current),
        (1usize..).prop_map(|len| Scaling::Window { len }),
        (1usize.., -32i32..=32).prop_map(|(len, margin)| Scaling::Delayed { len, margin }),
        scales().prop_map(Scaling::Static),
    ];
    let finer = prop_oneof![
        Just(Granularity::PerRow),
        (1usize.., 1usize..).prop_map(|(rows, cols)| Granularity::PerBlock { rows, cols }),
    ];
    prop_oneof![
        scalings.prop_map(|scaling| (Granularity::PerTensor, scaling)),
        finer.prop_map(|granularity| (granularity, Scaling::Current)),
    ]
}

fn quantizers() -> impl Strategy<Value = Quantizer> {
    let encodings = select(vec![
        ScaleEncoding::F32,
        ScaleEncoding::F32Reciprocal,
        ScaleEncoding::PowerOfTwo,
        ScaleEncoding::E8M0(E8M0Rule::Floor),
        ScaleEncoding::E8M0(E8M0Rule::RoundUp),
    ]);
    let epsilons = prop_oneof![Just(0.0), (0..=f64::from(f32::MAX).to_bits()).prop_map(f64::from_bits)];
    let roundings = prop_oneof![
        Just(Rounding::NearestEven),
        prop_oneof![any::<u64>(), Just(u64::MAX)].prop_map(|seed| Rounding::Stochastic { seed }),
    ];
    let overflows = select(vec![Overflow::Saturate, Overflow::Special]);
    (formats(), granularities_and_scalings(), encodings, epsilons, roundings, overflows).prop_map(
        |(format, (granularity, scaling), encoding, epsilon, rounding, overflow)| {
            // A static scale must be one that its encoding can hold: a power of two is one in all of them.
            let scaling = match (scaling, encoding) {
                (scaling, ScaleEncoding::F32 | ScaleEncoding::F32Reciprocal) => scaling,
                (Scaling::Static(scale), _) => Scaling::Static(2f32.powi(scale.log2().floor().max(-127.0) as i32)),
                (scaling, _) => scaling,
            };
            Quantizer::new(format)
                .granularity(granularity)
                .scaling(scaling)
                .scale_encoding(encoding)
                .amax_epsilon(epsilon)
                .rounding(rounding)
                .overflow(overflow)
        },
    )
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let optional = || proptest::option::of(quantizers());
    let stes = select(vec![Ste::PassThrough, Ste::Clipped]);
    (quantizers(), optional(), optional(), stes).prop_map(|(weights, activations, gradients, ste)| {
        Recipe::weight_only(weights).activations(activations).gradients(gradients).ste(ste)
    })
}

fn configs() -> impl Strategy<Value = QuantConfig> {
    // Segments with whatever a file could trip over.
    let patterns = prop_oneof![
        r#"(\*\*|\*|[a-z_0-9"'\\é #=\t]{1,6}\*?)(\.[a-z_0-9"'\\é #=\n]{1,6}){0,3}"#,
        Just(r#"re:h\.\d+\.("|')?attn"#.to_owned()),
    ];
    let rules = proptest::collection::vec((patterns, proptest::option::of(recipes())), 0..4);
    let ties = select(vec![TiePolicy::KeepFullPrecision, TiePolicy::Quantize]);
    (recipes(), rules, ties).prop_map(|(recipe, rules, ties)| {
        let config = QuantConfig::new(recipe).ties(ties);
        rules.into_iter().fold(config, |config, (pattern, recipe)| config.rule(pattern, recipe))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn toml_gives_the_same_config_back(config in configs()) {
        let text = config.to_toml().unwrap();
        prop_assert_eq!(QuantConfig::from_toml(&text).unwrap(), config, "{}", text);
    }

    #[test]
    fn json_gives_the_same_config_back(config in configs()) {
        let text = config.to_json().unwrap();
        prop_assert_eq!(QuantConfig::from_json(&text).unwrap(), config, "{}", text);
    }
}

fn assert_round_trip(quantizer: Quantizer) {
    let config = QuantConfig::new(quantizer);
    assert_eq!(QuantConfig::from_toml(&config.to_toml().unwrap()).unwrap(), config);
    assert_eq!(QuantConfig::from_json(&config.to_json().unwrap()).unwrap(), config);
}

#[test]
fn integers_beyond_i64_survive() {
    let quantizer = Quantizer::new(Fp8::E4M3);
    for seed in [0, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        assert_round_trip(quantizer.clone().rounding(Rounding::Stochastic { seed }));
    }
    assert_round_trip(quantizer.scaling(Scaling::Window { len: usize::MAX }));
}

#[test]
fn every_scale_survives() {
    // 7.038531e-26 is the one f32 whose shortest digits, rounded to f64 and then to f32, are its neighbour.
    for scale in [7.038_531e-26, 0.05, 1.0, f32::MIN_POSITIVE, f32::from_bits(1), f32::MAX] {
        assert_round_trip(Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(scale)));
    }
}
