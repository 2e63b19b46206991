//! What a model asks a `VarBuilder` for, and what that tells about the tensor.

use altgrad_kernels::lock;
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder};

use crate::model::names::layer_of_weight;
use crate::slot::slot_codes::of_candle;

/// What a model asks for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The tensor's full name.
    pub(super) name: String,
    /// The shape that it must have, if the model says so.
    pub(super) shape: Option<Shape>,
    pub(super) init: Init,
    pub(super) dtype: DType,
    pub(super) device: Device,
}

/// What a matrix is, by the way in which it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The weight of a linear layer.
    Linear,
    /// An embedding's table.
    Embedding,
    /// One of the two: nothing but its name was said.
    Unsaid,
}

impl Request {
    /// The tensor that `vb`, which must be at its root, has under the name.
    pub(super) fn fetch(&self, vb: &VarBuilder<'_>) -> candle_core::Result<Tensor> {
        debug_assert!(lock::nothing_is_held(), "no lock is held while a builder of somebody else's is asked");
        let vb = vb.clone().set_device(self.device.clone());
        match &self.shape {
            // Codes of a checkpoint are none: a slot that was given them would be frozen in the checkpoint's format.
            Some(shape) => vb.get_with_hints_dtype(shape.clone(), &self.name, of_candle(self.init), self.dtype),
            None => vb.get_unchecked_dtype(&self.name, self.dtype),
        }
    }

    /// The path of the layer whose weight this is, if the name is that of a weight.
    pub(super) fn layer(&self) -> Option<&str> {
        layer_of_weight(&self.name)
    }

    /// What a matrix is. `candle_nn`'s constructors tell by how they initialize.
    pub(super) fn kind(&self) -> Kind {
        match self.init {
            Init::Kaiming { .. } => Kind::Linear,
            Init::Randn { mean: 0.0, stdev: 1.0 } => Kind::Embedding,
            Init::Const(_) | Init::Randn { .. } | Init::Uniform { .. } => Kind::Unsaid,
        }
    }

    /// Whether this asks again for what `other` asked for and got as `tensor`.
    pub(super) fn repeats(&self, other: &Self, tensor: &Tensor) -> bool {
        self.name == other.name
            && self.dtype == other.dtype
            && self.device.same_device(&other.device)
            && self.shape.as_ref().is_none_or(|shape| shape == tensor.shape())
    }
}
