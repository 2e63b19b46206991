//! Frozen layers, in a model and by themselves.

use super::common::{Gpt, gpt, tokens, values};
use super::*;
use altgrad::report::Action;
use altgrad::{Compute, Error, Fp8, Linear, ModelError, Quantizable, Quantizer};
use candle_core::DType;

#[test]
fn freezing_keeps_the_values_and_shrinks_the_weights() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        for format in [Fp8::E4M3, Fp8::E5M2, Fp8::E3M4, Fp8::E7M0, Fp8::E4M3_FNUZ] {
            let (mut model, _) = gpt(dtype, 16);
            model.quantize(format).unwrap();
            // What training computed with, through the differentiable path.
            let trained: Vec<_> = model
                .layers()
                .unwrap()
                .into_iter()
                .filter(|(_, layer)| layer.format().is_some())
                .map(|(path, layer)| {
                    let weight = layer.weight().unwrap();
                    (path, values(&altgrad::fake_quantize(&weight, &Quantizer::new(format)).unwrap()))
                })
                .collect();
            model.eval().unwrap();
            let logits = model.forward(&tokens(2, 8, 3)).unwrap();
            let report = model.freeze().unwrap();
            assert_eq!(kinds(&model), [["frozen"; 8].as_slice(), &["full"]].concat());
            assert_eq!(values(&model.forward(&tokens(2, 8, 3)).unwrap()), values(&logits));
            for (path, expected) in trained {
                let layer = model.layer(&path).unwrap();
                assert_eq!(values(&layer.weight().unwrap()), expected, "{path} {format} {dtype:?}");
                let Linear::Frozen(frozen) = layer else { panic!("not frozen") };
                assert_eq!(values(frozen.dequantize().unwrap().weight()), expected);
            }
            let entry = report.layer("h.0.attn.c_attn").unwrap();
            assert_eq!(entry.bytes_before, 48 * 16 * dtype.size_in_bytes());
            assert_eq!(entry.bytes_after, 48 * 16 + 4, "one byte a weight and one f32 scale");
        }
    }
}

#[test]
fn frozen_layers_read_activations_in_the_precision_that_the_model_is_set_to() {
    let (mut model, _) = gpt(DType::F32, 18);
    model.quantize(Fp8::E4M3).unwrap();
    model.set_compute(Compute::Bf16Activations).unwrap();
    model.freeze().unwrap();
    let set = |model: &Gpt| -> Vec<_> {
        let layers = model.layers().unwrap();
        let frozen = layers.into_iter().filter_map(|(_, layer)| match layer {
            Linear::Frozen(frozen) => Some(frozen.compute()),
            _ => None,
        });
        frozen.collect()
    };
    assert_eq!(set(&model), [Compute::Bf16Activations; 8], "slots remember it until there is something frozen");
    let rounded = values(&model.forward(&tokens(2, 8, 3)).unwrap());
    model.set_compute(Compute::Full).unwrap();
    assert_eq!(set(&model), [Compute::Full; 8]);
    let full = values(&model.forward(&tokens(2, 8, 3)).unwrap());
    let largest = full.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let difference = full.iter().zip(&rounded).fold(0.0, |largest: f64, (a, b)| largest.max((a - b).abs()));
    assert!(difference > 0.0 && difference < 0.05 * largest, "{difference} of {largest}");
    model.set_compute(Compute::Bf16Activations).unwrap();
    assert_eq!(values(&model.forward(&tokens(2, 8, 3)).unwrap()), rounded);
}

#[test]
fn a_frozen_layer_passes_the_gradient_to_its_input_and_its_bias() {
    let (mut model, variables) = gpt(DType::F32, 17);
    model.quantize(Fp8::E4M3).unwrap();
    model.freeze().unwrap();
    let gradients = model.loss(&tokens(2, 9, 0)).unwrap().backward().unwrap();
    let data = variables.data().lock().unwrap();
    assert!(gradients.get(&data["wte.weight"]).is_some());
    assert!(gradients.get(&data["h.0.mlp.c_fc.bias"]).is_some());
    assert!(gradients.get(&data["h.0.mlp.c_fc.weight"]).is_none(), "the codes are constants");
}

#[test]
fn a_frozen_model_dequantizes_to_what_it_computed_with_and_can_be_quantized_again() {
    let (mut model, _) = gpt(DType::F32, 18);
    model.quantize(Fp8::E4M3).unwrap();
    model.freeze().unwrap();
    let frozen = values(&model.layer("h.0.mlp.c_fc").unwrap().weight().unwrap());
    let text = model.quantize(Fp8::E4M3).unwrap_err().to_string();
    assert!(text.contains("`h.0.attn.c_attn`") && text.contains("call `dequantize`"), "{text}");
    assert!(model.freeze().unwrap().layers.iter().take(8).all(|layer| layer.action == Action::Frozen), "idempotent");

    model.dequantize().unwrap();
    assert_eq!(values(&model.layer("h.0.mlp.c_fc").unwrap().weight().unwrap()), frozen);
    model.quantize(Fp8::E4M3).unwrap();
    model.freeze().unwrap();
    assert_eq!(values(&model.layer("h.0.mlp.c_fc").unwrap().weight().unwrap()), frozen, "codes are stable");
}

#[test]
fn nothing_to_do_is_said() {
    let (mut model, _) = gpt(DType::F32, 19);
    assert!(matches!(model.freeze().unwrap_err(), Error::Model(ModelError::NothingToFreeze)));
    let mut none: Vec<Linear> = Vec::new();
    assert!(matches!(none.quantize(Fp8::E4M3).unwrap_err(), Error::Model(ModelError::NoLayers)));
    let text = model.layer("h.0.mlp.c_fcc").unwrap_err().to_string();
    assert!(text.starts_with("no layer has the path `h.0.mlp.c_fcc`; the nearest are `h.0.mlp.c_fc`"), "{text}");
    let text = model.layer_mut("head").unwrap_err().to_string();
    assert!(text.contains("`lm_head`"), "{text}");
}
