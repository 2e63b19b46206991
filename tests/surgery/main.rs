//! Surgery on a GPT: what is replaced, what is shared, what is restored, and what an error leaves behind.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod frozen;
mod layers;
mod replacing;
mod reports;

use altgrad::{Linear, Quantizable};
use candle_core::Tensor;
use common::{Gpt, values};

const PROJECTIONS: [&str; 8] = [
    "h.0.attn.c_attn",
    "h.0.attn.c_proj",
    "h.0.mlp.c_fc",
    "h.0.mlp.c_proj",
    "h.1.attn.c_attn",
    "h.1.attn.c_proj",
    "h.1.mlp.c_fc",
    "h.1.mlp.c_proj",
];

fn kinds(model: &Gpt) -> Vec<&'static str> {
    let kind = |layer: &Linear| match layer {
        Linear::Full(_) => "full",
        Linear::Quantized(_) => "quantized",
        Linear::Frozen(_) => "frozen",
    };
    model.layers().unwrap().into_iter().map(|(_, layer)| kind(layer)).collect()
}

/// What a model holds: each layer's kind, and the identity and values of its tensors.
fn fingerprint(model: &Gpt) -> Vec<(String, &'static str, String, Vec<f64>)> {
    let describe = |(path, layer): (String, &Linear)| {
        let weight = layer.weight().unwrap();
        let ids = format!("{:?} {:?}", weight.id(), layer.bias().map(Tensor::id));
        (path, weight, ids)
    };
    let layers = model.layers().unwrap().into_iter().map(describe);
    layers.zip(kinds(model)).map(|((path, weight, ids), kind)| (path, kind, ids, values(&weight))).collect()
}
