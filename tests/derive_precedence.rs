//! What attributes say reaches the layers below them; who decides about a layer if more than one has something to say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use altgrad::report::{Action, QuantReport, SkipReason};
use altgrad::{Error, FormatError, Fp8, Linear, QuantConfig, Quantizable, linear};
use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};

fn layer() -> Linear {
    let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    linear(4, 4, vb).unwrap()
}

/// Three levels of attributes around layers that have some, and some that have none.
#[derive(Quantizable)]
struct Outer {
    #[quant(skip)]
    skipped: Middle,
    #[quant(recipe = Fp8::E5M2)]
    coarse: Middle,
    plain: Middle,
}

#[derive(Quantizable)]
struct Middle {
    #[quant(recipe = Fp8::E3M4)]
    fine: Vec<Inner>,
    inherits: Option<Inner>,
    #[quant(skip)]
    never: (Linear, Inner),
}

#[derive(Quantizable)]
enum Inner {
    One(Linear),
    Two {
        a: Linear,
        #[quant(recipe = Fp8::E2M5)]
        b: Linear,
    },
}

fn outer() -> Outer {
    let two = || Inner::Two { a: layer(), b: layer() };
    let middle = || Middle {
        fine: vec![Inner::One(layer()), two()],
        inherits: Some(two()),
        never: (layer(), Inner::One(layer())),
    };
    Outer { skipped: middle(), coarse: middle(), plain: middle() }
}

/// What was done to each layer, in a word: the format, or why it was skipped.
fn outcome(report: &QuantReport) -> Vec<(String, String)> {
    let outcome = |action: &Action, format: Option<Fp8>| match (action, format) {
        (Action::Quantized, Some(format)) => format.to_string(),
        (Action::Skipped(SkipReason::Attribute), None) => "attribute".to_owned(),
        (Action::Skipped(SkipReason::Rule(pattern)), None) => format!("rule {pattern}"),
        other => format!("{other:?}"),
    };
    report.layers.iter().map(|layer| (layer.path.clone(), outcome(&layer.action, layer.format))).collect()
}

#[track_caller]
fn assert_outcome(config: QuantConfig, expected: &[(&str, &str)]) {
    let report = outer().quantize(config).unwrap();
    let actual = outcome(&report);
    let actual: Vec<_> = actual.iter().map(|(path, what)| (path.as_str(), what.as_str())).collect();
    assert_eq!(actual, expected);
}

#[test]
fn attributes_reach_the_layers_below() {
    let expected = [
        ("skipped.fine.0", "attribute"),
        ("skipped.fine.1.a", "attribute"),
        ("skipped.fine.1.b", "attribute"),
        ("skipped.inherits.a", "attribute"),
        ("skipped.inherits.b", "attribute"),
        ("skipped.never.0", "attribute"),
        ("skipped.never.1", "attribute"),
        ("coarse.fine.0", "E3M4"),
        ("coarse.fine.1.a", "E3M4"),
        ("coarse.fine.1.b", "E2M5"),
        ("coarse.inherits.a", "E5M2"),
        ("coarse.inherits.b", "E2M5"),
        ("coarse.never.0", "attribute"),
        ("coarse.never.1", "attribute"),
        ("plain.fine.0", "E3M4"),
        ("plain.fine.1.a", "E3M4"),
        ("plain.fine.1.b", "E2M5"),
        ("plain.inherits.a", "E4M3"),
        ("plain.inherits.b", "E2M5"),
        ("plain.never.0", "attribute"),
        ("plain.never.1", "attribute"),
    ];
    assert_outcome(QuantConfig::new(Fp8::E4M3), &expected);
}

/// `skip` before a rule, a rule before `recipe`, `recipe` before the default.
#[test]
fn precedence() {
    let config = QuantConfig::new(Fp8::E4M3)
        .rule("**.never", Fp8::E6M1)
        .rule("skipped.fine.0", Fp8::E6M1)
        .rule("coarse.fine", None)
        .rule("**.b", Fp8::E7M0)
        .rule("plain.fine.0", Fp8::E6M1);
    // The first two rules apply to skipped layers only: they match, and do not win.
    let expected = [
        ("skipped.fine.0", "attribute"),
        ("skipped.fine.1.a", "attribute"),
        ("skipped.fine.1.b", "attribute"),
        ("skipped.inherits.a", "attribute"),
        ("skipped.inherits.b", "attribute"),
        ("skipped.never.0", "attribute"),
        ("skipped.never.1", "attribute"),
        ("coarse.fine.0", "rule coarse.fine"),
        ("coarse.fine.1.a", "rule coarse.fine"),
        ("coarse.fine.1.b", "rule coarse.fine"),
        ("coarse.inherits.a", "E5M2"),
        ("coarse.inherits.b", "E7M0"),
        ("coarse.never.0", "attribute"),
        ("coarse.never.1", "attribute"),
        ("plain.fine.0", "E6M1"),
        ("plain.fine.1.a", "E3M4"),
        ("plain.fine.1.b", "E7M0"),
        ("plain.inherits.a", "E4M3"),
        ("plain.inherits.b", "E7M0"),
        ("plain.never.0", "attribute"),
        ("plain.never.1", "attribute"),
    ];
    assert_outcome(config, &expected);
}

/// The expression of a recipe is evaluated at each visit, and an error that it raises with `?` ends the visit.
#[test]
fn a_recipe_that_fails() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static EVALUATED: AtomicUsize = AtomicUsize::new(0);
    fn recipe() -> altgrad::Result<Fp8> {
        match EVALUATED.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(Fp8::E4M3),
            _ => Ok(Fp8::new(9, 9, 0, altgrad::Specials::None)?),
        }
    }
    #[derive(Quantizable)]
    struct Model {
        #[quant(recipe = recipe()?)]
        layer: Linear,
    }

    let model = Model { layer: layer() };
    assert_eq!(model.layers().unwrap().len(), 1);
    assert!(matches!(model.layers(), Err(Error::Format(FormatError::InvalidFormat { .. }))));
    assert_eq!(EVALUATED.load(Ordering::Relaxed), 2);
}
