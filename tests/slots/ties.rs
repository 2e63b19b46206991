//! A head that is tied to an embedding.

use altgrad::checkpoint::{self, Dialect};
use altgrad::report::{Action, SkipReason};
use altgrad::{Error, Fp8, Granularity, Linear, ModelError, QuantConfig, Quantizable, Recipe, TiePolicy, nn};
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
        assert!(error.unwrap_err().to_string().contains("[20]"), "{state}");
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

/// A clone of a model, to be kept while the original trains on, is frozen and saved as the original is.
#[test]
fn clones_of_a_tie_are_frozen_as_one() {
    let (_, mut model) = Model::new();
    model.quantize(as_one(Fp8::E4M3)).unwrap();
    model.forward();
    let mut best = Model { wte: model.wte.clone(), norm: model.norm.clone(), lm_head: model.lm_head.clone() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    checkpoint::save(&best, &path, Dialect::Altgrad).unwrap();
    let file = candle_core::safetensors::load(path.join("model.safetensors"), &Device::Cpu).unwrap();
    assert!(file.contains_key("wte.weight_scale") && !file.contains_key("lm_head.weight"));
    let report = best.freeze().unwrap();
    assert!(report.layers.iter().all(|layer| layer.action == Action::Frozen), "{report}");
    model.eval().unwrap();
    assert_same("frozen", &best.forward(), &model.forward());
}

/// What only one of two layers that share codes says of its inputs would be lost, so it is an error.
#[test]
fn inputs_of_a_tied_head_are_not_lost_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let (_, mut model) = Model::new();
    model.quantize(as_one(Recipe::tensorwise())).unwrap();
    for _ in 0..2 {
        let error = checkpoint::save(&model, &path, Dialect::Altgrad).unwrap_err().to_string();
        assert!(error.contains("layer `lm_head`") && error.contains("`wte`"), "{error}");
        assert!(!path.exists());
        model.freeze().unwrap();
    }
}

/// A gradient of the weight through one of the layers makes the others compute with the weight as it then is.
#[test]
fn a_step_through_the_head_moves_the_table_in_eval_mode() {
    let (table, mut model) = Model::new();
    model.quantize(as_one(Fp8::E4M3)).unwrap();
    model.eval().unwrap();
    let ids = Tensor::new(&[1u32, 5], &Device::Cpu).unwrap();
    let before = values(&model.wte.forward(&ids).unwrap());
    let y = model.lm_head.forward(&tensor((2, 16), 3)).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&table).is_some());
    table.set(&(table.as_tensor() * 2.0).unwrap()).unwrap();
    let after = values(&model.wte.forward(&ids).unwrap());
    assert_eq!(after, before.into_iter().map(|value| 2.0 * value).collect::<Vec<_>>());
}

/// Variables in place of constants, and a state from a file, leave layers quantized as one.
#[test]
fn a_tie_stays_one_through_variables_and_state() {
    let (_, mut model) = Model::new();
    model.quantize(as_one(Fp8::E4M3)).unwrap();
    model.forward();
    let state = model.quantizer_state().unwrap();
    model.make_trainable().unwrap();
    assert_eq!(model.wte.weight().unwrap().id(), model.lm_head.weight().unwrap().id());
    model.load_quantizer_state(&state).unwrap();
    let report = model.freeze().unwrap();
    assert!(report.layers.iter().all(|layer| layer.action == Action::Frozen), "{report}");
}

/// Each pass of each layer is a step of the weight that they share.
#[test]
fn passes_of_tied_layers_count_as_steps() {
    let weight = tensor((8, 8), 1);
    let mut model = vec![Linear::new(weight.clone(), None), Linear::new(weight, None)];
    model.quantize(as_one(Fp8::E4M3)).unwrap();
    for layer in &model {
        layer.forward(&tensor((2, 8), 2)).unwrap();
    }
    let state = model.quantizer_state().unwrap();
    for key in ["0.weights.step", "1.weights.step"] {
        assert_eq!(state[key].to_scalar::<i64>().unwrap(), 2, "{key}");
    }
}

/// Products of several numbers of groups read one weight in several orders, so they are not one.
#[test]
fn convolutions_of_other_groups_are_not_one() {
    let weight = tensor((8, 2, 3, 3), 1);
    let config = |groups| candle_nn::Conv2dConfig { groups, ..candle_nn::Conv2dConfig::default() };
    let mut model = vec![nn::Conv2d::new(weight.clone(), None, config(2)), nn::Conv2d::new(weight, None, config(1))];
    let inputs = [tensor((1, 4, 5, 5), 2), tensor((1, 2, 5, 5), 3)];
    let run = |model: &[nn::Conv2d]| -> Vec<Tensor> {
        model.iter().zip(&inputs).map(|(layer, x)| layer.forward(x).unwrap()).collect()
    };
    model.quantize(as_one(Fp8::E4M3)).unwrap();
    let training = run(&model);
    model.eval().unwrap();
    for (eval, training) in run(&model).iter().zip(&training) {
        assert_same("eval", eval, training);
    }
}

/// A freeze that is refused names the part that is not quantized as one with the layer.
#[test]
fn what_keeps_a_tie_from_being_frozen_is_named() {
    #[derive(Quantizable)]
    struct WithPlain {
        wte: nn::Embedding,
        lm_head: Linear,
        copy: Tensor,
    }

    let (_, Model { wte, lm_head, .. }) = Model::new();
    let copy = wte.embeddings().clone();
    let mut model = WithPlain { wte, lm_head, copy };
    model.quantize(as_one(Fp8::E4M3)).unwrap();
    for layer in model.freeze().unwrap().layers {
        assert_eq!(layer.action, Action::Skipped(SkipReason::Tied("copy".to_owned())), "{}", layer.path);
    }
}

/// A bias that a frozen layer keeps cannot become a variable elsewhere.
#[test]
fn a_bias_of_a_frozen_layer_stays_tied() {
    let bias = tensor(8, 5);
    let layer = |seed| Linear::new(tensor((8, 8), seed), Some(bias.clone()));
    let mut model = (vec![layer(1)], layer(2));
    model.0.quantize(Fp8::E4M3).unwrap();
    model.0.freeze().unwrap();
    let trainable = model.make_trainable().unwrap();
    assert_eq!(model.0[0].bias().unwrap().id(), model.1.bias().unwrap().id());
    assert!(trainable.constants.contains(&("1.bias".to_owned(), altgrad::Constant::Tied("0.0.bias".to_owned()))));
}
