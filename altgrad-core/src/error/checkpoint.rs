//! What is wrong with a checkpoint that is read or written.

use std::path::PathBuf;

/// What is wrong with a checkpoint that is read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A checkpoint was to be written of a model, or from another one, in which no layer is quantized.
    #[error(
        "no layer is quantized, so there is no FP8 checkpoint to write; call `quantize` first, with a config whose \
         rules leave it some layers"
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
        /// The tensor at fault, by its name in the file, if it is one.
        tensor: Option<String>,
        /// What is wrong with it.
        why: String,
    },

    /// A dialect cannot express what is to be written in it.
    #[error("the dialect {dialect} cannot express {what}{repertoire}; {}", able_text(.able))]
    NotExpressible {
        /// The [name](crate::checkpoint::Dialect::name) of the dialect.
        dialect: &'static str,
        /// What it has words for, in a sentence.
        repertoire: &'static str,
        /// What it has no words for.
        what: String,
        /// The names of the dialects that have.
        able: Vec<&'static str>,
    },

    /// Two layers share their codes, which a checkpoint has once, and do not quantize their inputs alike.
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

    /// A checkpoint would be written over something.
    #[error("`{}` is there and not an empty folder; write to another one, or remove it first", .folder.display())]
    TargetExists {
        /// The folder.
        folder: PathBuf,
    },
}

/// ``tensor `…` `` and a space, if an error is about one.
fn tensor_text(tensor: Option<&str>) -> String {
    tensor.map_or(String::new(), |name| format!("tensor `{name}` "))
}

/// Which dialects can.
fn able_text(able: &[&str]) -> String {
    match able {
        [] => "no other can".to_owned(),
        [one] => format!("the dialect {one} can"),
        several => format!("these can: {}", several.join(", ")),
    }
}
