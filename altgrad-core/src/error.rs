//! The one error type of the library.

use std::path::{Path, PathBuf};

use candle_core::{DType, DeviceLocation};

/// What every fallible function of altgrad returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
///
/// Converts from and into [`candle_core::Error`], so `?` works in functions that return either. What has become one of
/// candle's errors, as in `Module::forward`, keeps its text but comes back as [`Error::Candle`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something went wrong in or with one layer.
    #[error("layer `{path}`: {source}")]
    Layer {
        /// Dotted path of the layer.
        path: String,
        /// What went wrong there.
        source: Box<Error>,
    },

    /// [`Fp8::new`](crate::Fp8::new) was given numbers that make no format.
    #[error("not a format: {why}")]
    InvalidFormat {
        /// The rule that was broken.
        why: String,
    },

    /// A quantizer's settings contradict themselves.
    #[error("invalid quantizer: {why}")]
    InvalidQuantizer {
        /// The rule that was broken.
        why: String,
    },

    /// A quantizer of a recipe is invalid.
    #[error("{role}: {source}")]
    Role {
        /// Which: `weights`, `activations` or `gradients`.
        role: &'static str,
        /// What is wrong with it.
        source: Box<Error>,
    },

    /// An observer that takes a percentage which is none.
    #[error("a percentile observer needs a percentage above 0 and up to 100, this one is {percentage}; try 99.9")]
    InvalidObserver {
        /// The percentage.
        percentage: f64,
    },

    /// A tensor holds NaN or an infinity where only finite values make sense.
    #[error(
        "{what} has a value that is not finite ({value} at index {index:?}), so no scale fits it; \
         find out where it came from, or leave the layer in full precision"
    )]
    NotFinite {
        /// The tensor's role: `weight`, for example.
        what: &'static str,
        /// The first such value.
        value: f64,
        /// Its index, one number for each dimension.
        index: Vec<usize>,
    },

    /// A finite `f64` tensor whose largest magnitude is out of the range of `f32`, in which scales are kept.
    #[error("{what} has a magnitude of {amax:e}, but scales are f32 and end at 3.4e38; rescale the tensor")]
    AmaxOutOfRange {
        /// The tensor's role.
        what: &'static str,
        /// The largest magnitude.
        amax: f64,
    },

    /// A tensor with NaN, or with an infinity that is to [propagate](crate::Infinity), was to be packed into a format that has
    /// no code for it.
    #[error(
        "{format} has no code for NaN, and the tensor holds a value that is not finite; \
         use a format with NaN such as E4M3 or E5M2, or remove it first"
    )]
    NanNotRepresentable {
        /// The format.
        format: crate::Fp8,
    },

    /// A tensor is not of a floating-point type that can be quantized.
    #[error("{what} has dtype {dtype:?}, but only f32, f64, f16 and bf16 tensors can be quantized")]
    UnsupportedDType {
        /// The tensor's role.
        what: &'static str,
        /// What it is.
        dtype: DType,
    },

    /// A tensor is on another device than the layer's weight.
    #[error("{what} is on {actual:?}, but the weight on {expected:?}; move one with `to_device`")]
    DeviceMismatch {
        /// The tensor's role.
        what: &'static str,
        /// The weight's device.
        expected: DeviceLocation,
        /// The tensor's.
        actual: DeviceLocation,
    },

    /// A scale is zero, negative, infinite or NaN.
    #[error("a scale must be a positive finite number, this one is {scale}")]
    InvalidScale {
        /// The scale.
        scale: f32,
    },

    /// A tensor's dtype differs from the one that the operation needs.
    #[error("{what} has dtype {actual:?}, expected {expected:?}; convert it with `to_dtype`")]
    DTypeMismatch {
        /// The tensor's role.
        what: &'static str,
        /// The dtype needed.
        expected: DType,
        /// The dtype given.
        actual: DType,
    },

    /// A tensor's shape does not fit.
    #[error("{what} has shape {actual:?}, expected {expected}")]
    ShapeMismatch {
        /// The tensor's role.
        what: &'static str,
        /// The shape needed, in words.
        expected: String,
        /// The shape given.
        actual: Vec<usize>,
    },

    /// A slice or list has not the length that goes with the others.
    #[error("{what} has {actual} elements, expected {expected}")]
    LengthMismatch {
        /// What it holds.
        what: &'static str,
        /// The length needed.
        expected: usize,
        /// The length given.
        actual: usize,
    },

    /// A layer is frozen: it holds codes only, and the operation needs its full-precision weight.
    #[error(
        "the layer is frozen and its full-precision weight is gone; \
         call `dequantize` on the model first, or leave the layer out with `.skip(\"{path}\")`"
    )]
    Frozen {
        /// Dotted path of the layer.
        path: String,
    },

    /// The model has no `altgrad::Linear` at all.
    #[error(
        "the model has no `altgrad::Linear` layers; declare its linear layers as `altgrad::Linear` \
         (the constructors have candle_nn's signatures) and check for fields marked `#[quant(ignore)]`"
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
        "no layer of the model can be trained: all are frozen; call `dequantize` first, or train adapters beside the frozen \
         layers"
    )]
    NothingToTrain,

    /// A checkpoint was to be written of a model, or from another one, in which no layer is quantized.
    #[error(
        "no layer is quantized, so there is no FP8 checkpoint to write; call `quantize` first, with a config whose rules \
         leave it some layers"
    )]
    NothingToWrite,

    /// A scale that was to be written would come from a history of which there is none yet.
    #[error(
        "the scale of the {role} is delayed, and no step of training has measured it yet; train before, or use a recipe \
         with other scaling, such as `tensorwise`"
    )]
    NoHistory {
        /// The field of the recipe, `weights` or `activations`.
        role: &'static str,
    },

    /// [`calibrate`](crate::Quantizable::calibrate) found no scale to fix.
    #[error(
        "no layer of the model quantizes its activations with one scale a tensor, so there is nothing to calibrate; \
         call `quantize` first (and before that `dequantize`, if layers are frozen), with a recipe such as \
         `Recipe::tensorwise()`"
    )]
    NothingToCalibrate,

    /// Layers were not called in a calibration pass, or with empty inputs only.
    #[error(
        "no input value reached {} in the calibration passes, so no scale is known; what other layers saw is kept: calibrate \
         again with inputs that reach all, or with `IdleLayers::LeaveAsIs`, which leaves the others as they are",
        quoted_layers(.layers)
    )]
    NotCalibrated {
        /// Their paths, in the order of declaration.
        layers: Vec<String>,
    },

    /// [`requantize`](crate::QuantizedVarBuilder::requantize) was called while it ran on another thread.
    #[error("another thread is requantizing the weights of this builder; requantize from one thread, after each step")]
    AlreadyRequantizing,

    /// A tensor is missing from what the quantizers of a model remembered.
    #[error("the quantizer state has no tensor `{key}`; was it saved from a model with the same config?")]
    MissingState {
        /// The tensor's name.
        key: String,
    },

    /// A tensor of what the quantizers of a model remembered is not of this model.
    #[error(
        "the model has no use for the quantizer state `{key}`{}; was it saved from a model with the same config?",
        nearest_text(.nearest)
    )]
    UnknownState {
        /// The tensor's name.
        key: String,
        /// The names most like it, best first.
        nearest: Vec<String>,
    },

    /// A tensor of what the quantizers of a model remembered cannot be right.
    #[error("the quantizer state `{key}` does not fit: {why}")]
    InvalidState {
        /// The tensor's name.
        key: String,
        /// What is wrong with it.
        why: String,
    },

    /// A byte is not a code of a format of 6 or 4 bits.
    #[error(
        "the codes have bytes that are not codes of {format}: a code of {} bits is in the upper bits of its byte, and the \
         others are 0; shift codes that are in the lower bits",
        .format.bits()
    )]
    NotACode {
        /// The format.
        format: crate::Fp8,
    },

    /// The slot of a path is not a linear layer.
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

    /// A rule's pattern matches no layer.
    #[error(
        "rule `{pattern}` matches no layer{}; a pattern names a layer or an ancestor by its whole dotted path, \
         with `*` for one segment and `**` for any number",
        nearest_text(.nearest)
    )]
    RuleMatchesNothing {
        /// The rule's pattern.
        pattern: String,
        /// The layers whose paths are most like it, best first.
        nearest: Vec<String>,
    },

    /// Every layer that a rule matches was already decided by the rules before it.
    #[error(
        "rule `{pattern}` never applies: the first match wins, and every layer that it matches is matched by \
         an earlier rule ({}); put it before them or remove it",
        .earlier.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", ")
    )]
    RuleNeverApplies {
        /// The rule's pattern.
        pattern: String,
        /// The earlier rules that took its layers.
        earlier: Vec<String>,
    },

    /// A rule's pattern is not well formed.
    #[error("rule `{pattern}` is not a pattern: {why}")]
    InvalidPattern {
        /// The rule's pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },

    /// A config file is of no syntax that its extension tells.
    #[error("cannot tell the syntax of the config `{}` by its extension; name it `.toml` or `.json`", .file.display())]
    UnknownConfigSyntax {
        /// The file.
        file: PathBuf,
    },

    /// A config file cannot be read.
    #[error("cannot read the config `{}`: {source}", .file.display())]
    UnreadableConfig {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// A config says what it cannot.
    #[error("{}{why}", place_text(.file.as_deref(), *.position, .field))]
    InvalidConfig {
        /// The file, if it was read from one.
        file: Option<PathBuf>,
        /// The line and the column, both from 1, if it was read from text.
        position: Option<(usize, usize)>,
        /// Where in the config, such as `rules[1].recipe.weights`; empty for the whole of it.
        field: String,
        /// What is wrong, and what is allowed.
        why: String,
    },

    /// A file or folder cannot be read.
    #[error("cannot read `{}`: {source}", .file.display())]
    UnreadableFile {
        /// The file or folder.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// A checkpoint is damaged, incomplete, or of a kind that altgrad does not read.
    #[error("`{}`: {}{why}", .file.display(), tensor_text(.tensor.as_deref()))]
    InvalidCheckpoint {
        /// The file at fault.
        file: PathBuf,
        /// The tensor at fault, by its name in the file, if it is one.
        tensor: Option<String>,
        /// What is wrong with it.
        why: String,
    },

    /// A dialect cannot express what is to be written in it.
    #[error("the dialect {dialect} cannot express {what}{}; {}", .dialect.repertoire(), able_text(.able))]
    NotExpressible {
        /// The dialect.
        dialect: crate::checkpoint::Dialect,
        /// What it has no words for.
        what: String,
        /// The dialects that have.
        able: Vec<crate::checkpoint::Dialect>,
    },

    /// A checkpoint cannot be written.
    #[error("cannot write `{}`: {source}; nothing was left there", .file.display())]
    Unwritable {
        /// The folder of the checkpoint.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// A checkpoint would be written over something.
    #[error("`{}` is there and not an empty folder; write to another one, or remove it first", .folder.display())]
    TargetExists {
        /// The folder.
        folder: PathBuf,
    },

    /// No dialect has this name.
    #[error(
        "no dialect of checkpoints is called `{name}`{}; there are {}",
        did_you_mean(.name, dialect_names()),
        dialect_names().join(", ")
    )]
    UnknownDialect {
        /// The name asked for.
        name: String,
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

    /// Candle reported an error.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// The same error, said of one quantizer of a recipe.
    pub(crate) fn of(self, role: &'static str) -> Self {
        Self::Role { role, source: Box::new(self) }
    }

    /// The same error, said of the layer at `path`; unchanged if it already names a layer, or if the model is a single
    /// layer, whose path is empty.
    #[must_use]
    pub fn at(self, path: &str) -> Self {
        match self {
            Self::Layer { .. } => self,
            other if path.is_empty() => other,
            other => Self::Layer { path: path.to_owned(), source: Box::new(other) },
        }
    }
}

impl From<altgrad_kernels::Error> for Error {
    fn from(error: altgrad_kernels::Error) -> Self {
        use altgrad_kernels::Error as Kernel;
        match error {
            Kernel::InvalidFormat { why } => Self::InvalidFormat { why },
            Kernel::InvalidScale { scale } => Self::InvalidScale { scale },
            Kernel::LengthMismatch { what, expected, actual } => Self::LengthMismatch { what, expected, actual },
            Kernel::NanNotRepresentable { format } => Self::NanNotRepresentable { format },
            error => Self::InvalidQuantizer { why: error.to_string() },
        }
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => Self::wrap(other),
        }
    }
}

/// `experiment.toml:3:7: `rules[0].recipe`: `, as compilers write it, or as much of it as is known.
fn place_text(file: Option<&Path>, position: Option<(usize, usize)>, field: &str) -> String {
    let file = file.map_or("config".to_owned(), |file| file.display().to_string());
    let position = position.map_or(String::new(), |(line, column)| format!(":{line}:{column}"));
    let field = if field.is_empty() { String::new() } else { format!("`{field}`: ") };
    format!("{file}{position}: {field}")
}

/// ``tensor `…` `` and a space, if an error is about one.
fn tensor_text(tensor: Option<&str>) -> String {
    tensor.map_or(String::new(), |name| format!("tensor `{name}` "))
}

fn able_text(able: &[crate::checkpoint::Dialect]) -> String {
    match able {
        [] => "no other can".to_owned(),
        [one] => format!("the dialect {one} can"),
        several => format!("these can: {}", several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn dialect_names() -> [&'static str; crate::checkpoint::Dialect::ALL.len()] {
    crate::checkpoint::Dialect::ALL.map(crate::checkpoint::Dialect::name)
}

/// `; did you mean `…`?` with the most similar of `known`, or nothing if none is similar.
pub(crate) fn did_you_mean<'k>(unknown: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(&unknown.to_ascii_lowercase(), &known.to_ascii_lowercase());
    let scored = known.into_iter().map(|known| (likeness(known), known));
    match scored.filter(|(likeness, _)| *likeness >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => String::new(),
    }
}

fn nearest_text(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        [one] => format!("; the nearest is `{one}`"),
        many => format!("; the nearest are {}", quoted(many)),
    }
}

/// Paths in a list; a model that is a single layer has the empty path.
fn quoted_layers(paths: &[String]) -> String {
    match paths {
        [path] if path.is_empty() => "the layer".to_owned(),
        paths => quoted(paths),
    }
}

/// Names in a list.
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
