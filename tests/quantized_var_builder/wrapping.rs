//! The builder itself: prefixes, dtypes, other ways to ask, and errors.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use altgrad::report::SkipReason;
use altgrad::{
    ConfigError, Error, Fp8, Granularity, Linear, ModelError, QuantConfig, Quantizable, QuantizedVarBuilder, Quantizer,
    Recipe, fake_quantize,
};
use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, Module, VarBuilder, VarMap, linear_no_bias};

use crate::common::{Numbers, sorted, values};
use crate::{Model, bits, builder_of, quantized_paths, skipped, variables};

fn e4m3(vb: VarBuilder<'_>) -> QuantizedVarBuilder<'_> {
    QuantizedVarBuilder::new(vb, Fp8::E4M3).unwrap()
}

#[test]
fn paths_are_names_from_the_root_whatever_the_prefix() {
    let variables = variables(&[("model.block.fc.weight", &[4, 6])], 1);
    let quantized = QuantizedVarBuilder::new(
        builder_of(&variables).pp("model").pp("block"),
        QuantConfig::new(Fp8::E4M3).rule("model.block.fc", Fp8::E3M4),
    )
    .unwrap();
    assert_eq!(quantized.builder().prefix(), "model.block");
    assert!(quantized.builder().contains_tensor("fc.weight"));
    assert!(!quantized.builder().contains_tensor("weight"));
    linear_no_bias(6, 4, quantized.builder().pp("fc")).unwrap();

    let report = quantized.report().unwrap();
    assert_eq!(quantized_paths(&report), ["model.block.fc"]);
    assert_eq!(report.layers[0].format, Some(Fp8::E3M4));
}

#[test]
fn a_model_that_is_one_layer_has_the_empty_path() {
    let variables = variables(&[("weight", &[4, 6])], 2);
    let quantized = e4m3(builder_of(&variables));
    let layer = linear_no_bias(6, 4, quantized.builder()).unwrap();
    let expected = fake_quantize(&sorted(&variables)[0].1, &Fp8::E4M3.into()).unwrap();
    assert_eq!(bits(layer.weight()), bits(&expected));
    assert_eq!(quantized_paths(&quantized.report().unwrap()), [""]);
}

#[test]
fn weights_come_in_the_dtype_that_is_asked_for() {
    let weight = Numbers::new(3).tensor((4, 6));
    let tensors = HashMap::from([("fc.weight".to_owned(), weight.clone())]);
    let vb = VarBuilder::from_tensors(tensors, DType::F16, &Device::Cpu);
    for quantizer in [Quantizer::from(Fp8::E4M3), Quantizer::new(Fp8::E5M2).granularity(Granularity::PerRow)] {
        let quantized = QuantizedVarBuilder::new(vb.clone(), quantizer.clone()).unwrap();
        let builder = quantized.builder();
        assert_eq!((builder.dtype(), builder.device().location()), (DType::F16, Device::Cpu.location()));
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            let layer = linear_no_bias(6, 4, builder.to_dtype(dtype).pp("fc")).unwrap();
            assert_eq!(layer.weight().dtype(), dtype);
            let expected = fake_quantize(&weight.to_dtype(dtype).unwrap(), &quantizer).unwrap();
            assert_eq!(bits(layer.weight()), bits(&expected));
        }
        quantized.requantize().unwrap();
        let expected = fake_quantize(&weight.to_dtype(DType::BF16).unwrap(), &quantizer).unwrap();
        let again = builder.to_dtype(DType::BF16).get((4, 6), "fc.weight").unwrap();
        assert_eq!(bits(&again), bits(&expected));
    }
}

#[test]
fn asking_twice_gives_the_same_tensor_however_one_asks() {
    let tensors = HashMap::from([("fc.weight".to_owned(), Numbers::new(4).tensor((4, 6)))]);
    let quantized = e4m3(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu));
    let vb = quantized.builder();
    let first = vb.get_unchecked("fc.weight").unwrap();
    assert_eq!(vb.get((4, 6), "fc.weight").unwrap().id(), first.id());
    assert_eq!(linear_no_bias(6, 4, vb.pp("fc")).unwrap().weight().id(), first.id());
    assert_eq!(vb.get_unchecked("fc.weight").unwrap().id(), first.id());
    assert!(vb.get((6, 4), "fc.weight").is_err(), "the wrapped builder checks shapes");
    assert_eq!(quantized.report().unwrap().layers.len(), 1);
}

#[test]
fn what_is_no_matrix_named_weight_is_left_alone() {
    let variables = variables(
        &[
            ("norm.weight", &[6]),
            ("conv.weight", &[4, 6, 3, 3]),
            ("attn.in_proj_weight", &[18, 6]),
            ("fc.bias", &[6]),
            ("table.bias", &[6, 6]),
        ],
        5,
    );
    let quantized = e4m3(builder_of(&variables));
    for (name, variable) in sorted(&variables) {
        let tensor = quantized.builder().get(variable.shape(), &name).unwrap();
        assert_eq!(tensor.id(), variable.id(), "{name}");
    }
    let error = quantized.report().unwrap_err();
    assert!(
        matches!(error, Error::Model(ModelError::NoWeights)) && error.to_string().contains("build the model"),
        "{error}"
    );
}

