//! Codes and scales of whole tensors against the tables of torchao, compressed-tensors, gfloat and the MX
//! specification.

use altgrad_core::{E8M0Rule, Fp8Tensor, Quantizer, Recipe, ScaleEncoding, Scaling, fake_quantize};
use altgrad_testing::{BF16, Oracle};
use candle_core::DType;

use crate::tables::{Decoder, Inputs, Table, Tally, dtypes, oracle, tables};
use crate::values;

// What the files hold.
const TENSORWISE: Tally = Tally { tables: 78, scales: 78, codes: 39_212 };
const ROWWISE: Tally = Tally { tables: 78, scales: 2778, codes: 39_338 };
const BLOCKWISE: Tally = Tally { tables: 120, scales: 3412, codes: 117_507 };
const MXFP8: Tally = Tally { tables: 80, scales: 4659, codes: 78_338 };
const MXFP8_ROUND_UP: Tally = Tally { tables: 79, scales: 3909, codes: 58_838 };
const WEIGHT_ONLY: Tally = Tally { tables: 224, scales: 224, codes: 110_964 };
const WEIGHT_ONLY_GRANULAR: Tally = Tally { tables: 268, scales: 3989, codes: 152_521 };

/// The quantizer of a recipe for one of its roles.
fn quantizer(recipe: &Recipe, role: &str) -> Quantizer {
    match role {
        "weights" => recipe.weights.clone(),
        "activations" => recipe.activations.clone().unwrap(),
        "gradients" => recipe.gradients.clone().unwrap(),
        _ => panic!("{role}"),
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Compares everything there is to compare of one table.
fn compare(table: &Table, quantizer: &Quantizer, inputs: &Inputs, decoder: &mut Decoder) {
    for &dtype in dtypes(&table.input) {
        let what = format!("{} {} {:?} {dtype:?}", table.recipe, table.input, table.granularity);
        let x = inputs.of(table, dtype);
        assert!(!table.transposed || !x.is_contiguous() || table.dims.0 == 1 || table.dims.1 == 1, "{what}");
        assert_eq!((quantizer.format, quantizer.granularity), (table.format, table.granularity), "{what}");

        let packed = Fp8Tensor::quantize(&x, quantizer).unwrap();
        let scales: Vec<f32> = packed.scales().flatten_all().unwrap().to_vec1().unwrap();
        let scale_bits = |scales: &[f32]| scales.iter().map(|scale| scale.to_bits()).collect::<Vec<_>>();
        assert_eq!(scale_bits(&scales), scale_bits(&table.scales), "{what}: scales");
        let codes: Vec<u8> = packed.codes().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(codes, table.codes, "{what}: codes");
        assert_eq!(packed.shape().dims2().unwrap(), table.dims, "{what}");
        match packed.scales().rank() {
            0 => assert_eq!(table.scale_dims, (1, 1), "{what}"),
            _ => assert_eq!(packed.scales().dims2().unwrap(), table.scale_dims, "{what}"),
        }

        let expected = bits(&decoder.values(table, dtype));
        let fake = fake_quantize(&x, quantizer).unwrap();
        assert_eq!((fake.dtype(), fake.dims2().unwrap()), (dtype, table.dims), "{what}");
        assert_eq!(bits(&values(&fake)), expected, "{what}: fake quantization");
        assert_eq!(bits(&values(&packed.dequantize().unwrap())), expected, "{what}: dequantization");
    }
}

/// Halves the scales whose product with the largest value of the format is no finite `f32`, and takes the codes of
/// those blocks from the oracle; says how many scales that are.
///
/// The sources of the tables have scales up to 2¹²⁷ or beyond, with which values next to `f32::MAX` come back as
/// infinity; altgrad's documentation rules that out.
fn make_finite(table: &mut Table, inputs: &Inputs) -> usize {
    let oracle = oracle(table.format);
    let largest = oracle.largest() as f32;
    let changed: Vec<bool> = table.scales.iter().map(|scale| (scale * largest).is_infinite()).collect();
    for scale in &mut table.scales {
        while (*scale * largest).is_infinite() {
            *scale /= 2.0;
        }
    }
    for (i, x) in values(&inputs.of(table, DType::F32)).into_iter().enumerate() {
        let block = table.block(i);
        if changed[block] {
            table.codes[i] = oracle.saturated(f64::from(x as f32 / table.scales[block])).unwrap();
        }
    }
    changed.iter().filter(|changed| **changed).count()
}

/// Compares all tables of a file in all of their roles, and says how many; `beyond` scales of them are too large.
fn compare_file(file: &str, quantizers: impl Fn(&Table, &str) -> Quantizer, expected: Tally, beyond: usize) {
    let (inputs, mut decoder) = (Inputs::read(), Decoder::default());
    let (mut tally, mut changed) = (Tally::default(), 0);
    for mut table in tables(file) {
        assert_eq!(table.recipe, file);
        changed += make_finite(&mut table, &inputs);
        for role in &table.roles {
            compare(&table, &quantizers(&table, role), &inputs, &mut decoder);
        }
        tally.add(&table);
    }
    println!("{file}: {tally:?}, {changed} scales halved");
    assert_eq!(tally, Tally::of_file(file));
    assert_eq!(tally, expected, "the file has other tables than it had");
    assert_eq!(changed, beyond, "scales that are too large");
}

fn weights(table: &Table, role: &str) -> Quantizer {
    assert_eq!(role, "weights");
    Quantizer::new(table.format).granularity(table.granularity).scaling(Scaling::Current)
}

#[test]
fn tensorwise_is_that_of_torchao() {
    let recipe = Recipe::tensorwise();
    compare_file("tensorwise", |_, role| quantizer(&recipe, role), TENSORWISE, 0);
}

#[test]
fn rowwise_is_that_of_torchao() {
    let recipe = Recipe::rowwise();
    compare_file("rowwise", |_, role| quantizer(&recipe, role), ROWWISE, 43);
}

#[test]
fn blockwise_is_that_of_torchao() {
    let recipe = Recipe::blockwise();
    compare_file("blockwise", |_, role| quantizer(&recipe, role), BLOCKWISE, 0);
}

#[test]
fn mxfp8_is_that_of_the_specification() {
    let recipe = Recipe::mxfp8();
    compare_file("mxfp8", |_, role| quantizer(&recipe, role), MXFP8, 0);
}

#[test]
fn mxfp8_rounded_up_is_that_of_torchao() {
    let recipe = Recipe::mxfp8();
    let round_up = ScaleEncoding::E8M0(E8M0Rule::RoundUp);
    compare_file("mxfp8_round_up", |_, role| quantizer(&recipe, role).scale_encoding(round_up), MXFP8_ROUND_UP, 45);
}

#[test]
fn weights_under_one_scale_are_those_of_compressed_tensors() {
    compare_file("weight_only", weights, WEIGHT_ONLY, 0);
}

#[test]
fn weights_by_row_and_by_block_are_those_of_compressed_tensors() {
    compare_file("weight_only_granular", weights, WEIGHT_ONLY_GRANULAR, 0);
}

#[test]
fn bf16_inputs_hold_bf16_values() {
    let inputs = Inputs::read();
    assert_eq!(inputs.names().filter(|name| name.starts_with("bf16")).count(), 3);
    let mut seen = 0;
    for table in tables("weight_only").iter().filter(|table| table.input.starts_with("bf16")) {
        let exact = values(&inputs.of(table, DType::F32));
        assert_eq!(bits(&exact), bits(&values(&inputs.of(table, DType::BF16))), "{}", table.input);
        assert!(exact.iter().all(|value| BF16.nearest(*value) == *value), "{}", table.input);
        seen += exact.len();
    }
    assert!(seen > 0);
}

#[test]
fn tables_tell_a_product_with_the_multiplier_from_a_quotient() {
    // Or else equality with the tables would not say which of the two a recipe computes.
    let inputs = Inputs::read();
    let mut differences = 0;
    for table in tables("tensorwise") {
        let oracle: Oracle = oracle(table.format);
        let quotients = values(&inputs.of(&table, DType::F32)).into_iter().map(|x| x as f32 / table.scales[0]);
        let codes = quotients.map(|quotient| oracle.saturated(quotient.into()).unwrap());
        differences += codes.zip(&table.codes).filter(|(quotient, code)| quotient != *code).count();
    }
    println!("tensorwise: {differences} codes differ between multiplication and division");
    assert!(differences > 10, "{differences}");
}
