//! Field types of the standard library and of candle that implement the trait.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::marker::PhantomData;

use altgrad::{Linear, Quantizable};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn as nn;

use super::{assert_seen, layer, tensor};

#[test]
fn values() {
    #[derive(Quantizable)]
    struct Config<'a> {
        nothing: (),
        flag: bool,
        letter: char,
        signed: (i8, i16, i32, i64, i128, isize),
        unsigned: (u8, u16, u32, u64, u128, usize),
        floats: (f32, f64, half::f16, half::bf16),
        string: String,
        slice: &'a str,
        cow: Cow<'a, str>,
        marker: PhantomData<dyn Send>,
        dtype: DType,
        device: Device,
        optional: Option<usize>,
        layer: Linear,
    }

    let config = Config {
        nothing: (),
        flag: true,
        letter: 'x',
        signed: (0, 0, 0, 0, 0, 0),
        unsigned: (0, 0, 0, 0, 0, 0),
        floats: (0.0, 0.0, half::f16::ZERO, half::bf16::ZERO),
        string: String::new(),
        slice: "",
        cow: "".into(),
        marker: PhantomData,
        dtype: DType::F32,
        device: Device::Cpu,
        optional: None,
        layer: layer(),
    };
    assert_seen(config, ["layer"]);
}

#[test]
fn containers() {
    #[derive(Quantizable)]
    struct Model {
        vec: Vec<Linear>,
        array: [Linear; 2],
        array_of_arrays: [[Linear; 1]; 2],
        boxed: Box<Linear>,
        boxed_slice: Box<[Linear]>,
        some: Option<Linear>,
        none: Option<Linear>,
        empty: Vec<Linear>,
        none_of_many: [Linear; 0],
        mixed: Vec<Option<Box<Linear>>>,
        one: (Linear,),
        tuple: (Linear, usize, Vec<Linear>),
    }

    let model = Model {
        vec: vec![layer(), layer()],
        array: [layer(), layer()],
        array_of_arrays: [[layer()], [layer()]],
        boxed: Box::new(layer()),
        boxed_slice: Box::new([layer()]),
        some: Some(layer()),
        none: None,
        empty: vec![],
        none_of_many: [],
        mixed: vec![None, Some(Box::new(layer()))],
        one: (layer(),),
        tuple: (layer(), 1, vec![layer()]),
    };
    let expected = [
        "vec.0",
        "vec.1",
        "array.0",
        "array.1",
        "array_of_arrays.0.0",
        "array_of_arrays.1.0",
        "boxed",
        "boxed_slice.0",
        "some",
        "mixed.1",
        "one.0",
        "tuple.0",
        "tuple.2.0",
    ];
    assert_seen(model, expected);
}

#[test]
fn the_longest_tuple() {
    #[derive(Quantizable)]
    struct Model((), u8, (), Linear, (), (), (), Linear);
    #[derive(Quantizable)]
    struct Newtype(((), u8, (), Linear, (), (), (), Linear));

    assert_seen(Model((), 0, (), layer(), (), (), (), layer()), ["3", "7"]);
    assert_seen(Newtype(((), 0, (), layer(), (), (), (), layer())), ["3", "7"]);
}

/// Maps are visited in the order of their keys, whatever the hasher.
#[test]
fn maps() {
    type Hasher = BuildHasherDefault<DefaultHasher>;
    #[derive(Quantizable)]
    struct Model<'a> {
        owned: HashMap<String, Linear>,
        borrowed: HashMap<&'a str, (Linear, Linear)>,
        custom: HashMap<Box<str>, Linear, Hasher>,
        tree: BTreeMap<Cow<'a, str>, Option<Linear>>,
    }
    fn entries<'a, K: From<&'a str>, V>(names: &[&'a str], value: impl Fn() -> V) -> Vec<(K, V)> {
        names.iter().map(|&name| (name.into(), value())).collect()
    }

    let model = Model {
        owned: entries(&["k", "c", "a", "b", "x", "10", "9"], layer).into_iter().collect(),
        borrowed: entries(&["q"], || (layer(), layer())).into_iter().collect(),
        custom: entries(&["z", "y"], layer).into_iter().collect(),
        tree: entries(&["de", "en.us"], || Some(layer())).into_iter().collect(),
    };
    let expected = [
        "owned.10",
        "owned.9",
        "owned.a",
        "owned.b",
        "owned.c",
        "owned.k",
        "owned.x",
        "borrowed.q.0",
        "borrowed.q.1",
        "custom.y",
        "custom.z",
        "tree.de",
        "tree.en.us",
    ];
    assert_seen(model, expected);
}

