//! What can be done to a model is done to every kind of slot alike.

use altgrad::checkpoint::{self, Dialect};
use altgrad::report::Action;
use altgrad::{
    AnySlot, CheckpointError, Error, Fp8, Linear, ModelError, Quantizable, Recipe, Scaling, Slot, SlotState, nn,
};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{AdamW, Conv1dConfig, Conv2dConfig, Optimizer, VarBuilder, VarMap};

use super::own_kind::{Patches, Transposed};
use super::{assert_same, bits, tensor, values};

#[derive(Quantizable)]
struct Model {
    linear: Linear,
    embedding: nn::Embedding,
    conv1d: nn::Conv1d,
    conv2d: nn::Conv2d,
    transposed: Slot<Transposed>,
    patches: Slot<Patches>,
}

const KINDS: [&str; 6] = ["linear", "embedding", "conv1d", "conv2d", "transposed linear", "patches"];

impl Model {
    /// From variables or a checkpoint.
    fn new(vb: &VarBuilder<'_>) -> candle_core::Result<Self> {
        let config = Conv2dConfig { padding: 1, groups: 2, ..Conv2dConfig::default() };
        Ok(Self {
            linear: nn::linear(8, 6, vb.pp("linear"))?,
            embedding: nn::embedding(10, 8, vb.pp("embedding"))?,
            conv1d: nn::conv1d(4, 6, 3, Conv1dConfig { stride: 2, ..Conv1dConfig::default() }, vb.pp("conv1d"))?,
            conv2d: nn::conv2d_no_bias(4, 6, 3, config, vb.pp("conv2d"))?,
            transposed: Slot::from_var_builder((), (8, 6), Some(6), vb.pp("transposed"))?,
            patches: Slot::from_var_builder(3, (6, 5), None, vb.pp("patches"))?,
        })
    }

    fn forward(&self) -> altgrad::Result<[Tensor; 6]> {
        Ok([
            self.linear.forward(&tensor((3, 8), 1))?,
            self.embedding.forward(&Tensor::new(&[[1u32, 9], [9, 0]], &Device::Cpu)?)?,
            self.conv1d.forward(&tensor((2, 4, 9), 2))?,
            self.conv2d.forward(&tensor((2, 4, 5, 5), 3))?,
            self.transposed.forward(&tensor((3, 8), 4))?,
            self.patches.forward(&tensor((2, 15), 5))?,
        ])
    }

    fn loss(&self) -> Tensor {
        let squares = self.forward().unwrap().map(|y| y.sqr().unwrap().mean_all().unwrap());
        squares.into_iter().reduce(|sum, loss| (sum + loss).unwrap()).unwrap()
    }
}

fn model() -> (VarMap, Model) {
    let variables = VarMap::new();
    let model = Model::new(&VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu)).unwrap();
    // Not the draws of the process.
    let mut names: Vec<_> = variables.data().lock().unwrap().keys().cloned().collect();
    names.sort();
    for (seed, name) in names.iter().enumerate() {
        let variable = variables.data().lock().unwrap()[name].clone();
        variable.set(&tensor(variable.shape().clone(), seed as u64)).unwrap();
    }
    (variables, model)
}

/// Asserts that two models compute the same.
#[track_caller]
fn assert_same_outputs(a: &Model, b: &Model) {
    for ((a, b), kind) in a.forward().unwrap().iter().zip(b.forward().unwrap()).zip(KINDS) {
        assert_same(kind, a, &b);
    }
}

#[test]
fn every_kind_is_found_quantized_frozen_and_put_back() {
    let (variables, mut model) = model();
    let kinds: Vec<_> = model.slots().unwrap().into_iter().map(|(_, slot)| slot.kind()).collect();
    assert_eq!(kinds, KINDS);
    assert_eq!(model.layers().unwrap().len(), 1, "those that are linear");
    let original = model.forward().unwrap();

    let report = model.quantize(Recipe::rowwise()).unwrap();
    assert_eq!(report.quantized(), 6);
    for layer in &report.layers {
        assert_eq!(layer.action, Action::Quantized, "{}", layer.path);
        assert!(layer.distortion.unwrap().sqnr_db > 20.0, "{}", layer.path);
        assert!(layer.bytes_frozen.unwrap() <= layer.bytes_before / 2, "{}", layer.path);
    }
    for ((quantized, original), kind) in model.forward().unwrap().iter().zip(&original).zip(KINDS) {
        assert_ne!(values(quantized), values(original), "{kind} is quantized");
        let largest = values(original).into_iter().fold(0f32, |a, b| a.max(b.abs()));
        let error = values(&(quantized - original).unwrap()).into_iter().fold(0f32, |a, b| a.max(b.abs()));
        assert!(error < 0.2 * largest, "{kind}: {error} of {largest}");
    }
    model.eval().unwrap();
    let eval = model.forward().unwrap();
    let report = model.freeze().unwrap();
    for ((layer, frozen), eval) in report.layers.iter().zip(model.forward().unwrap()).zip(eval) {
        assert_eq!(layer.action, Action::Frozen, "{}", layer.path);
        assert_eq!(Some(layer.bytes_after), layer.bytes_frozen, "{}", layer.path);
        assert_same(&layer.path, &frozen, &eval);
    }
    assert!(model.slots().unwrap().iter().all(|(_, slot)| slot.state() == SlotState::Frozen && !slot.is_training()));
    let weights: Vec<_> = model.slots().unwrap().iter().map(|(_, slot)| bits(&slot.weight().unwrap())).collect();
    let report = model.dequantize().unwrap();
    assert!(report.layers.iter().all(|layer| layer.action == Action::Restored));
    for ((_, slot), weight) in model.slots().unwrap().iter().zip(weights) {
        assert_eq!(bits(&slot.weight().unwrap()), weight, "the values of the codes");
    }

    // Without freezing, the original tensors come back.
    let mut model = Model::new(&VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu)).unwrap();
    let ids: Vec<_> = model.slots().unwrap().iter().map(|(_, slot)| slot.weight().unwrap().id()).collect();
    model.quantize(Fp8::E4M3).unwrap();
    model.dequantize().unwrap();
    for ((_, slot), id) in model.slots().unwrap().iter().zip(ids) {
        assert_eq!(slot.weight().unwrap().id(), id, "{}", slot.kind());
    }
}

