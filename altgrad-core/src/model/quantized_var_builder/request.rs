//! What a model asks a `VarBuilder` for, and what the request reveals about the tensor.

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
    /// The shape that the tensor must have, if the model says so.
    pub(super) shape: Option<Shape>,
    pub(super) init: Init,
    pub(super) dtype: DType,
    pub(super) device: Device,
}

/// What a matrix is used as, judged by how a model asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The weight of a linear layer.
    Linear,
    /// An embedding's table.
    Embedding,
    /// Either of the two: the request tells only its name.
    Unsaid,
}

impl Request {
    /// The tensor of this name in `vb`, which must be at its root.
    pub(super) fn fetch(&self, vb: &VarBuilder<'_>) -> candle_core::Result<Tensor> {
        debug_assert!(lock::nothing_is_held(), "no lock is held while foreign code runs");
        let vb = vb.clone().set_device(self.device.clone());
        match &self.shape {
            // Never the codes of a checkpoint: a slot that got them would be frozen in the checkpoint's format.
            Some(shape) => vb.get_with_hints_dtype(shape.clone(), &self.name, of_candle(self.init), self.dtype),
            None => vb.get_unchecked_dtype(&self.name, self.dtype),
        }
    }

    /// The path of the layer, if the name is that of a weight.
    pub(super) fn layer(&self) -> Option<&str> {
        layer_of_weight(&self.name)
    }

    /// What a matrix is used as, judged by the initialization that `candle_nn`'s constructors ask for.
    pub(super) fn kind(&self) -> Kind {
        match self.init {
            Init::Kaiming { .. } => Kind::Linear,
            Init::Randn { mean: 0.0, stdev: 1.0 } => Kind::Embedding,
            Init::Const(_) | Init::Randn { .. } | Init::Uniform { .. } => Kind::Unsaid,
        }
    }

    /// Whether this repeats the request `other`, which got `tensor`.
    pub(super) fn repeats(&self, other: &Self, tensor: &Tensor) -> bool {
        self.name == other.name
            && self.dtype == other.dtype
            && self.device.same_device(&other.device)
            && self.shape.as_ref().is_none_or(|shape| shape == tensor.shape())
    }
}
