//! Which weights are quantized: rules, and what is an embedding.

use altgrad::report::SkipReason;
use altgrad::{ConfigError, Error, Fp8, QuantConfig, QuantizedVarBuilder};
use candle_core::Tensor;
use candle_nn::{embedding, linear_no_bias};

use crate::common::sorted;
use crate::{bits, builder_of, by_hand, quantized_paths, skipped, variables};

const NAMES: [&str; 4] = ["decoder.embed_positions", "decoder.fc", "decoder.shared_gate", "head"];

/// What a builder hands out by name alone for [`NAMES`], with the same map of plain tensors.
fn ask(config: QuantConfig) -> (QuantizedVarBuilder<'static>, Vec<Tensor>, candle_nn::VarMap) {
    let names = NAMES.map(|name| format!("{name}.weight"));
    let variables = variables(&names.each_ref().map(|name| (name.as_str(), [4, 4].as_slice())), 1);
    let quantized = QuantizedVarBuilder::new(builder_of(&variables), config).unwrap();
    let tensors = names.iter().map(|name| quantized.builder().get((4, 4), name).unwrap()).collect();
    (quantized, tensors, variables)
}

#[test]
fn by_name_alone_all_but_embeddings_are_linear_weights() {
    let (quantized, tensors, variables) = ask(Fp8::E4M3.into());
    let expected = by_hand(&variables, &NAMES.map(str::to_owned)[1..], &Fp8::E4M3.into());
    for (name, tensor) in NAMES.iter().zip(&tensors) {
        assert_eq!(bits(tensor), bits(&expected[&format!("{name}.weight")]), "{name}");
    }
    assert_eq!(tensors[0].id(), sorted(&variables)[0].1.id(), "an embedding is handed on as it is");

    let report = quantized.report().unwrap();
    let paths: Vec<_> = report.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths, NAMES, "in the order in which they were asked for");
    assert_eq!(skipped(&report), [(NAMES[0], SkipReason::Embedding)]);
    assert_eq!(SkipReason::Embedding.to_string(), "embedding");
}

#[test]
fn a_rule_includes_an_embedding_if_it_names_it() {
    for (pattern, names_it) in [
        ("decoder.embed_positions", true),
        ("**.embed_positions", true),
        ("decoder.*", true),
        ("*.embed_*", true),
        (r"re:.*\.embed_positions", true),
        ("decoder", false),
        ("**", false),
        ("*", false),
        ("re:.*", false),
    ] {
        let (quantized, tensors, variables) = ask(QuantConfig::new(Fp8::E4M3).rule(pattern, Fp8::E3M4));
        let report = quantized.report().unwrap();
        let format = report.layers[0].format;
        assert_eq!(format, names_it.then_some(Fp8::E3M4), "{pattern}");
        let paths = if names_it { vec![NAMES[0].to_owned()] } else { Vec::new() };
        let expected = by_hand(&variables, &paths, &Fp8::E3M4.into());
        assert_eq!(bits(&tensors[0]), bits(&expected["decoder.embed_positions.weight"]), "{pattern}");
    }
    let (quantized, ..) = ask(QuantConfig::new(Fp8::E4M3).skip("decoder"));
    let rule = SkipReason::Rule("decoder".to_owned());
    assert_eq!(skipped(&quantized.report().unwrap())[0], (NAMES[0], rule), "a rule is the better reason");
}

#[test]
fn constructors_of_candle_tell_what_their_tables_are() {
    let variables = variables(&[("fc.weight", &[4, 4]), ("wte.weight", &[4, 4])], 2);
    // Each the other way round from what its path suggests.
    let quantized = QuantizedVarBuilder::new(builder_of(&variables), Fp8::E4M3).unwrap();
    let table = embedding(4, 4, quantized.builder().pp("fc")).unwrap();
    let layer = linear_no_bias(4, 4, quantized.builder().pp("wte")).unwrap();
    let expected = by_hand(&variables, &["wte".to_owned()], &Fp8::E4M3.into());
    assert_eq!(table.embeddings().id(), sorted(&variables)[0].1.id());
    assert_eq!(bits(layer.weight()), bits(&expected["wte.weight"]));
    let report = quantized.report().unwrap();
    assert_eq!((report.layers.len(), quantized_paths(&report)), (1, vec!["wte"]));
}

#[test]
fn a_rule_that_matches_nothing_or_never_applies_is_an_error_of_the_report() {
    let (quantized, ..) = ask(QuantConfig::new(Fp8::E4M3).skip("decoder.fcc"));
    match quantized.report().unwrap_err() {
        Error::Config(ConfigError::RuleMatchesNothing { pattern, nearest }) => {
            assert_eq!((pattern.as_str(), nearest[0].as_str()), ("decoder.fcc", "decoder.fc"));
        }
        other => panic!("{other}"),
    }
    let (quantized, ..) = ask(QuantConfig::new(Fp8::E4M3).skip("decoder").rule("decoder.fc", Fp8::E3M4));
    match quantized.report().unwrap_err() {
        Error::Config(ConfigError::RuleNeverApplies { pattern, earlier }) => {
            assert_eq!((pattern.as_str(), earlier), ("decoder.fc", vec!["decoder".to_owned()]));
        }
        other => panic!("{other}"),
    }
}
