//! Steps: scales, histories and random draws move as those of altgrad's own layers do, all together or not at all.

use altgrad::{Fp8, Linear, QuantConfig, Quantizable, QuantizedVarBuilder, Quantizer, Recipe, Rounding, Scaling};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{VarMap, linear_no_bias};

use crate::common::{Numbers, sorted};
use crate::{Model, bits, builder_of, variables};

fn quantizers() -> Vec<Quantizer> {
    let e4m3 = Quantizer::new(Fp8::E4M3);
    vec![
        e4m3.clone().scaling(Scaling::Current),
        e4m3.clone().scaling(Scaling::Window { len: 3 }),
        e4m3.clone().scaling(Scaling::Delayed { len: 2, margin: 1 }),
        e4m3.clone().scaling(Scaling::Static(0.25)),
        e4m3.rounding(Rounding::Stochastic { seed: 7 }),
    ]
}

/// Moves a variable, by growing and shrinking factors.
fn move_to(variables: &VarMap, step: u64) {
    for (_, variable) in sorted(variables) {
        let factor = [1.0, 600.0, 30.0, 2.0, 0.1, 5.0][step as usize % 6];
        variable.set(&(Numbers::new(step).tensor(variable.shape()) * factor).unwrap()).unwrap();
    }
}

#[test]
fn a_step_is_one_of_a_layer_that_trains() {
    for quantizer in quantizers() {
        let variables = variables(&[("fc.weight", &[8, 6])], 1);
        let weight = sorted(&variables)[0].1.as_tensor().clone();
        let mut own = Model { fc: Linear::new(weight, None) };
        own.quantize(quantizer.clone()).unwrap();
        let quantized = QuantizedVarBuilder::new(builder_of(&variables), quantizer.clone()).unwrap();
        let layer = linear_no_bias(6, 8, quantized.builder().pp("fc")).unwrap();
        for step in 0..12 {
            if step > 0 {
                move_to(&variables, step);
                quantized.requantize().unwrap();
            }
            let Linear::Quantized(own) = &own.fc else { panic!("it was quantized") };
            let expected = own.quantized_weight().unwrap().dequantize().unwrap();
            assert_eq!(bits(layer.weight()), bits(&expected), "{quantizer:?}, step {step}");
            own.forward(&Tensor::zeros((1, 6), DType::F32, &Device::Cpu).unwrap()).unwrap();
        }
    }
}

#[test]
fn delayed_scaling_by_hand() {
    let variables = variables(&[("fc.weight", &[1, 2])], 2);
    let set = |values: [f32; 2]| sorted(&variables)[0].1.set(&Tensor::new(&[values], &Device::Cpu).unwrap()).unwrap();
    let delayed = Quantizer::new(Fp8::E4M3).scaling(Scaling::Delayed { len: 1, margin: 0 });
    set([1000.0, 17.0]);
    let quantized = QuantizedVarBuilder::new(builder_of(&variables), delayed).unwrap();
    let layer = linear_no_bias(2, 1, quantized.builder().pp("fc")).unwrap();
    let values = || crate::common::values(layer.weight());
    // Scale 1: 1000 saturates, 17 is a tie between 16 and 18.
    assert_eq!(values(), [448.0, 16.0]);
    // Scale 1000/448 from the step before; 448/448 of it is 1000 again.
    quantized.requantize().unwrap();
    assert_eq!(values()[0], 1000.0);
    // Still 1000/448, which 2000 is beyond; then 2000/448.
    set([2000.0, 0.0]);
    quantized.requantize().unwrap();
    assert_eq!(values(), [1000.0, 0.0]);
    quantized.requantize().unwrap();
    assert_eq!(values(), [2000.0, 0.0]);
}

#[test]
fn an_error_leaves_all_weights_and_histories_as_they_were() {
    for quantizer in quantizers() {
        let names = [("a.weight", [4, 4].as_slice()), ("b.weight", &[4, 4])];
        let (variables, control) = (variables(&names, 3), variables(&names, 3));
        let wrap = |variables: &VarMap| {
            let quantized = QuantizedVarBuilder::new(builder_of(variables), quantizer.clone()).unwrap();
            let layers = ["a", "b"].map(|name| linear_no_bias(4, 4, quantized.builder().pp(name)).unwrap());
            (quantized, layers.map(|layer| layer.weight().clone()))
        };
        let ((quantized, weights), (control_quantized, control_weights)) = (wrap(&variables), wrap(&control));
        let all = |weights: &[Tensor; 2]| weights.each_ref().map(bits);
        let before = all(&weights);

        move_to(&variables, 1);
        sorted(&variables)[1].1.set(&Tensor::full(f32::NAN, (4, 4), &Device::Cpu).unwrap()).unwrap();
        let error = quantized.requantize().unwrap_err().to_string();
        assert!(error.contains("layer `b`") && error.contains("NaN"), "{error}");
        assert_eq!(all(&weights), before);

        for step in 2..8 {
            move_to(&variables, step);
            move_to(&control, step);
            quantized.requantize().unwrap();
            control_quantized.requantize().unwrap();
            assert_eq!(all(&weights), all(&control_weights), "{quantizer:?}, step {step}");
        }
    }
}

#[test]
fn layers_of_other_recipes_move_side_by_side() {
    let variables = variables(&[("a.weight", &[4, 4]), ("b.weight", &[4, 4]), ("c.weight", &[4, 4])], 4);
    let config = QuantConfig::new(Recipe::from(Fp8::E4M3)).skip("b").rule("c", Fp8::E5M2);
    let quantized = QuantizedVarBuilder::new(builder_of(&variables), config).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| linear_no_bias(4, 4, quantized.builder().pp(name)).unwrap());
    // The magnitude grows, so that the window's largest is the current one.
    for (_, variable) in sorted(&variables) {
        variable.set(&(Numbers::new(9).tensor((4, 4)) * 100.0).unwrap()).unwrap();
    }
    quantized.requantize().unwrap();
    let variables = sorted(&variables);
    let by_hand =
        |index: usize, format: Fp8| bits(&altgrad::fake_quantize(&variables[index].1, &format.into()).unwrap());
    assert_eq!(bits(a.weight()), by_hand(0, Fp8::E4M3));
    assert_eq!(b.weight().id(), variables[1].1.id());
    assert_eq!(bits(c.weight()), by_hand(2, Fp8::E5M2));
}