#[test]
fn every_kind_trains() {
    for recipe in [Recipe::from(Fp8::E4M3), Recipe::tensorwise(), Recipe::hybrid(), Recipe::mxfp8()] {
        let (variables, mut model) = model();
        model.quantize(recipe).unwrap();
        let mut optimizer = AdamW::new_lr(variables.all_vars(), 0.01).unwrap();
        let first = model.loss();
        let gradients = first.backward().unwrap();
        for (name, variable) in variables.data().lock().unwrap().iter() {
            let gradient = gradients.get(variable).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(values(gradient).iter().any(|value| *value != 0.0), "{name}");
        }
        for _ in 0..20 {
            optimizer.backward_step(&model.loss()).unwrap();
        }
        let (first, last) = (values(&first)[0], values(&model.loss())[0]);
        assert!(last < 0.7 * first, "{last} after {first}");
    }
}

/// What is remembered from step to step is saved and loaded for every kind, and training goes on to the bit.
#[test]
fn every_kind_resumes() {
    let (_, mut a) = model();
    let (_, mut b) = model();
    a.quantize(Recipe::hybrid()).unwrap();
    b.quantize(Recipe::hybrid()).unwrap();
    for _ in 0..3 {
        a.loss().backward().unwrap();
    }
    let state = a.quantizer_state().unwrap();
    for path in ["linear", "conv1d", "conv2d", "transposed", "patches"] {
        for role in ["weights", "activations", "gradients"] {
            assert!(state.contains_key(&format!("{path}.{role}.step")), "{path}, {role}");
        }
    }
    assert!(state.contains_key("embedding.weights.step") && !state.contains_key("embedding.activations.step"));
    b.load_quantizer_state(&state).unwrap();
    a.eval().unwrap();
    b.eval().unwrap();
    assert_same_outputs(&a, &b);
}

#[test]
fn inputs_of_every_kind_are_calibrated() {
    let (_, mut model) = model();
    model.quantize(Recipe::tensorwise().gradients(None)).unwrap();
    let report = model.calibrate(|model| model.forward().map(|_| ())).unwrap();
    let paths: Vec<_> = report.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths, ["linear", "conv1d", "conv2d", "transposed", "patches"], "numbers of rows have no scale");
    let amax = values(&tensor((2, 4, 5, 5), 3)).into_iter().fold(0f32, |a, b| a.max(b.abs()));
    assert_eq!(report.layer("conv2d").unwrap().amax, amax);
    for path in paths {
        let scaling = model.slot(path).unwrap().activations().unwrap().scaling;
        assert!(matches!(scaling, Scaling::Static(_)), "{path}");
    }
}

#[test]
fn constants_of_every_kind_become_variables() {
    let (_, mut model) = model();
    model.quantize(Fp8::E4M3).unwrap();
    model.freeze().unwrap();
    model.dequantize().unwrap();
    model.quantize(Fp8::E4M3).unwrap();
    let trainable = model.make_trainable().unwrap();
    assert_eq!(trainable.variables.len(), 6 + 3, "the weights, and three biases");
    assert!(trainable.constants.is_empty());
    let gradients = model.loss().backward().unwrap();
    for (name, variable) in &trainable.variables {
        assert!(gradients.get(variable).is_some(), "{name}");
    }
}

