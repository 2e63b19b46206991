//! Weights that are used twice: what is quantized, in whatever order a model asks.

use altgrad::report::SkipReason;
use altgrad::{Fp8, QuantConfig, QuantizedVarBuilder, Recipe, Ste, TiePolicy, fake_quantize};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap, embedding, linear_no_bias};

use crate::common::{Numbers, sorted};
use crate::{bits, builder_of, quantized_paths, skipped, variables};

const POLICIES: [TiePolicy; 2] = [TiePolicy::KeepFullPrecision, TiePolicy::Quantize];

fn one(seed: u64) -> VarMap {
    variables(&[("wte.weight", &[4, 4])], seed)
}

fn wrap(vb: VarBuilder<'_>, ties: TiePolicy) -> QuantizedVarBuilder<'_> {
    QuantizedVarBuilder::new(vb, QuantConfig::new(Fp8::E4M3).ties(ties)).unwrap()
}

/// Checks an embedding's table and a linear layer's weight made from one variable against the policy.
fn check(quantized: &QuantizedVarBuilder<'_>, table: &Tensor, weight: &Tensor, variable: &Tensor, ties: TiePolicy) {
    assert_eq!(bits(table), bits(variable), "an embedding is never quantized");
    let report = quantized.report().unwrap();
    if ties == TiePolicy::KeepFullPrecision {
        assert_eq!(bits(weight), bits(variable));
        assert_eq!(skipped(&report), [("wte", SkipReason::Tied("wte.weight".to_owned()))]);
    } else {
        assert_eq!(bits(weight), bits(&fake_quantize(variable, &Fp8::E4M3.into()).unwrap()));
        assert_eq!(quantized_paths(&report), ["wte"]);
    }
    assert_eq!(report.layers.len(), 1);
}

#[test]
fn a_head_that_asks_for_the_embedding_follows_the_policy() {
    for ties in POLICIES {
        let variables = one(1);
        let variable = sorted(&variables)[0].1.clone();
        let quantized = wrap(builder_of(&variables), ties);
        let table = embedding(4, 4, quantized.builder().pp("wte")).unwrap();
        let head = linear_no_bias(4, 4, quantized.builder().pp("wte")).unwrap();
        check(&quantized, table.embeddings(), head.weight(), &variable, ties);
        if ties == TiePolicy::KeepFullPrecision {
            assert_eq!(head.weight().id(), table.embeddings().id(), "a tie is never broken");
        }
    }
}

#[test]
fn a_builder_that_loads_anew_each_time_is_no_different() {
    for ties in POLICIES {
        let tensor = Numbers::new(2).tensor((4, 4));
        let tensors = [("wte.weight".to_owned(), tensor.clone())].into_iter().collect();
        // The conversion makes a new tensor for each request.
        let vb = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
        let quantized = wrap(vb, ties);
        let table = embedding(4, 4, quantized.builder().pp("wte")).unwrap();
        let head = linear_no_bias(4, 4, quantized.builder().pp("wte")).unwrap();
        check(&quantized, table.embeddings(), head.weight(), &tensor.to_dtype(DType::F64).unwrap(), ties);
    }
}

#[test]
fn a_table_asked_for_by_name_and_again_as_a_layer_follows_the_policy() {
    for ties in POLICIES {
        let variables = one(3);
        let variable = sorted(&variables)[0].1.clone();
        let quantized = wrap(builder_of(&variables), ties);
        let table = quantized.builder().get((4, 4), "wte.weight").unwrap();
        assert_eq!(skipped(&quantized.report().unwrap()), [("wte", SkipReason::Embedding)]);
        let head = linear_no_bias(4, 4, quantized.builder().pp("wte")).unwrap();
        check(&quantized, &table, head.weight(), &variable, ties);
    }
}

#[test]
fn a_layer_that_turns_out_to_be_tied_gets_its_full_precision_back() {
    for ties in POLICIES {
        let variables = one(4);
        let variable = sorted(&variables)[0].1.clone();
        let config = QuantConfig::new(Recipe::from(Fp8::E4M3).ste(Ste::Clipped)).ties(ties);
        let quantized = QuantizedVarBuilder::new(builder_of(&variables), config).unwrap();
        let head = linear_no_bias(4, 4, quantized.builder().pp("wte")).unwrap();
        assert_eq!(quantized_paths(&quantized.report().unwrap()), ["wte"]);
        let table = embedding(4, 4, quantized.builder().pp("wte")).unwrap();
        check(&quantized, table.embeddings(), head.weight(), &variable, ties);

        // It stays so: values follow, gradients pass.
        variable.set(&(Numbers::new(5).tensor((4, 4)) * 9.0).unwrap()).unwrap();
        quantized.requantize().unwrap();
        check(&quantized, table.embeddings(), head.weight(), &variable, ties);
        let gradients = head.weight().sum_all().unwrap().backward().unwrap();
        assert_eq!(crate::common::values(gradients.get(&variable).unwrap()), [1.0; 16]);
    }
}

#[test]
fn one_tensor_under_two_names_is_a_tie_of_both() {
    for ties in POLICIES {
        let variables = variables(&[("fc.weight", &[4, 4])], 6);
        let variable = sorted(&variables)[0].1.clone();
        let vb = builder_of(&variables).rename_f(|_| "fc.weight".to_owned());
        let quantized = wrap(vb, ties);
        let [one, two] = ["a", "b"].map(|name| linear_no_bias(4, 4, quantized.builder().pp(name)).unwrap());
        let report = quantized.report().unwrap();
        let expected = if ties == TiePolicy::Quantize {
            assert_eq!(quantized_paths(&report), ["a", "b"]);
            fake_quantize(&variable, &Fp8::E4M3.into()).unwrap()
        } else {
            let tied = |name: &str| SkipReason::Tied(format!("{name}.weight"));
            assert_eq!(skipped(&report), [("a", tied("b")), ("b", tied("a"))]);
            variable.as_tensor().clone()
        };
        assert_eq!((bits(one.weight()), bits(two.weight())), (bits(&expected), bits(&expected)));
    }
}

#[test]
fn two_models_from_one_builder_share_their_weights() {
    let variables = variables(&[("wte.weight", &[4, 4]), ("fc.weight", &[4, 4])], 7);
    let quantized = wrap(builder_of(&variables), TiePolicy::KeepFullPrecision);
    let build = |vb: VarBuilder<'_>| {
        embedding(4, 4, vb.pp("wte")).unwrap();
        let fc = linear_no_bias(4, 4, vb.pp("fc")).unwrap();
        (fc.weight().id(), linear_no_bias(4, 4, vb.pp("wte")).unwrap().weight().id())
    };
    assert_eq!(build(quantized.builder()), build(quantized.builder()));
    let report = quantized.report().unwrap();
    assert_eq!((report.layers.len(), quantized_paths(&report)), (2, vec!["fc"]));
}
