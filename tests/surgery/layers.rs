//! What the layers compute in place, and what they refuse.

use super::common::{Gpt, gpt, tokens, values};
use super::*;
use altgrad::report::{Action, SkipReason};
use altgrad::{Fp8, Linear, Quantizable, Quantizer, Recipe, Scaling, Ste};
use candle_core::{DType, Device, Module, Tensor, Var};

#[test]
fn shapes_and_gradients_are_those_of_the_wrapped_layer() {
    for dims in [vec![5, 16], vec![2, 5, 16], vec![2, 3, 5, 16], vec![0, 16], vec![1, 1, 16]] {
        let (mut model, variables) = gpt(DType::F32, 5);
        let x = Var::from_tensor(&common::Numbers::new(6).tensor(dims.as_slice())).unwrap();
        let expected = model.h[0].mlp.c_fc.forward(&x).unwrap();
        model.quantize(Fp8::E4M3).unwrap();
        let y = model.h[0].mlp.c_fc.forward(&x).unwrap();
        assert_eq!(y.dims(), expected.dims());
        if dims[0] == 0 {
            continue;
        }
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let data = variables.data().lock().unwrap();
        for name in ["h.0.mlp.c_fc.weight", "h.0.mlp.c_fc.bias"] {
            assert_eq!(gradients.get(&data[name]).unwrap().dims(), data[name].dims());
        }
        assert_eq!(gradients.get(&x).unwrap().dims(), x.dims());
    }
}

