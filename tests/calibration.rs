//! Calibration: what is observed, what becomes of it, and what an error leaves behind.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use altgrad::{
    CalibrationConfig, Error, Fp8, Granularity, IdleLayers, Linear, ModelError, Observer, QuantConfig, Quantizable,
    Quantizer, Recipe, Scaling,
};
use candle_core::{DType, Device, Module, Tensor};
use common::{gpt, tokens, values};

/// Activations in one scale for the whole tensor, the backward pass in full precision.
fn recipe() -> Recipe {
    Recipe::tensorwise().gradients(None)
}

fn scaling(model: &common::Gpt, path: &str) -> Option<Scaling> {
    match model.layer(path).unwrap() {
        Linear::Quantized(layer) => layer.recipe().activations.as_ref().map(|quantizer| quantizer.scaling),
        _ => None,
    }
}

/// A layer that computes 2 x.
fn double(recipe: Recipe) -> Linear {
    let weight = (Tensor::eye(4, DType::F32, &Device::Cpu).unwrap() * 2.0).unwrap();
    let mut layer = Linear::new(weight, None);
    layer.quantize(recipe).unwrap();
    layer
}

#[test]
fn min_max_maps_the_largest_magnitude_to_the_largest_value() {
    let mut layer = double(recipe());
    let report = layer
        .calibrate(|layer| {
            layer.forward(&Tensor::new(&[[1f32, 2.0, 3.0, -896.0]], &Device::Cpu)?)?;
            layer.forward(&Tensor::new(&[[1f32, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], &Device::Cpu)?)?;
            Ok(())
        })
        .unwrap();
    assert_eq!(report.layers.len(), 1);
    let found = &report.layers[0];
    assert_eq!((found.path.as_str(), found.values, found.amax, found.scale), ("", 12, 896.0, 2.0));
    let Linear::Quantized(quantized) = &layer else { panic!("quantized") };
    assert_eq!(quantized.recipe().activations.as_ref().unwrap().scaling, Scaling::Static(2.0));
    // The scale is that of the calibration, whatever comes: 17 / 2 lies between 8 and 9 and 35 / 2 between 16 and 18.
    let y = layer.forward(&Tensor::new(&[[17f32, 35.0, 10_000.0, 0.0]], &Device::Cpu).unwrap()).unwrap();
    let expected = [2.0 * 8.0, 2.0 * 18.0, 2.0 * 448.0, 0.0].map(|quotient| 2.0 * quotient);
    for (y, expected) in values(&y).into_iter().zip(expected) {
        // Codes are exact, and the scale of the weight is 2 / 448 but for its rounding.
        assert!((y - expected).abs() <= 2f64.powi(-23) * expected, "{y}, should be {expected}");
    }
}

#[test]
fn forward_is_unquantized_while_calibrating_and_no_history_moves() {
    let (mut model, _) = gpt(DType::F32, 1);
    let text = tokens(2, 8, 0);
    let full = values(&model.forward(&text).unwrap());
    model.quantize(Recipe::hybrid()).unwrap();
    assert_ne!(values(&model.forward(&text).unwrap()), full);
    let before = model.quantizer_state().unwrap();
    let mut seen = Vec::new();
    model
        .calibrate(|model| {
            seen = values(&model.forward(&text)?);
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, full);
    let after = model.quantizer_state().unwrap();
    for (key, tensor) in &before {
        if !key.contains("activations") {
            assert_eq!(values(tensor), values(&after[key]), "{key}");
        }
    }
    assert_ne!(values(&model.forward(&text).unwrap()), full);
}

#[test]
fn a_percentile_clips_the_few_largest() {
    // 1.003 to 1003, of which 99 % do not exceed 992.97, and as many zeros, which say nothing.
    let numbers: Vec<f32> = (1..=1000).flat_map(|number| [number as f32 * 1.003, 0.0]).collect();
    let x = Tensor::from_vec(numbers, (500, 4), &Device::Cpu).unwrap();
    let amax = |percentage| {
        let mut layer = double(recipe());
        let pass = |layer: &Linear| {
            layer.forward(&x)?;
            Ok(())
        };
        layer.calibrate_with(Observer::Percentile(percentage), pass).unwrap().layers[0].amax
    };
    for (percentage, number) in [(99.0, 990.0), (50.0, 500.0), (0.1, 1.0), (99.95, 1000.0), (100.0, 1000.0)] {
        let (found, exact) = (f64::from(amax(percentage)), number * f64::from(1.003f32));
        assert!(found >= exact * 0.999_999 && found <= exact * (1.0 + 2f64.powi(-8)), "{percentage} %: {found}");
    }
    assert_eq!(amax(100.0), 1003.0);
}

#[test]
fn a_layer_that_saw_only_zeros_gets_the_scale_one() {
    for observer in [Observer::MinMax, Observer::Percentile(99.9)] {
        for recipe in [recipe(), Recipe::hybrid()] {
            let mut layer = double(recipe);
            let pass = |layer: &Linear| {
                layer.forward(&Tensor::zeros((3, 4), DType::F32, &Device::Cpu)?)?;
                Ok(())
            };
            let report = layer.calibrate_with(observer, pass).unwrap();
            let found = report.layer("").unwrap();
            assert_eq!((found.values, found.amax, found.scale), (12, 0.0, 1.0));
        }
    }
}

#[test]
fn a_margin_stays_and_layers_without_a_scale_to_find_are_not_watched() {
    let mut with_margin = recipe();
    with_margin.activations =
        with_margin.activations.map(|quantizer| quantizer.scaling(Scaling::Delayed { len: 4, margin: 2 }));
    let mut layer = double(with_margin);
    let pass = |layer: &Linear| {
        layer.forward(&Tensor::new(&[[448f32, 1.0, 0.0, 2.0]], &Device::Cpu)?)?;
        Ok(())
    };
    assert_eq!(layer.calibrate(pass).unwrap().layers[0].scale, 4.0);

    // An infinity on its way into a layer of which only the weights are quantized is none of calibration's business.
    let (mut model, _) = gpt(DType::F32, 2);
    model.quantize(QuantConfig::new(Fp8::E4M3).rule("h.0.mlp.c_fc", recipe())).unwrap();
    let pass = |model: &common::Gpt| {
        let x = Tensor::ones((1, common::WIDTH), DType::F32, &Device::Cpu)?;
        model.h[0].mlp.c_fc.forward(&x)?;
        let copy = model.h[0].mlp.c_fc.clone();
        model.h[0].attn.c_attn.forward(&(&x / 0.0)?)?;
        // A copy quantizes, also while the original is watched.
        assert_ne!(values(&copy.forward(&x)?), values(&model.h[0].mlp.c_fc.forward(&x)?));
        Ok(())
    };
    let report = model.calibrate(pass).unwrap();
    assert_eq!((report.layers.len(), report.layers[0].values), (1, 2 * common::WIDTH as u64));
}

#[test]
fn every_layer_of_a_model_gets_its_scale() {
    let (mut model, _) = gpt(DType::F32, 2);
    let config = QuantConfig::new(recipe())
        .rule("h.0.mlp", Fp8::E4M3)
        .rule("h.1.attn", Recipe::rowwise())
        .rule("h.1.mlp.c_fc", None);
    model.quantize(config).unwrap();
    let report = model.calibrate(|model| model.forward(&tokens(2, 8, 0)).map(drop).map_err(Error::from)).unwrap();
    let paths: Vec<_> = report.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths, ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.1.mlp.c_proj"]);
    for layer in &report.layers {
        assert_eq!(scaling(&model, &layer.path), Some(Scaling::Static(layer.scale)));
    }
    // Others keep what they had.
    assert_eq!(scaling(&model, "h.0.mlp.c_fc"), None);
    assert_eq!(scaling(&model, "h.1.attn.c_attn"), Some(Scaling::Current));
    let text = report.to_string();
    assert!(text.contains("h.1.mlp.c_proj") && text.contains("amax"), "{text}");
    assert!(serde_json::to_string(&report).unwrap().contains("\"path\":\"h.0.attn.c_attn\""));

    // Static scales go with the state, and make a model that was never calibrated compute the same.
    model.eval().unwrap();
    let (mut other, _) = gpt(DType::F32, 2);
    let config = QuantConfig::new(recipe())
        .rule("h.0.mlp", Fp8::E4M3)
        .rule("h.1.attn", Recipe::rowwise())
        .rule("h.1.mlp.c_fc", None);
    other.quantize(config).unwrap();
    other.eval().unwrap();
    other.load_quantizer_state(&model.quantizer_state().unwrap()).unwrap();
    let text = tokens(3, 8, 5);
    assert_eq!(values(&other.forward(&text).unwrap()), values(&model.forward(&text).unwrap()));
    let frozen = values(&model.forward(&text).unwrap());
    model.freeze().unwrap();
    assert_eq!(values(&model.forward(&text).unwrap()), frozen);
}

#[test]
fn a_pass_that_fails_changes_nothing() {
    let (mut model, _) = gpt(DType::F32, 3);
    let text = tokens(2, 8, 0);
    model.quantize(recipe()).unwrap();
    model.eval().unwrap();
    let before = values(&model.forward(&text).unwrap());
    let unchanged = |model: &common::Gpt| {
        assert_eq!(scaling(model, "h.0.mlp.c_fc"), Some(Scaling::Current));
        assert_eq!(values(&model.forward(&text).unwrap()), before);
    };

    let error = model.calibrate(|_| Err(Error::Model(ModelError::NoLayers))).unwrap_err();
    assert!(matches!(error, Error::Model(ModelError::NoLayers)));
    unchanged(&model);

    // A model of which only a part is called.
    let pass = |model: &common::Gpt| {
        let x = Tensor::ones((1, common::WIDTH), DType::F32, &Device::Cpu)?;
        model.h[0].attn.c_attn.forward(&x)?;
        Ok(())
    };
    let Error::Model(ModelError::NotCalibrated { layers }) = model.calibrate(pass).unwrap_err() else {
        panic!("layers are idle")
    };
    assert_eq!((layers.len(), layers[0].as_str()), (7, "h.0.attn.c_proj"));
    unchanged(&model);

    let pass = |model: &common::Gpt| {
        let x = (Tensor::ones((1, common::WIDTH), DType::F32, &Device::Cpu)? / 0.0)?;
        model.h[0].attn.c_attn.forward(&x)?;
        Ok(())
    };
    let error = model.calibrate(pass).unwrap_err().to_string();
    assert!(error.contains("the input has a value that is not finite (inf at index [0, 0])"), "{error}");
    unchanged(&model);

    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = model.calibrate(|_| panic!("in the caller's code"));
    }));
    assert!(panic.is_err());
    unchanged(&model);

    for percentage in [0.0, -1.0, 100.1, f64::NAN] {
        let error = model.calibrate_with(Observer::Percentile(percentage), |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("a percentile observer needs a percentage above 0"), "{error}");
    }
    unchanged(&model);
}

