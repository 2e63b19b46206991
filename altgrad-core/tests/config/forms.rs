//! Every way to say something in a file.

use std::fs;

use altgrad_core::{
    E8M0Rule, Fp8, Granularity, Overflow, QuantConfig, Quantizer, Recipe, Rounding, ScaleEncoding, Scaling, Specials,
    Ste, TiePolicy,
};

const EXPERIMENT: &str = r#"
recipe = "hybrid"
ties = "keep_full_precision"

[[rules]]
pattern = "h.0"
recipe = "full_precision"

[[rules]]
pattern = "h.*.mlp.c_proj"
recipe = "E3M4"

[[rules]]
pattern = "**.c_attn"
[rules.recipe]
base = "tensorwise"
activations = "E4M3"
gradients = "full_precision"
ste = "clipped"
[rules.recipe.weights]
format = "E4M3"
granularity = "per_row"
scaling = "current"
scale_encoding = "power_of_two"
rounding = { stochastic = { seed = 1 } }
overflow = "saturate"
amax_epsilon = 1e-12
"#;

fn experiment() -> QuantConfig {
    let weights = Quantizer::new(Fp8::E4M3)
        .granularity(Granularity::PerRow)
        .scale_encoding(ScaleEncoding::PowerOfTwo)
        .rounding(Rounding::Stochastic { seed: 1 })
        .amax_epsilon(1e-12);
    QuantConfig::new(Recipe::hybrid())
        .skip("h.0")
        .rule("h.*.mlp.c_proj", Fp8::E3M4)
        .rule("**.c_attn", Recipe::weight_only(weights).activations(Fp8::E4M3).ste(Ste::Clipped))
}

#[test]
fn an_experiment_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let config = experiment();
    for (name, text) in [
        ("experiment.toml", EXPERIMENT.to_owned()),
        ("copy.TOML", config.to_toml().unwrap()),
        ("copy.json", config.to_json().unwrap()),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        assert_eq!(QuantConfig::from_file(&path).unwrap(), config, "{name}");
    }
}

fn weights(table: &str) -> Quantizer {
    let config = QuantConfig::from_toml(&format!("recipe = {{ weights = {table} }}")).unwrap();
    assert_eq!(config, QuantConfig::new(config.recipe.weights.clone()), "{table}");
    config.recipe.weights
}

#[test]
fn a_quantizer_needs_only_a_format() {
    assert_eq!(weights("'E5M2'"), Quantizer::new(Fp8::E5M2));
    assert_eq!(weights("{ format = 'E5M2' }"), Quantizer::new(Fp8::E5M2));
    let custom = Fp8::new(4, 3, 5, Specials::None).unwrap();
    assert_eq!(weights("{ format = 'E4M3(bias=5, specials=none)' }"), Quantizer::new(custom));
}

#[test]
fn every_setting_has_a_spelling() {
    let quantizer = Quantizer::new(Fp8::E4M3);
    let blocks = Granularity::PerBlock { rows: 1, cols: 32 };
    for (setting, expected) in [
        ("granularity = 'per_tensor'", quantizer.clone()),
        // Finer than a tensor: the scaling follows, as in the builder.
        ("granularity = 'per_row'", quantizer.clone().granularity(Granularity::PerRow)),
        ("granularity = { per_block = { rows = 1, cols = 32 } }", quantizer.clone().granularity(blocks)),
        ("scaling = 'current'", quantizer.clone().scaling(Scaling::Current)),
        ("scaling = { window = { len = 3 } }", quantizer.clone().scaling(Scaling::Window { len: 3 })),
        (
            "scaling = { delayed = { len = 1024, margin = -2 } }",
            quantizer.clone().scaling(Scaling::Delayed { len: 1024, margin: -2 }),
        ),
        ("scaling = { static = 0.05 }", quantizer.clone().scaling(Scaling::Static(0.05))),
        ("scaling = { static = 2 }", quantizer.clone().scaling(Scaling::Static(2.0))),
        ("scale_encoding = 'f32'", quantizer.clone().scale_encoding(ScaleEncoding::F32)),
        ("scale_encoding = 'f32_reciprocal'", quantizer.clone().scale_encoding(ScaleEncoding::F32Reciprocal)),
        ("scale_encoding = 'power_of_two'", quantizer.clone().scale_encoding(ScaleEncoding::PowerOfTwo)),
        ("scale_encoding = { e8m0 = 'floor' }", quantizer.clone().scale_encoding(ScaleEncoding::E8M0(E8M0Rule::Floor))),
        (
            "scale_encoding = { e8m0 = 'round_up' }",
            quantizer.clone().scale_encoding(ScaleEncoding::E8M0(E8M0Rule::RoundUp)),
        ),
        ("amax_epsilon = 1e-12", quantizer.clone().amax_epsilon(1e-12)),
        ("amax_epsilon = 0", quantizer.clone().amax_epsilon(0.0)),
        ("rounding = 'nearest_even'", quantizer.clone().rounding(Rounding::NearestEven)),
        ("rounding = { stochastic = { seed = 7 } }", quantizer.clone().rounding(Rounding::Stochastic { seed: 7 })),
        ("overflow = 'saturate'", quantizer.clone().overflow(Overflow::Saturate)),
        ("overflow = 'special'", quantizer.clone().overflow(Overflow::Special)),
    ] {
        assert_eq!(weights(&format!("{{ format = 'E4M3', {setting} }}")), expected, "{setting}");
    }
}

