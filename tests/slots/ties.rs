//! A head that is tied to an embedding.

use altgrad::checkpoint::{self, Dialect};
use altgrad::{
    Action, Error, Fp8, Granularity, Linear, ModelError, QuantConfig, Quantizable, Recipe, SkipReason, TiePolicy, nn,
};
use candle_core::{DType, Device, Module, Tensor, Var};

use super::{assert_same, tensor, values};

#[derive(Quantizable)]
struct Model {
    wte: nn::Embedding,
    norm: candle_nn::LayerNorm,
    lm_head: Linear,
}

impl Model {
    fn new() -> (Var, Self) {
        let table = Var::from_tensor(&tensor((20, 16), 1)).unwrap();
        let wte = nn::Embedding::new(table.as_tensor().clone(), 16);
        let lm_head = Linear::new(wte.embeddings().clone(), None);
        let ones = Tensor::ones(16, DType::F32, &Device::Cpu).unwrap();
        let norm = candle_nn::LayerNorm::new(ones.clone(), ones.zeros_like().unwrap(), 1e-5);
        (table, Self { wte, norm, lm_head })
    }

    fn forward(&self) -> Tensor {
        let ids = Tensor::new(&[[1u32, 5, 19], [5, 5, 0]], &Device::Cpu).unwrap();
        self.lm_head.forward(&self.norm.forward(&self.wte.forward(&ids).unwrap()).unwrap()).unwrap()
    }
}

fn as_one(recipe: impl Into<Recipe>) -> QuantConfig {
    QuantConfig::new(recipe).ties(TiePolicy::Quantize)
}

#[test]
fn a_tie_stays_in_full_precision_by_default() {
    let (_, mut model) = Model::new();
    let report = model.quantize(Fp8::E4M3).unwrap();
    let tied_to = |other: &str| Action::Skipped(SkipReason::Tied(other.to_owned()));
    assert_eq!(report.layers[0].action, tied_to("lm_head.weight"));
    assert_eq!(report.layers[1].action, tied_to("wte.weight"));
}

/// The head computes with the codes of the table, through all states.
#[test]
fn the_table_and_the_head_are_one() {
    for recipe in [Recipe::from(Fp8::E4M3), Recipe::tensorwise(), Recipe::rowwise(), Recipe::mxfp8()] {
        let (table, mut model) = Model::new();
        model.quantize(as_one(recipe)).unwrap();
        let (Linear::Quantized(head), nn::Embedding::Quantized(wte)) = (&model.lm_head, &model.wte) else {
            panic!("both are quantized");
        };
        assert_eq!(head.recipe().weights, wte.recipe().weights, "one quantizer");
        assert_ne!(head.recipe().weights.granularity, Granularity::PerTensor, "that of rows");
        let codes = values(&head.quantized_weight().unwrap().dequantize().unwrap());
        assert_eq!(codes, values(&wte.quantized_weight().unwrap().dequantize().unwrap()));

        let y = model.forward();
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = values(gradients.get(&table).unwrap());
        assert!(gradient.iter().all(|value| value.is_finite()) && gradient.iter().any(|value| *value != 0.0));

        model.eval().unwrap();
        let eval = model.forward();
        let report = model.freeze().unwrap();
        assert!(report.layers.iter().all(|layer| layer.action == Action::Frozen), "{report}");
        assert_same("frozen", &model.forward(), &eval);
        assert_eq!(values(&model.lm_head.weight().unwrap()), codes);
        assert_eq!(values(&model.wte.weight().unwrap()), codes);

        model.dequantize().unwrap();
        assert_eq!(model.lm_head.weight().unwrap().id(), model.wte.weight().unwrap().id(), "still tied");
        model.make_trainable().unwrap();
        assert_eq!(model.lm_head.weight().unwrap().id(), model.wte.weight().unwrap().id(), "still tied");
        assert!(model.wte.weight().unwrap().is_variable());
    }
}