#[test]
fn nothing_to_calibrate_is_said() {
    let (mut model, _) = gpt(DType::F32, 4);
    let message = |model: &mut common::Gpt| model.calibrate(|_| Ok(())).unwrap_err().to_string();
    let expected = "no layer of the model quantizes its activations with one scale a tensor, so there is nothing to \
                    calibrate; call `quantize` first (and before that `dequantize`, if layers are frozen), with a \
                    recipe such as `Recipe::tensorwise()`";
    assert_eq!(message(&mut model), expected);
    model.quantize(Fp8::E4M3).unwrap();
    assert_eq!(message(&mut model), expected);
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    model.quantize(Recipe::weight_only(Fp8::E4M3).activations(rows)).unwrap();
    assert_eq!(message(&mut model), expected);
}

/// A model of three layers of which a pass reaches some.
type Three = Vec<Linear>;

fn three() -> Three {
    (0..3).map(|_| double(recipe())).collect()
}

fn reach(layers: &'static [usize], value: f32) -> impl FnOnce(&Three) -> altgrad::Result<()> {
    move |model| {
        for layer in layers {
            model[*layer].forward(&Tensor::new(&[[value, 1.0, 0.0, 2.0]], &Device::Cpu)?)?;
        }
        Ok(())
    }
}

fn is_static(layer: &Linear) -> bool {
    layer.activations().is_some_and(|quantizer| matches!(quantizer.scaling, Scaling::Static(_)))
}