#[test]
fn the_report_is_that_of_surgery() {
    let variables = variables(&[("fc.weight", &[48, 32])], 6);
    let quantized = e4m3(builder_of(&variables));
    linear_no_bias(32, 48, quantized.builder().pp("fc")).unwrap();

    let weight = sorted(&variables)[0].1.as_tensor().clone();
    let mut model = Model { fc: Linear::new(weight, None) };
    let expected = model.quantize(Fp8::E4M3).unwrap();
    assert_eq!(quantized.report().unwrap(), expected);
    assert_eq!(quantized.report().unwrap().to_string(), expected.to_string());

    // Also after a step, without and with quantizing anew.
    let moved = (Numbers::new(7).tensor((48, 32)) * 3.0).unwrap();
    sorted(&variables)[0].1.set(&moved).unwrap();
    quantized.requantize().unwrap();
    model.fc.forward(&Tensor::zeros((1, 32), DType::F32, &Device::Cpu).unwrap()).unwrap();
    assert_eq!(quantized.report().unwrap(), model.report().unwrap());
}

/// A builder of somebody else, which makes tensors when it is asked, and counts how often it is.
struct Counting<'c>(&'c AtomicUsize);

impl SimpleBackend for Counting<'_> {
    fn get(&self, shape: Shape, _: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Tensor::arange(0f32, shape.elem_count() as f32, device)?.reshape(shape)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("no shape for {name}")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

#[test]
fn any_builder_can_be_wrapped_and_moved_to_another_thread() {
    let calls = AtomicUsize::new(0);
    let vb = VarBuilder::from_backend(Box::new(Counting(&calls)), DType::F32, Device::Cpu);
    let quantized = e4m3(vb);
    let layer = std::thread::scope(|scope| {
        let quantized = &quantized;
        scope.spawn(move || linear_no_bias(6, 4, quantized.builder().pp("fc")).unwrap()).join().unwrap()
    });
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    // A tensor that is no variable is not kept, but asked for anew.
    let before = bits(layer.weight());
    quantized.requantize().unwrap();
    assert_eq!((calls.load(Ordering::Relaxed), bits(layer.weight())), (2, before));
    assert!(quantized.builder().get_unchecked("x").unwrap_err().to_string().contains("no shape for x"));
    assert!(format!("{quantized:?}").contains("E4M3"));
}

fn config_error(config: QuantConfig) -> String {
    let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    QuantizedVarBuilder::new(vb, config).unwrap_err().to_string()
}

#[test]
fn a_recipe_for_more_than_weights_is_an_error_that_says_what_to_do() {
    let what_to_do = "use `Recipe::weight_only(…)`, or, if the model's source is yours, derive `Quantizable`";
    let error = config_error(Recipe::tensorwise().into());
    assert!(error.contains("`recipe.activations`") && error.contains("never sees activations"), "{error}");
    assert!(error.contains(what_to_do), "{error}");

    let gradients = Recipe::from(Fp8::E4M3).gradients(Fp8::E5M2);
    let error = config_error(QuantConfig::new(Fp8::E4M3).skip("h.0").rule("h.1", gradients));
    assert!(error.contains("`rules[1].recipe.gradients`") && error.contains("never sees gradients"), "{error}");
    assert!(error.contains(what_to_do), "{error}");
}

#[test]
fn bad_recipes_and_patterns_are_errors_at_once() {
    let window = Quantizer::new(Fp8::E4M3).scaling(altgrad::Scaling::Window { len: 0 });
    let error = config_error(window.clone().into());
    assert!(error.contains("`recipe`") && error.contains("a window of length 0"), "{error}");
    let error = config_error(QuantConfig::new(Fp8::E4M3).rule("h.0", window));
    assert!(error.contains("`rules[0].recipe`") && error.contains("a window of length 0"), "{error}");

    let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    let error = QuantizedVarBuilder::new(vb, QuantConfig::new(Fp8::E4M3).skip("h..0")).unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::InvalidPattern { .. })), "{error}");
}

#[test]
fn a_weight_that_is_not_finite_is_an_error_with_its_layer() {
    let variables = variables(&[("block.fc.weight", &[2, 3])], 8);
    let broken = Tensor::new(&[[0f32, 1.0, 2.0], [3.0, f32::INFINITY, 5.0]], &Device::Cpu).unwrap();
    sorted(&variables)[0].1.set(&broken).unwrap();
    let error = linear_no_bias(3, 2, e4m3(builder_of(&variables)).builder().pp("block").pp("fc")).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("layer `block.fc`") && error.contains("inf at index [1, 1]"), "{error}");

    let missing = e4m3(VarBuilder::from_tensors(HashMap::new(), DType::F32, &Device::Cpu));
    let error = linear_no_bias(3, 2, missing.builder().pp("fc")).unwrap_err().to_string();
    assert!(error.contains("cannot find tensor fc.weight"), "{error}");
    assert!(matches!(missing.report(), Err(Error::Model(ModelError::NoWeights))), "what failed was not handed out");
}

#[test]
fn a_dtype_that_cannot_be_quantized_is_reported() {
    let codes = Tensor::new(&[[1u8, 2], [3, 4]], &Device::Cpu).unwrap();
    let tensors = HashMap::from([("fc.weight".to_owned(), codes.clone())]);
    let quantized = e4m3(VarBuilder::from_tensors(tensors, DType::U8, &Device::Cpu));
    assert_eq!(quantized.builder().get((2, 2), "fc.weight").unwrap().id(), codes.id());
    let report = quantized.report().unwrap();
    assert_eq!(skipped(&report), [("fc", SkipReason::Unsupported("weight of dtype U8".to_owned()))]);
    assert_eq!((report.layers[0].bytes_before, report.layers[0].bytes_frozen), (4, None));
}

#[test]
fn a_weight_without_elements_is_no_trouble() {
    let variables = VarMap::new();
    let quantized = e4m3(builder_of(&variables));
    let layer = linear_no_bias(3, 0, quantized.builder().pp("fc")).unwrap();
    quantized.requantize().unwrap();
    assert_eq!((values(layer.weight()).len(), quantized.report().unwrap().quantized()), (0, 1));
}
