//! `Quantizable` for slots, for candle's values, for `candle_nn`'s layers that are not linear, and for what its models
//! hold besides.
//!
//! A layer shows its tensors under their names in a checkpoint, as far as `candle_nn` gives access to them. Those of
//! `GroupNorm`, `LSTM` and `GRU` are private, so a tie with one of them is not detected.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn as nn;

use super::leaf;
use crate::Result;
use crate::slot::{Operation, Slot};
use crate::visit::{Path, Visit, Visitor, VisitorMut};

leaf!(
    DType,
    Device,
    nn::Activation,
    nn::Dropout,
    nn::GRU,
    nn::GroupNorm,
    nn::LSTM,
    nn::kv_cache::Cache,
    nn::kv_cache::ConcatKvCache,
    nn::kv_cache::KvCache,
    nn::kv_cache::RotatingCache,
    nn::kv_cache::RotatingKvCache,
    nn::ops::Identity,
    nn::VarBuilder<'_>,
    tracing::Span,
);

impl<O: Operation> Visit for Slot<O> {
    fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
        visitor.slot(path, self)
    }

    fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
        visitor.slot(path, self)
    }
}

/// Parts that show tensors: the expression gives the `(name, tensor)` pairs of a part; an empty name stands for the
/// path of the part itself.
macro_rules! holds_tensors {
    ($($type:ty: |$part:ident| $tensors:expr;)+) => {$(
        impl Visit for $type {
            fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
                let $part = self;
                show($tensors, path, |path, tensor| visitor.tensor(path, tensor))
            }

            fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
                let $part = &*self;
                show($tensors, path, |path, tensor| visitor.tensor(path, tensor))
            }
        }
    )+};
}

holds_tensors! {
    Tensor: |tensor| [("", Some(tensor))];
    Var: |variable| [("", Some(variable.as_tensor()))];
    nn::Embedding: |layer| [("weight", Some(layer.embeddings()))];
    nn::LayerNorm: |layer| [("weight", Some(layer.weight())), ("bias", layer.bias())];
    nn::RmsNorm: |layer| [("weight", Some(layer.weight()))];
    crate::nn::LayerNorm: |layer| [("weight", Some(layer.weight())), ("bias", layer.bias())];
    crate::nn::RmsNorm: |layer| [("weight", Some(layer.weight()))];
    nn::PReLU: |layer| [("weight", Some(layer.weight()))];
    nn::Conv1d: |layer| [("weight", Some(layer.weight())), ("bias", layer.bias())];
    nn::Conv2d: |layer| [("weight", Some(layer.weight())), ("bias", layer.bias())];
    nn::ConvTranspose1d: |layer| [("weight", Some(layer.weight())), ("bias", layer.bias())];
    nn::ConvTranspose2d: |layer| [("weight", Some(layer.weight())), ("bias", layer.bias())];
    nn::BatchNorm: |layer| [
        ("running_mean", Some(layer.running_mean())),
        ("running_var", Some(layer.running_var())),
        ("weight", layer.weight_and_bias().map(|(weight, _)| weight)),
        ("bias", layer.weight_and_bias().map(|(_, bias)| bias)),
    ];
}

fn show<'m, const N: usize>(
    tensors: [(&'static str, Option<&'m Tensor>); N],
    path: &Path<'_>,
    mut visit: impl FnMut(&Path<'_>, &'m Tensor) -> Result<()>,
) -> Result<()> {
    for (name, tensor) in tensors {
        let path = if name.is_empty() { path.transparent() } else { path.field(name) };
        tensor.map_or(Ok(()), |tensor| visit(&path, tensor))?;
    }
    Ok(())
}
