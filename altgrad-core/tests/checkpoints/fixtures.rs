//! Checkpoints that the reference implementations wrote (`make_fixtures.py`): the same values, formats and
//! granularities.

use std::collections::BTreeSet;
use std::path::PathBuf;

use altgrad_core::checkpoint::Checkpoint;
use altgrad_core::{E8M0Rule, Fp8, Granularity, Linear, Quantizer, ScaleEncoding, Scaling, linear_no_bias};
use candle_core::safetensors::load;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::Value;

/// What the reference says of a checkpoint.
#[derive(Deserialize)]
struct Fixture {
    name: String,
    dialect: String,
    tensors: Vec<Quantized>,
}

#[derive(Deserialize)]
struct Quantized {
    name: String,
    format: String,
    granularity: Value,
    activations: Value,
}

/// Where torchao divided a row of zeros by a scale of zero, which left NaN.
const ZERO_ROW: &str = "torchao-row-zero-row";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints/fixtures")
}

fn fixtures() -> Vec<Fixture> {
    let fixtures: Vec<Fixture> =
        serde_json::from_slice(&std::fs::read(folder().join("manifest.json")).unwrap()).unwrap();
    assert!(fixtures.len() > 40);
    fixtures.into_iter().filter(|fixture| fixture.name != ZERO_ROW).collect()
}

/// `"tensor"`, `"row"`, or the rows and columns of a block; null for codes without scales.
fn granularity(value: &Value) -> Granularity {
    match value {
        Value::Null => Granularity::PerTensor,
        Value::String(text) if text == "tensor" => Granularity::PerTensor,
        Value::String(text) if text == "row" => Granularity::PerRow,
        Value::Array(sides) => {
            let side = |i: usize| usize::try_from(sides[i].as_u64().unwrap()).unwrap();
            Granularity::PerBlock { rows: side(0), cols: side(1) }
        }
        other => panic!("{other}"),
    }
}

fn assert_activations(actual: Option<&Quantizer>, expected: &Value, what: &str) {
    match (actual, expected) {
        (None, Value::Null) => {}
        (Some(quantizer), Value::Object(fixed)) if fixed.contains_key("static") => {
            let scale = fixed["static"].as_f64().unwrap() as f32;
            assert_eq!(quantizer.scaling, Scaling::Static(scale), "{what}");
        }
        (Some(quantizer), Value::Object(fields)) => {
            assert_eq!(quantizer.format, fields["format"].as_str().unwrap().parse().unwrap(), "{what}");
            assert_eq!(quantizer.granularity, granularity(&fields["granularity"]), "{what}");
            let encoding = match fields["rule"].as_str() {
                None => ScaleEncoding::F32Reciprocal,
                Some("floor") => ScaleEncoding::E8M0(E8M0Rule::Floor),
                Some("round_up") => ScaleEncoding::E8M0(E8M0Rule::RoundUp),
                Some(other) => panic!("{other}"),
            };
            assert_eq!(quantizer.scale_encoding, encoding, "{what}");
        }
        (actual @ None, expected) | (actual @ Some(_), expected @ Value::Null) => {
            panic!("{what}: inputs {actual:?}, expected {expected}")
        }
        (Some(quantizer), expected) => assert_eq!(quantizer.granularity, granularity(expected), "{what}"),
    }
}

/// Bits, with one pattern for all NaN.
fn canonical(tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect()
}

#[test]
fn values_are_those_of_the_reference() {
    let mut compared = 0;
    for fixture in fixtures() {
        let path = folder().join(&fixture.name);
        let checkpoint = Checkpoint::open(&[&path]).unwrap_or_else(|error| panic!("{}: {error}", fixture.name));
        assert_eq!(checkpoint.dialect().name(), fixture.dialect, "{}", fixture.name);
        let expected = load(path.join("expected.safetensors"), &Device::Cpu).unwrap();
        for (name, expected) in &expected {
            let what = format!("{}: {name}", fixture.name);
            let actual = checkpoint
                .tensor(name, expected.dtype(), &Device::Cpu)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(actual.dims(), expected.dims(), "{what}");
            assert_eq!(canonical(&actual), canonical(expected), "{what}");
            compared += expected.elem_count();
        }
        let names: BTreeSet<&str> = checkpoint.names().collect();
        for tensor in &fixture.tensors {
            assert!(names.contains(tensor.name.as_str()), "{}: {}", fixture.name, tensor.name);
        }
    }
    assert!(compared > 50_000, "{compared}");
}

#[test]
fn formats_and_granularities_are_those_of_the_reference() {
    for fixture in fixtures() {
        let quantized = Checkpoint::open(&[folder().join(&fixture.name)]).unwrap().quantized().unwrap();
        let names: BTreeSet<&str> = quantized.iter().map(|stored| stored.name.as_str()).collect();
        let expected: BTreeSet<&str> = fixture.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, expected, "{}", fixture.name);
        for tensor in &fixture.tensors {
            let what = format!("{}: {}", fixture.name, tensor.name);
            let stored = quantized.iter().find(|stored| stored.name == tensor.name).unwrap();
            assert_eq!(stored.format, tensor.format.parse::<Fp8>().unwrap(), "{what}");
            assert_eq!(stored.granularity, granularity(&tensor.granularity), "{what}");
            assert_activations(stored.activations.as_ref(), &tensor.activations, &what);
        }
    }
}

#[test]
fn every_quantized_matrix_becomes_a_frozen_layer() {
    for fixture in fixtures() {
        let path = folder().join(&fixture.name);
        let checkpoint = Checkpoint::open(&[&path]).unwrap();
        let vb = checkpoint.var_builder(DType::F32, &Device::Cpu);
        for stored in checkpoint.quantized().unwrap() {
            let (Some(layer), &[outputs, inputs]) = (stored.name.strip_suffix(".weight"), &stored.shape[..]) else {
                continue;
            };
            let what = format!("{}: {layer}", fixture.name);
            let slot = linear_no_bias(inputs, outputs, vb.pp(layer)).unwrap_or_else(|error| panic!("{what}: {error}"));
            let Linear::Frozen(frozen) = &slot else { panic!("{what} is not frozen") };
            assert_eq!(frozen.granularity(), stored.granularity, "{what}");
            let values = checkpoint.tensor(&stored.name, DType::F32, &Device::Cpu).unwrap();
            assert_eq!(canonical(&slot.weight().unwrap()), canonical(&values), "{what}");
        }
    }
}

#[test]
fn a_row_that_became_nan_is_an_error() {
    let checkpoint = Checkpoint::open(&[folder().join(ZERO_ROW)]).unwrap();
    let error = checkpoint.tensor("model.layers.0.mlp.up_proj.weight", DType::F32, &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("`model.layers.0.mlp.up_proj._weight_scale` has scale 0 at index 6"), "{error}");
}
