//! What is wrong with a checkpoint that is read or written.

use std::path::PathBuf;

/// What is wrong with a checkpoint that is read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A checkpoint was to be written from a model or another checkpoint in which no layer is quantized.
    #[error(
        "no layer is quantized, so there is no FP8 checkpoint to write; call `quantize` first, with a config whose \
         rules do not skip all layers"
    )]
    NothingToWrite,

    /// A file or folder cannot be read.
    #[error("cannot read `{}`: {source}", .file.display())]
    Unreadable {
        /// The file or folder.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// A checkpoint is damaged, incomplete, or of a kind that altgrad does not read.
    #[error("`{}`: {}{why}", .file.display(), tensor_text(.tensor.as_deref()))]
    Invalid {
        /// The file at fault.
        file: PathBuf,
        /// The name of the tensor at fault in the file, if the error is about one.
        tensor: Option<String>,
        /// What is wrong with it.
        why: String,
    },

    /// A dialect cannot express a layer that is to be written.
    #[error("the dialect {dialect} cannot express {what}{repertoire}; {}", able_text(.able))]
    NotExpressible {
        /// The [name](crate::checkpoint::Dialect::name) of the dialect.
        dialect: &'static str,
        /// What it can express, as part of a sentence.
        repertoire: &'static str,
        /// What it cannot express.
        what: String,
        /// The names of the dialects that can.
        able: Vec<&'static str>,
    },

    /// Two layers share their codes, which a checkpoint stores once, but quantize their inputs differently.
    #[error(
        "it shares its codes with `{first}`, under whose name they are written, but quantizes its inputs differently, \
         which no checkpoint can express; quantize both with a recipe without `activations`"
    )]
    TiedInputsDiffer {
        /// The path of the layer whose name the codes have.
        first: String,
    },

    /// Blocks of a weight's scales reach from one kernel of a convolution into the next.
    #[error(
        "no checkpoint can express scales {granularity} of a weight of shape {shape:?}; quantize it with one scale a \
         tensor or a row"
    )]
    BlocksAcrossKernels {
        /// The [`Granularity`](crate::Granularity), as `Display` writes it.
        granularity: String,
        /// The shape of the weight.
        shape: Vec<usize>,
    },

    /// A checkpoint cannot be written.
    #[error("cannot write `{}`: {source}; nothing was left there", .file.display())]
    Unwritable {
        /// The folder of the checkpoint.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// The target of a checkpoint is not a new or empty folder.
    #[error("`{}` exists and is not an empty folder; write to another one, or remove it first", .folder.display())]
    TargetExists {
        /// The folder.
        folder: PathBuf,
    },
}

/// ``tensor `…` `` and a space, if an error is about a tensor.
fn tensor_text(tensor: Option<&str>) -> String {
    tensor.map_or(String::new(), |name| format!("tensor `{name}` "))
}

/// Says which dialects can.
fn able_text(able: &[&str]) -> String {
    match able {
        [] => "no other can".to_owned(),
        [one] => format!("the dialect {one} can"),
        several => format!("these can: {}", several.join(", ")),
    }
}