#[test]
fn tensors() {
    #[derive(Quantizable)]
    struct Model {
        positions: Tensor,
        scale: Var,
        #[quant(rename = "mask.causal")]
        mask: Option<Tensor>,
        cache: Vec<(Tensor, Tensor)>,
    }

    let model = Model {
        positions: tensor(&[3]),
        scale: Var::from_tensor(&tensor(&[1, 2])).unwrap(),
        mask: Some(tensor(&[4, 4])),
        cache: vec![(tensor(&[5]), tensor(&[6]))],
    };
    assert_seen(model, ["positions: 3", "scale: 1×2", "mask.causal: 4×4", "cache.0.0: 5", "cache.0.1: 6"]);
}

#[test]
fn layers_of_candle_nn_that_show_their_tensors() {
    #[derive(Quantizable)]
    struct Model {
        wte: nn::Embedding,
        layer_norm: nn::LayerNorm,
        layer_norm_no_bias: nn::LayerNorm,
        rms_norm: nn::RmsNorm,
        prelu: nn::PReLU,
        conv1d: nn::Conv1d,
        conv2d: nn::Conv2d,
        conv_transpose1d: nn::ConvTranspose1d,
        conv_transpose2d: nn::ConvTranspose2d,
        batch_norm: nn::BatchNorm,
        batch_norm_no_bias: nn::BatchNorm,
    }

    let t = tensor;
    let model = Model {
        wte: nn::Embedding::new(t(&[10, 4]), 4),
        layer_norm: nn::LayerNorm::new(t(&[4]), t(&[4]), 1e-5),
        layer_norm_no_bias: nn::LayerNorm::new_no_bias(t(&[4]), 1e-5),
        rms_norm: nn::RmsNorm::new(t(&[4]), 1e-5),
        prelu: nn::PReLU::new(t(&[1]), true),
        conv1d: nn::Conv1d::new(t(&[2, 3, 5]), Some(t(&[2])), nn::Conv1dConfig::default()),
        conv2d: nn::Conv2d::new(t(&[2, 3, 5, 5]), None, nn::Conv2dConfig::default()),
        conv_transpose1d: nn::ConvTranspose1d::new(t(&[3, 2, 5]), None, nn::ConvTranspose1dConfig::default()),
        conv_transpose2d: nn::ConvTranspose2d::new(
            t(&[3, 2, 5, 5]),
            Some(t(&[2])),
            nn::ConvTranspose2dConfig::default(),
        ),
        batch_norm: nn::BatchNorm::new(4, t(&[4]), t(&[4]), t(&[4]), t(&[4]), 1e-5).unwrap(),
        batch_norm_no_bias: nn::BatchNorm::new_no_bias(4, t(&[4]), t(&[4]), 1e-5).unwrap(),
    };
    let expected = [
        "wte.weight: 10×4",
        "layer_norm.weight: 4",
        "layer_norm.bias: 4",
        "layer_norm_no_bias.weight: 4",
        "rms_norm.weight: 4",
        "prelu.weight: 1",
        "conv1d.weight: 2×3×5",
        "conv1d.bias: 2",
        "conv2d.weight: 2×3×5×5",
        "conv_transpose1d.weight: 3×2×5",
        "conv_transpose2d.weight: 3×2×5×5",
        "conv_transpose2d.bias: 2",
        "batch_norm.running_mean: 4",
        "batch_norm.running_var: 4",
        "batch_norm.weight: 4",
        "batch_norm.bias: 4",
        "batch_norm_no_bias.running_mean: 4",
        "batch_norm_no_bias.running_var: 4",
    ];
    assert_seen(model, expected);
}

#[test]
fn layers_of_candle_nn_that_show_nothing() {
    #[derive(Quantizable)]
    struct Model {
        activation: nn::Activation,
        dropout: nn::Dropout,
        identity: nn::ops::Identity,
        group_norm: nn::GroupNorm,
        lstm: Option<nn::LSTM>,
        gru: Option<nn::GRU>,
        cache: nn::kv_cache::Cache,
        kv_cache: nn::kv_cache::KvCache,
        concat_cache: nn::kv_cache::ConcatKvCache,
        rotating_cache: nn::kv_cache::RotatingCache,
        rotating_kv_cache: nn::kv_cache::RotatingKvCache,
        head: Linear,
    }

    let model = Model {
        activation: nn::Activation::Gelu,
        dropout: nn::Dropout::new(0.1),
        identity: nn::ops::Identity::new(),
        group_norm: nn::GroupNorm::new(tensor(&[4]), tensor(&[4]), 4, 2, 1e-5).unwrap(),
        lstm: None,
        gru: None,
        cache: nn::kv_cache::Cache::new(0, 8),
        kv_cache: nn::kv_cache::KvCache::new(0, 8),
        concat_cache: nn::kv_cache::ConcatKvCache::new(0),
        rotating_cache: nn::kv_cache::RotatingCache::new(0, 8),
        rotating_kv_cache: nn::kv_cache::RotatingKvCache::new(0, 8),
        head: layer(),
    };
    assert_seen(model, ["head"]);
}