/// Frozen as one, they take the memory of one.
#[test]
fn codes_are_shared_and_saved_once() {
    let (_, mut model) = Model::new();
    model.quantize(as_one(Fp8::E4M3)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (state, path) in [("quantized", folder.path().join("a")), ("frozen", folder.path().join("b"))] {
        if state == "frozen" {
            model.freeze().unwrap();
        }
        checkpoint::save(&model, &path, Dialect::Altgrad).unwrap();
        let file = candle_core::safetensors::load(path.join("model.safetensors"), &Device::Cpu);
        let mut names: Vec<_> = file.unwrap().into_keys().collect();
        names.sort();
        assert_eq!(names, ["norm.bias", "norm.weight", "wte.weight", "wte.weight_scale"], "{state}");

        let vb = checkpoint::var_builder(&[&path], DType::F32, &Device::Cpu).unwrap();
        let wte = nn::embedding(20, 16, vb.pp("wte")).unwrap();
        let lm_head = wte.tied_linear(None).unwrap();
        assert!(matches!((&wte, &lm_head), (nn::Embedding::Frozen(_), Linear::Frozen(_))));
        let loaded = Model { wte, norm: candle_nn::layer_norm(16, 1e-5, vb.pp("norm")).unwrap(), lm_head };
        model.eval().unwrap();
        assert_same(state, &loaded.forward(), &model.forward());
    }
}

#[test]
fn a_head_is_tied_in_every_state() {
    let (_, mut model) = Model::new();
    for state in ["full", "quantized", "frozen"] {
        match state {
            "quantized" => drop(model.wte.quantize(Fp8::E4M3).unwrap()),
            "frozen" => drop(model.wte.freeze().unwrap()),
            _ => {}
        }
        let head = model.wte.tied_linear(Some(tensor(20, 9))).unwrap();
        assert_eq!(values(&head.weight().unwrap()), values(&model.wte.weight().unwrap()), "{state}");
        assert_eq!(head.forward(&tensor((2, 16), 1)).unwrap().dims(), [2, 20]);
        let error = model.wte.tied_linear(Some(tensor(19, 9)));
        assert!(state == "full" || error.unwrap_err().to_string().contains("[20]"), "{state}");
    }
}

/// What is quantized in two ways has no codes in common, and stays quantized.
#[test]
fn two_ways_to_quantize_one_tensor_are_not_frozen_as_one() {
    let (_, mut model) = Model::new();
    model.quantize(as_one(Fp8::E4M3).rule("lm_head", Fp8::E5M2)).unwrap();
    assert_eq!(model.lm_head.format(), Some(Fp8::E5M2));
    let report = model.freeze().unwrap();
    assert!(report.layers.iter().all(|layer| matches!(layer.action, Action::Skipped(SkipReason::Tied(_)))), "{report}");
}

/// A table that a part of the model uses which is not a slot stays what that part has.
#[test]
fn a_table_that_others_use_is_not_frozen() {
    #[derive(Quantizable)]
    struct WithPlain {
        model: Model,
        copy: Tensor,
    }

    let (table, model) = Model::new();
    let mut model = WithPlain { model, copy: table.as_tensor().clone() };
    model.quantize(as_one(Fp8::E4M3)).unwrap();
    let report = model.freeze().unwrap();
    assert!(report.layers.iter().all(|layer| matches!(layer.action, Action::Skipped(SkipReason::Tied(_)))), "{report}");
}

#[test]
fn half_of_a_tie_in_full_precision_leaves_the_other_quantized() {
    let (_, mut model) = Model::new();
    let report = model.quantize(as_one(Fp8::E4M3).rule("lm_head", None)).unwrap();
    assert_eq!(report.quantized(), 1);
    let report = model.freeze().unwrap();
    assert_eq!(report.layers[0].action, Action::Skipped(SkipReason::Tied("lm_head.weight".to_owned())));
    let error = model.layer("wte").unwrap_err();
    assert!(matches!(&error, Error::Model(ModelError::OtherKind { kind: "embedding", .. })), "{error}");
}