/// altgrad's own dialect writes every kind, and every kind reads it.
#[test]
fn every_kind_is_saved_and_loaded() {
    let recipes = [Recipe::from(Fp8::E4M3), Recipe::rowwise().gradients(None), Recipe::from(Fp8::E3M4)];
    for recipe in recipes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let (_, mut model) = model();
        model.quantize(recipe).unwrap();
        model.freeze().unwrap();
        checkpoint::save(&model, &path, Dialect::Altgrad).unwrap();
        let loaded = Model::new(&checkpoint::var_builder(&[&path], DType::F32, &Device::Cpu).unwrap()).unwrap();
        for (path, slot) in loaded.slots().unwrap() {
            assert_eq!(slot.state(), SlotState::Frozen, "{path}");
        }
        assert_same_outputs(&loaded, &model);
        // For a program that knows no slots, there are the values.
        let vb = checkpoint::var_builder(&[&path], DType::F32, &Device::Cpu).unwrap();
        let plain = candle_nn::conv2d_no_bias(
            4,
            6,
            3,
            Conv2dConfig { padding: 1, groups: 2, ..Conv2dConfig::default() },
            vb.pp("conv2d"),
        );
        assert_eq!(bits(plain.unwrap().weight()), bits(&model.conv2d.weight().unwrap()));
        let plain = candle_nn::embedding(10, 8, vb.pp("embedding")).unwrap();
        assert_eq!(bits(plain.embeddings()), bits(&model.embedding.weight().unwrap()));
    }
}

/// What a dialect cannot say of a kind is an error that names the layer, and nothing is written.
#[test]
fn other_dialects_say_which_layer_they_cannot_express() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut model) = model();
    model.quantize(Recipe::from(Fp8::E4M3)).unwrap();
    for dialect in [Dialect::CompressedTensors, Dialect::ModelOpt, Dialect::ComfyUi] {
        for (part, kind) in [("conv2d", "conv2d"), ("transposed", "transposed linear")] {
            let path = folder.path().join("out");
            let error = match part {
                "conv2d" => checkpoint::save(&vec![model.conv2d.clone()], &path, dialect),
                _ => checkpoint::save(&vec![model.transposed.clone()], &path, dialect),
            };
            let error = error.unwrap_err();
            assert!(
                matches!(&error, Error::Checkpoint(CheckpointError::NotExpressible { .. }) | Error::Layer { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(kind), "{error}");
            assert!(!path.exists(), "nothing is left");
        }
    }
    // An embedding is said by its name.
    let path = folder.path().join("embedding");
    checkpoint::save(&vec![model.embedding.clone()], &path, Dialect::CompressedTensors).unwrap();
    let vb = checkpoint::var_builder(&[&path], DType::F32, &Device::Cpu).unwrap();
    let loaded = nn::embedding(10, 8, vb.pp("0")).unwrap();
    assert_eq!(loaded.state(), SlotState::Frozen);
    assert_eq!(bits(&loaded.weight().unwrap()), {
        model.embedding.freeze().unwrap();
        bits(&model.embedding.weight().unwrap())
    });
}

#[test]
fn a_slot_of_any_kind_is_asked_for_by_path() {
    let (_, mut model) = model();
    assert!(model.slot("conv2d").unwrap().downcast_ref::<nn::Conv2d>().is_some());
    assert!(model.slot("conv2d").unwrap().downcast_ref::<Linear>().is_none());
    let slot: &mut dyn AnySlot = model.slot_mut("patches").unwrap();
    *slot.downcast_mut::<Slot<Patches>>().unwrap() =
        Patches { weight: tensor((6, 5), 77), bias: None, count: 3 }.into();
    assert_eq!(values(&model.patches.weight().unwrap()), values(&tensor((6, 5), 77)));
    let error = model.layer("conv2d").unwrap_err().to_string();
    assert!(error.contains("conv2d") && error.contains("slot(\"conv2d\")"), "{error}");
    assert!(model.slot("conv3d").unwrap_err().to_string().contains("conv2d"), "the nearest");
}

/// A model that shows another type of slot to be replaced than it showed to be read is left as it was.
#[test]
fn a_visit_that_shows_a_slot_of_another_type_is_an_error() {
    struct Inconsistent(Linear, Slot<Transposed>);
    impl altgrad::visit::Visit for Inconsistent {
        fn visit<'m>(
            &'m self,
            path: &altgrad::visit::Path<'_>,
            visitor: &mut dyn altgrad::visit::Visitor<'m>,
        ) -> altgrad::Result<()> {
            self.0.visit(path, visitor)
        }

        fn visit_mut<'m>(
            &'m mut self,
            path: &altgrad::visit::Path<'_>,
            visitor: &mut dyn altgrad::visit::VisitorMut<'m>,
        ) -> altgrad::Result<()> {
            self.1.visit_mut(path, visitor)
        }
    }
    let own = Transposed { weight: tensor((3, 3), 1), bias: None };
    let mut model = Inconsistent(Linear::new(tensor((3, 3), 1), None), own.into());
    assert!(matches!(model.quantize(Fp8::E4M3), Err(Error::Model(ModelError::InconsistentVisit { .. }))));
    assert_eq!(model.1.state(), SlotState::Full);
}