/// Weight-only training differentiates the unquantized layer at the quantized weight.
#[test]
fn weight_only_gradients_are_the_unquantized_gradients_at_the_quantized_weight() {
    let numbers = common::Numbers::new(7);
    let weight = Var::from_tensor(&numbers.tensor((6, 5))).unwrap();
    let bias = Var::from_tensor(&numbers.tensor(6)).unwrap();
    let x = Var::from_tensor(&numbers.tensor((4, 5))).unwrap();
    let plain = candle_nn::Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
    let layer = altgrad::QuantizedLinear::new(plain, Fp8::E3M4).unwrap();
    let gradients = layer.forward(&x).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();

    let at = Var::from_tensor(&layer.quantized_weight().unwrap().dequantize().unwrap()).unwrap();
    let reference = candle_nn::Linear::new(at.as_tensor().clone(), Some(bias.as_tensor().clone()));
    let expected = reference.forward(&x).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
    for (ours, theirs) in [(&weight, &at), (&bias, &bias), (&x, &x)] {
        let [ours, theirs] = [gradients.get(ours), expected.get(theirs)].map(|gradient| values(gradient.unwrap()));
        let largest = theirs.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            // Sums of a few products, in another order than candle's.
            assert!((ours - theirs).abs() <= 1e-6 * largest, "{ours}, should be {theirs}");
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_mode() {
    let numbers = common::Numbers::new(8);
    let weight = Var::from_tensor(&numbers.tensor((6, 5))).unwrap();
    let x = numbers.tensor((4, 5));
    for ste in [Ste::PassThrough, Ste::Clipped] {
        let plain = candle_nn::Linear::new(weight.as_tensor().clone(), None);
        let mut layer = altgrad::QuantizedLinear::new(plain, Recipe::from(Fp8::E4M3).ste(ste)).unwrap();
        let gradient = |layer: &altgrad::QuantizedLinear| {
            let loss = layer.forward(&x).unwrap().sqr().unwrap().sum_all().unwrap();
            values(loss.backward().unwrap().get(&weight).unwrap())
        };
        let training = gradient(&layer);
        layer.set_training(false);
        assert_eq!(gradient(&layer), training);
        assert_eq!(gradient(&layer), training, "with the codes that the pass before kept");
    }
}

#[test]
fn histories_move_in_training_mode_only() {
    let (mut model, variables) = gpt(DType::F32, 20);
    model.quantize(Quantizer::new(Fp8::E4M3).scaling(Scaling::Window { len: 3 })).unwrap();
    let history = |model: &Gpt| {
        let Linear::Quantized(layer) = model.layer("h.0.mlp.c_fc").unwrap() else { panic!("not quantized") };
        layer.weight_history().iter().collect::<Vec<_>>()
    };
    let set = |value: f32| {
        let weight = Tensor::full(value, (64, 16), &Device::Cpu).unwrap();
        variables.data().lock().unwrap()["h.0.mlp.c_fc.weight"].set(&weight).unwrap();
    };
    let scale = |model: &Gpt| {
        let Linear::Quantized(layer) = model.layer("h.0.mlp.c_fc").unwrap() else { panic!("not quantized") };
        layer.quantized_weight().unwrap().scales().to_scalar::<f32>().unwrap()
    };
    assert!(history(&model).is_empty());
    // The largest of the last three steps, the current one included, over E4M3's 448.
    for (value, expected) in [(4.0, 4.0), (2.0, 4.0), (1.0, 4.0), (0.5, 2.0), (0.25, 1.0), (8.0, 8.0)] {
        set(value);
        assert_eq!(scale(&model), expected / 448.0, "weight of {value}");
        model.forward(&tokens(1, 4, 0)).unwrap();
    }
    assert_eq!(history(&model), [0.25, 8.0]);
    model.eval().unwrap();
    model.forward(&tokens(1, 4, 0)).unwrap();
    assert_eq!(history(&model), [0.25, 8.0]);
    model.train().unwrap();
    model.forward(&tokens(1, 4, 0)).unwrap();
    assert_eq!(history(&model), [8.0, 8.0]);
}

#[test]
fn a_new_eval_call_sees_weights_that_changed() {
    let (mut model, variables) = gpt(DType::F32, 21);
    model.quantize(Fp8::E4M3).unwrap();
    model.eval().unwrap();
    let before = values(&model.forward(&tokens(1, 4, 0)).unwrap());
    let ones = Tensor::ones((64, 16), DType::F32, &Device::Cpu).unwrap();
    variables.data().lock().unwrap()["h.0.mlp.c_fc.weight"].set(&ones).unwrap();
    model.eval().unwrap();
    assert_ne!(values(&model.forward(&tokens(1, 4, 0)).unwrap()), before);
}

#[test]
fn wrong_inputs_are_errors_that_name_the_layer() {
    let (mut model, _) = gpt(DType::F32, 22);
    model.quantize(Fp8::E4M3).unwrap();
    for frozen in [false, true] {
        if frozen {
            model.freeze().unwrap();
        }
        let layer = &model.h[1].mlp.c_fc;
        let x = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        for (input, part) in [
            (x(&[2, 16], DType::BF16), "the input has dtype BF16, expected F32"),
            (x(&[2, 15], DType::F32), "the input has shape [2, 15], expected (…, 16)"),
            (x(&[16], DType::F32), "the input has shape [16], expected (…, 16)"),
            (x(&[], DType::F32), "the input has shape []"),
        ] {
            let text = layer.forward(&input).unwrap_err().to_string();
            assert!(text.starts_with("layer `h.1.mlp.c_fc`: ") && text.contains(part), "{text}");
        }
    }
}

#[test]
fn weights_that_cannot_be_quantized_are_left_and_reported() {
    let (mut model, _) = gpt(DType::F32, 23);
    let codes = Tensor::ones((3, 4), DType::U32, &Device::Cpu).unwrap();
    *model.layer_mut("h.0.mlp.c_fc").unwrap() = Linear::new(codes, None);
    let report = model.quantize(Fp8::E4M3).unwrap();
    let action = &report.layer("h.0.mlp.c_fc").unwrap().action;
    assert_eq!(*action, Action::Skipped(SkipReason::Unsupported("weight of dtype U32".to_owned())));

    *model.layer_mut("h.0.mlp.c_fc").unwrap() = Linear::new(Tensor::ones(4, DType::F32, &Device::Cpu).unwrap(), None);
    let text = model.quantize(Fp8::E4M3).unwrap_err().to_string();
    assert!(text.contains("`h.0.mlp.c_fc`") && text.contains("two dimensions"), "{text}");

    let huge = Tensor::full(1e300f64, (3, 4), &Device::Cpu).unwrap();
    *model.layer_mut("h.0.mlp.c_fc").unwrap() = Linear::new(huge, None);
    let text = model.quantize(Fp8::E4M3).unwrap_err().to_string();
    assert!(text.contains("magnitude of 1e300"), "{text}");
}

#[test]
fn zero_and_empty_weights_work() {
    for shape in [(3, 4), (0, 4), (3, 0)] {
        let weight = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let mut model = vec![Linear::new(weight, None)];
        model.quantize(Fp8::E4M3).unwrap();
        let Linear::Quantized(layer) = &model[0] else { panic!("not quantized") };
        assert_eq!(layer.quantized_weight().unwrap().scales().to_scalar::<f32>().unwrap(), 1.0);
        let x = Tensor::ones((2, shape.1), DType::F32, &Device::Cpu).unwrap();
        if shape.0 != 0 && shape.1 != 0 {
            assert_eq!(values(&model[0].forward(&x).unwrap()), vec![0.0; 2 * shape.0]);
        }
        model.freeze().unwrap();
        model.dequantize().unwrap();
        assert_eq!(model[0].weight().unwrap().dims(), [shape.0, shape.1]);
    }
}
