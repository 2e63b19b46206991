//! What a model gets: frozen slots, dequantized tensors for everyone else, and the way back to training.

use altgrad_core::checkpoint::{Checkpoint, Dialect};
use altgrad_core::{Fp8, Granularity, Linear, Quantizable, Quantizer, Recipe, linear, linear_no_bias};
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap};

use super::{Layers, bits, frozen, save_and_open, weight};

fn rows() -> Recipe {
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    Recipe::weight_only(rows.clone()).activations(rows)
}

#[test]
fn a_layer_of_candle_gets_the_values_of_the_codes() {
    let model = Layers::from([("a", frozen(64, 96, 1, rows()))]);
    let (_folder, vb) = save_and_open(&model, Dialect::CompressedTensors);
    let layer = candle_nn::linear(96, 64, vb.pp("a")).unwrap();
    assert_eq!(bits(layer.weight()), bits(&model["a"].weight().unwrap()));
    assert_eq!(bits(layer.bias().unwrap()), bits(model["a"].bias().unwrap()));
    let half = vb.pp("a").to_dtype(DType::BF16).get((64, 96), "weight").unwrap();
    assert_eq!(half.dtype(), DType::BF16);
    assert_eq!(bits(&half), bits(&model["a"].weight().unwrap().to_dtype(DType::BF16).unwrap()));
}

#[test]
fn a_renamed_builder_still_hands_out_codes() {
    let model = Layers::from([("old.a", frozen(64, 96, 1, rows()))]);
    let (_folder, vb) = save_and_open(&model, Dialect::CompressedTensors);
    for rename in [
        |name: &str| name.replace("new", "old"),
        // Of these exact names and no others.
        |name: &str| match name {
            "new.a.weight" => "old.a.weight".to_owned(),
            "new.a.bias" => "old.a.bias".to_owned(),
            other => other.to_owned(),
        },
    ] {
        let vb = vb.clone().rename_f(rename);
        assert!(matches!(linear(96, 64, vb.pp("new").pp("a")).unwrap(), Linear::Frozen(_)));
    }
}

#[test]
fn inputs_are_quantized_unless_asked_not_to() {
    let model = Layers::from([("a", frozen(64, 96, 1, rows()))]);
    let (folder, _) = save_and_open(&model, Dialect::CompressedTensors);
    let checkpoint = Checkpoint::open(&[folder.path().join("out")]).unwrap();
    let load =
        |checkpoint: &Checkpoint| linear(96, 64, checkpoint.var_builder(DType::F32, &Device::Cpu).pp("a")).unwrap();
    assert_eq!(load(&checkpoint).activations(), rows().activations.as_ref());
    assert_eq!(load(&checkpoint.clone().without_activations()).activations(), None);
    let described = &checkpoint.quantized().unwrap()[0];
    assert_eq!((described.name.as_str(), &described.shape[..]), ("a.weight", &[64, 96][..]));
    assert_eq!((described.format, described.granularity), (Fp8::E4M3, Granularity::PerRow));
    assert_eq!(checkpoint.dialect(), Dialect::CompressedTensors);
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a.weight", "a.bias"]);
}

#[test]
fn a_wrong_shape_is_an_error_that_names_the_layer() {
    let model = Layers::from([("h.0", frozen(64, 96, 1, rows()))]);
    let (_folder, vb) = save_and_open(&model, Dialect::CompressedTensors);
    let message = linear(64, 96, vb.pp("h.0")).unwrap_err().to_string();
    assert!(message.contains("layer `h.0`") && message.contains("[64, 96]"), "{message}");
    let message = vb.get((3, 3), "h.0.weight").unwrap_err().to_string();
    assert!(message.contains("h.0.weight"), "{message}");
    assert!(linear(96, 64, vb.pp("h.1")).is_err());
}