#[test]
fn all_idle_layers_are_named_and_what_others_saw_is_kept() {
    let mut model = three();
    let error = model.calibrate(reach(&[1], 896.0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no input value reached `0`, `2` in the calibration passes, so no scale is known; what other layers saw is \
         kept: calibrate again with inputs that reach all, or with `IdleLayers::LeaveAsIs`, which leaves these layers \
         as they are"
    );
    assert!(!model.iter().any(is_static), "nothing has changed");
    // An error of the passes keeps what was kept, and nothing of its own.
    let failing = |model: &Three| {
        model[0].forward(&Tensor::new(&[[9999f32, 1.0, 0.0, 2.0]], &Device::Cpu)?)?;
        Err(Error::Model(ModelError::NoLayers))
    };
    assert!(matches!(model.calibrate(failing), Err(Error::Model(ModelError::NoLayers))));
    // Another observer starts anew.
    let other = model.clone().calibrate_with(Observer::Percentile(100.0), reach(&[0, 2], 448.0)).unwrap_err();
    assert!(matches!(other, Error::Model(ModelError::NotCalibrated { layers }) if layers == ["1"]));
    let report = model.calibrate(reach(&[0, 2], 448.0)).unwrap();
    let scales: Vec<_> = report.layers.iter().map(|layer| (layer.scale, layer.values)).collect();
    assert_eq!(scales, [(1.0, 4), (2.0, 4), (1.0, 4)]);
    assert!(model.iter().all(is_static) && report.idle.is_empty());
    // Once it has become scales, it is gone.
    let error = model.calibrate(reach(&[1], 1.0)).unwrap_err();
    assert!(matches!(error, Error::Model(ModelError::NotCalibrated { layers }) if layers == ["0", "2"]));
}

#[test]
fn making_a_model_trainable_keeps_what_was_seen() {
    let mut model = three();
    assert!(matches!(model.calibrate(reach(&[1], 896.0)), Err(Error::Model(ModelError::NotCalibrated { .. }))));
    model.make_trainable().unwrap();
    assert_eq!(model.calibrate(reach(&[0, 2], 448.0)).unwrap().layers.len(), 3);
}

#[test]
fn idle_layers_can_be_left_as_they_are() {
    let config = CalibrationConfig::new(Observer::MinMax).idle_layers(IdleLayers::LeaveAsIs);
    let mut model = three();
    assert!(matches!(model.calibrate(reach(&[1], 896.0)), Err(Error::Model(ModelError::NotCalibrated { .. }))));
    // What was seen is enough.
    let report = model.calibrate_with(config, |_| Ok(())).unwrap();
    assert_eq!((report.layers.len(), report.layers[0].scale), (1, 2.0));
    assert_eq!(report.idle, ["0", "2"]);
    assert_eq!(model.iter().map(is_static).collect::<Vec<_>>(), [false, true, false]);
    assert!(report.to_string().ends_with("no input reached, so scaled as before: 0, 2"), "{report}");
    // Nothing at all is an error all the same.
    let error = three().calibrate_with(config, |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Model(ModelError::NotCalibrated { layers }) if layers.len() == 3));
}
