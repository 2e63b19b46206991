//! The output folder: checked before training, written whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub(crate) struct OutputFolder(PathBuf);

impl OutputFolder {
    /// Creates the folder and makes sure that `files` can be written there.
    pub(crate) fn prepare(folder: &Path, files: &[&str]) -> Result<Self> {
        let advice = || format!("cannot write to the output folder {}; choose another by --output", folder.display());
        fs::create_dir_all(folder).with_context(advice)?;
        tempfile::NamedTempFile::new_in(folder).with_context(advice)?;
        for file in files {
            let path = folder.join(file);
            ensure!(!path.is_dir(), "{} is a folder; choose another --output", path.display());
        }
        Ok(Self(folder.to_owned()))
    }

    /// Writes a file under another name first, so that nobody ever reads half of it.
    pub(crate) fn write(&self, file: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.0.join(file);
        let unfinished = self.0.join(format!(".{file}.{}", std::process::id()));
        let written = fs::write(&unfinished, content).and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            // The file may not even exist, and the first error is the informative one.
            let _ = fs::remove_file(&unfinished);
        }
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