#[test]
fn builders_without_codes_are_as_before() {
    let zeros = VarBuilder::zeros(DType::F32, &Device::Cpu);
    assert!(matches!(linear(4, 3, zeros).unwrap(), Linear::Full(_)));
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    assert!(matches!(linear_no_bias(4, 3, vb).unwrap(), Linear::Full(_)));
    assert_eq!(variables.all_vars().len(), 1);
}

#[test]
fn variables_take_the_values_of_a_checkpoint_and_train_on() {
    let model = Layers::from([("a", frozen(64, 96, 1, rows()))]);
    let (folder, _) = save_and_open(&model, Dialect::CompressedTensors);
    let variables = VarMap::new();
    let mut layer = linear(96, 64, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu).pp("a")).unwrap();
    Checkpoint::open(&[folder.path().join("out")]).unwrap().load_variables(&variables).unwrap();
    assert_eq!(bits(&layer.weight().unwrap()), bits(&model["a"].weight().unwrap()));
    layer.quantize(Fp8::E4M3).unwrap();
    train(&layer, variables.all_vars());
}

#[test]
fn a_frozen_model_can_be_made_trainable_again() {
    let model = Layers::from([("a", frozen(64, 96, 1, rows()))]);
    let (_folder, vb) = save_and_open(&model, Dialect::CompressedTensors);
    let mut layer = linear(96, 64, vb.pp("a")).unwrap();
    layer.dequantize().unwrap();
    let trainable = layer.make_trainable().unwrap();
    assert_eq!((trainable.variables.len(), trainable.constants.len()), (2, 0));
    layer.quantize(rows()).unwrap();
    train(&layer, trainable.vars());
}

#[test]
fn adapters_train_on_top_of_frozen_layers() {
    let model = Layers::from([("a", frozen(64, 96, 1, rows())), ("b", frozen(32, 64, 2, rows()))]);
    let (_folder, vb) = save_and_open(&model, Dialect::CompressedTensors);
    let (a, b) = (linear(96, 64, vb.pp("a")).unwrap(), linear(64, 32, vb.pp("b")).unwrap());
    let down = Var::from_tensor(&weight(4, 96, 5)).unwrap();
    let up = Var::zeros((64, 4), DType::F32, &Device::Cpu).unwrap();
    let (x, target) = (weight(16, 96, 8), weight(16, 32, 9));
    let loss = || {
        let adapter = x.matmul(&down.t().unwrap()).unwrap().matmul(&up.t().unwrap()).unwrap();
        let y = b.forward(&(a.forward(&x).unwrap() + adapter).unwrap()).unwrap();
        (y - &target).unwrap().sqr().unwrap().mean_all().unwrap()
    };
    let before = loss().to_scalar::<f32>().unwrap();
    let mut optimizer = AdamW::new(vec![down.clone(), up.clone()], adam(0.02)).unwrap();
    for _ in 0..30 {
        optimizer.backward_step(&loss()).unwrap();
    }
    let after = loss().to_scalar::<f32>().unwrap();
    assert!(after < 0.95 * before, "{before} to {after}");
    assert!(matches!((a, b), (Linear::Frozen(_), Linear::Frozen(_))));
}

/// Some steps towards a target, which must come nearer.
fn train(layer: &Linear, variables: Vec<Var>) {
    let (x, target) = (weight(16, 96, 8), weight(16, 64, 9));
    let loss = || -> Tensor { (layer.forward(&x).unwrap() - &target).unwrap().sqr().unwrap().mean_all().unwrap() };
    let before = loss().to_scalar::<f32>().unwrap();
    let mut optimizer = AdamW::new(variables, adam(0.05)).unwrap();
    for _ in 0..30 {
        optimizer.backward_step(&loss()).unwrap();
    }
    let after = loss().to_scalar::<f32>().unwrap();
    assert!(after < 0.9 * before, "{before} to {after}");
}

/// Steps of about this size, whatever the size of gradients.
fn adam(lr: f64) -> ParamsAdamW {
    ParamsAdamW { lr, weight_decay: 0.0, ..ParamsAdamW::default() }
}