#[test]
fn a_base_gives_what_is_not_said() {
    let recipe = |text: &str| QuantConfig::from_toml(&format!("recipe = {text}")).unwrap().recipe;
    for (name, expected) in Recipe::NAMED {
        assert_eq!(recipe(&format!("'{name}'")), expected(), "{name}");
        assert_eq!(recipe(&format!("{{ base = '{name}' }}")), expected(), "{name}");
    }
    assert_eq!(recipe("{ base = 'E3M4' }"), Recipe::from(Fp8::E3M4));
    assert_eq!(recipe("{ base = 'mxfp8', ste = 'clipped' }"), Recipe::mxfp8().ste(Ste::Clipped));
    assert_eq!(recipe("{ base = 'rowwise', gradients = 'full_precision' }"), Recipe::rowwise().gradients(None));
    assert_eq!(recipe("{ base = 'rowwise', activations = 'full_precision' }"), Recipe::rowwise().activations(None));
    // A quantizer replaces that of the base as a whole.
    assert_eq!(recipe("{ base = 'rowwise', weights = 'E5M2' }"), Recipe::rowwise().weights(Fp8::E5M2));
    assert_eq!(recipe("{ weights = 'E4M3', activations = 'E5M2' }"), Recipe::from(Fp8::E4M3).activations(Fp8::E5M2));
    // Names are read in any case, as everywhere.
    assert_eq!(recipe("{ base = 'Hybrid', gradients = ' Full_Precision ' }"), Recipe::hybrid().gradients(None));
}

#[test]
fn ties_have_two_policies() {
    let ties = |text: &str| QuantConfig::from_toml(&format!("recipe = 'E4M3'\n{text}")).unwrap().ties;
    assert_eq!(ties(""), TiePolicy::KeepFullPrecision);
    assert_eq!(ties("ties = 'keep_full_precision'"), TiePolicy::KeepFullPrecision);
    assert_eq!(ties("ties = 'quantize'"), TiePolicy::Quantize);
}

#[test]
fn what_is_written_says_everything() {
    let config = QuantConfig::new(Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(0.05))).skip("h.0");
    assert_eq!(
        config.to_toml().unwrap(),
        r#"ties = "keep_full_precision"

[recipe]
activations = "full_precision"
gradients = "full_precision"
ste = "pass_through"

[recipe.weights]
format = "E4M3"
granularity = "per_tensor"
scale_encoding = "f32"
amax_epsilon = 0.0
rounding = "nearest_even"
overflow = "saturate"
infinity = "propagate"

[recipe.weights.scaling]
static = 0.05

[[rules]]
pattern = "h.0"
recipe = "full_precision"
"#
    );
    assert_eq!(
        config.to_json().unwrap(),
        r#"{
  "recipe": {
    "weights": {
      "format": "E4M3",
      "granularity": "per_tensor",
      "scaling": {
        "static": 0.05
      },
      "scale_encoding": "f32",
      "amax_epsilon": 0.0,
      "rounding": "nearest_even",
      "overflow": "saturate",
      "infinity": "propagate"
    },
    "activations": "full_precision",
    "gradients": "full_precision",
    "ste": "pass_through"
  },
  "rules": [
    {
      "pattern": "h.0",
      "recipe": "full_precision"
    }
  ],
  "ties": "keep_full_precision"
}"#
    );
}
