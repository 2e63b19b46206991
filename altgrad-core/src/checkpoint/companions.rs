//! Copies the files beside a checkpoint that belong to its model: tokenizers, templates, code.

use std::fs;
use std::path::{Path, PathBuf};

use super::config::{CONFIG, HF_QUANT_CONFIG};
use super::shards::Shards;
use super::writer::CheckpointWriter;
use crate::{CheckpointError, Error, Result};

/// The extensions of such files.
const EXTENSIONS: [&str; 6] = ["json", "txt", "model", "jinja", "tiktoken", "py"];

/// Copies the files if the checkpoint was opened as a folder or an index. If files were given one by one, unrelated
/// files may lie beside them.
pub(super) fn add_companions(shards: &Shards, writer: &mut CheckpointWriter) -> Result<()> {
    if shards.is_whole_folder() {
        for file in companions(shards.folder())? {
            writer.add_copy(&file)?;
        }
    }
    Ok(())
}

/// The files of a folder that belong to its model, except those that altgrad writes itself.
fn companions(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |source| Error::Checkpoint(CheckpointError::Unreadable { file: folder.to_owned(), source });
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let has_name = |names: &[&str]| path.file_name().is_some_and(|name| names.iter().any(|known| name == *known));
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_index = path.to_str().is_some_and(|path| path.ends_with(".index.json"));
        if path.is_file() && EXTENSIONS.contains(&extension) && !is_index && !has_name(&[CONFIG, HF_QUANT_CONFIG]) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
