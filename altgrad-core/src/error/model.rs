//! Operations that a model, in its present state, does not allow.

use super::text::{nearest_text, quoted_layers};

/// Operations that a model, in its present state, does not allow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A layer is frozen: it holds codes only, and the operation needs its full-precision weight.
    #[error(
        "the layer is frozen and its full-precision weight is gone; \
         call `dequantize` on the model first, or leave the layer out with `.skip(\"{path}\")`"
    )]
    Frozen {
        /// Dotted path of the layer.
        path: String,
    },

    /// The model has no slot at all.
    #[error(
        "the model has no layers that can be quantized; declare them as `altgrad::Linear`, or with the other layers of \
         `altgrad::nn` (the constructors have candle_nn's signatures), and check for fields marked `#[quant(ignore)]`"
    )]
    NoLayers,

    /// A model has asked a [`QuantizedVarBuilder`](crate::QuantizedVarBuilder) for no linear weight yet.
    #[error(
        "no linear weight was asked for: build the model from `builder()` first; \
         a linear weight is a matrix whose name ends with `weight`"
    )]
    NoWeights,

    /// [`freeze`](crate::Quantizable::freeze) found nothing to freeze.
    #[error("no layer of the model is quantized, so there is nothing to freeze; call `quantize` first")]
    NothingToFreeze,

    /// [`make_trainable`](crate::Quantizable::make_trainable) found no layer whose weight could be a variable.
    #[error(
        "no layer of the model can be trained: all are frozen; call `dequantize` first, or train adapters beside the \
         frozen layers"
    )]
    NothingToTrain,

    /// [`calibrate`](crate::Quantizable::calibrate) found no scale to fix.
    #[error(
        "no layer of the model quantizes its activations with one scale a tensor, so there is nothing to calibrate; \
         call `quantize` first (and before that `dequantize`, if layers are frozen), with a recipe such as \
         `Recipe::tensorwise()`"
    )]
    NothingToCalibrate,

    /// Layers were not called in a calibration pass, or with empty inputs only.
    #[error(
        "no input value reached {} in the calibration passes, so no scale is known; what other layers saw is kept: \
         calibrate again with inputs that reach all, or with `IdleLayers::LeaveAsIs`, which leaves these layers as \
         they are",
        quoted_layers(.layers)
    )]
    NotCalibrated {
        /// Their paths, in the order of declaration.
        layers: Vec<String>,
    },

    /// A scale that was to be written depends on a history, which is still empty.
    #[error(
        "the scale of the {role} is delayed, and no step of training has measured it yet; train first, or use a \
         recipe with other scaling, such as `tensorwise`"
    )]
    NoHistory {
        /// The field of the recipe, `weights` or `activations`.
        role: &'static str,
    },

    /// [`requantize`](crate::QuantizedVarBuilder::requantize) was called while it ran on another thread.
    #[error("another thread is requantizing the weights of this builder; requantize from one thread, after each step")]
    AlreadyRequantizing,

    /// A tensor is missing from a quantizer state.
    #[error("the quantizer state has no tensor `{key}`; was it saved from a model with the same config?")]
    MissingState {
        /// The tensor's name.
        key: String,
    },

    /// A tensor of a quantizer state does not belong to this model.
    #[error(
        "the model has no use for the quantizer state `{key}`{}; was it saved from a model with the same config?",
        nearest_text(.nearest)
    )]
    UnknownState {
        /// The tensor's name.
        key: String,
        /// The most similar names, best first.
        nearest: Vec<String>,
    },

    /// A tensor of a quantizer state is invalid.
    #[error("the quantizer state `{key}` does not fit: {why}")]
    InvalidState {
        /// The tensor's name.
        key: String,
        /// What is wrong with it.
        why: String,
    },

    /// The slot at a path is not a linear layer.
    #[error("the layer at `{path}` is not linear but of the kind {kind}; ask for it by `slot(\"{path}\")`")]
    OtherKind {
        /// The path that was asked for.
        path: String,
        /// What is there.
        kind: &'static str,
    },

    /// No layer has this path.
    #[error("no layer has the path `{path}`{}", nearest_text(.nearest))]
    NoSuchLayer {
        /// The path asked for.
        path: String,
        /// The layers whose paths are most like it, best first.
        nearest: Vec<String>,
    },

    /// Two layers of the model have the same path.
    #[error(
        "two layers have the path `{path}`; paths name layers in rules, reports and checkpoints, so they must differ: \
         rename one with `#[quant(rename = \"…\")]` or remove a `flatten`"
    )]
    DuplicatePath {
        /// The path.
        path: String,
    },

    /// A hand-written [`Quantizable`](crate::Quantizable) shows different layers to `visit` and `visit_mut`.
    #[error(
        "`visit` and `visit_mut` of the model disagree at `{path}`: both must show the same layers in the same order"
    )]
    InconsistentVisit {
        /// The first path at which they differ.
        path: String,
    },
}
