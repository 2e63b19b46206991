//! Presents the files of a checkpoint as one set of named tensors.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::tensor::TensorInfo;
use serde::Deserialize;

use super::file::{SafetensorsFile, invalid};
use super::json;
use crate::{CheckpointError, Error, Result};

/// The name of the file that says which tensor is in which shard.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The name of the file of a checkpoint that is not sharded.
pub(super) const SINGLE: &str = "model.safetensors";

/// The open files of a checkpoint, and where each tensor is.
#[derive(Debug)]
pub(super) struct Shards {
    folder: PathBuf,
    is_whole_folder: bool,
    files: Vec<SafetensorsFile>,
    places: BTreeMap<String, usize>,
}

/// The index of a sharded checkpoint.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, PathBuf>,
}

impl Shards {
    /// Opens a folder, an index, or the files listed.
    pub(super) fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        let Some(first) = paths.first().map(AsRef::as_ref) else {
            return Err(invalid(Path::new(""), None, "no file or folder was given".to_owned()));
        };
        if let [_] = paths {
            let is_folder = first.is_dir();
            if is_folder || first.extension().is_some_and(|extension| extension == "json") {
                let shards = if is_folder { Self::open_folder(first)? } else { Self::open_index(first)? };
                return Ok(Self { is_whole_folder: true, ..shards });
            }
        }
        let paths: Vec<_> = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        Self::open_files(folder_of(first), &paths)
    }

    fn open_folder(folder: &Path) -> Result<Self> {
        for (name, open) in [
            (INDEX, Self::open_index as fn(&Path) -> Result<Self>),
            (SINGLE, |file| Self::open_files(folder_of(file), &[file.to_owned()])),
        ] {
            let file = folder.join(name);
            if file.is_file() {
                return open(&file);
            }
        }
        let unreadable = |source| Error::Checkpoint(CheckpointError::Unreadable { file: folder.to_owned(), source });
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                files.push(path);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(invalid(folder, None, format!("it holds no `.safetensors` file and no `{INDEX}`")));
        }
        Self::open_files(folder, &files)
    }

    fn open_index(index: &Path) -> Result<Self> {
        let text = fs::read(index)
            .map_err(|source| Error::Checkpoint(CheckpointError::Unreadable { file: index.to_owned(), source }))?;
        let Index { weight_map } = json::parse_as(&text)
            .map_err(|error| invalid(index, None, format!("it is not an index of a checkpoint: {error}")))?;
        let folder = folder_of(index);
        let mut files: Vec<&PathBuf> = weight_map.values().collect();
        files.sort();
        files.dedup();
        for (name, file) in &weight_map {
            // A name that leads out of the folder would let a checkpoint read any file.
            if !matches!(file.components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
                let file = file.display();
                let why = format!("is said to be in `{file}`, which is not the name of a file beside the index");
                return Err(invalid(index, Some(name), why));
            }
            if !folder.join(file).is_file() {
                let why = format!("is said to be in `{}`, which is missing", file.display());
                return Err(invalid(index, Some(name), why));
            }
        }
        let files: Vec<_> = files.into_iter().map(|file| folder.join(file)).collect();
        // If a tensor is in several shards, the index decides.
        let shards = Self::open_files_by(folder, &files, |name, file| {
            weight_map.get(name).is_none_or(|listed| folder.join(listed) == file)
        })?;
        for (name, file) in &weight_map {
            if shards.places.get(name).is_none_or(|place| shards.files[*place].path() != folder.join(file)) {
                let why = format!("is said to be in `{}`, but is not", file.display());
                return Err(invalid(index, Some(name), why));
            }
        }
        Ok(shards)
    }

    fn open_files(folder: &Path, paths: &[PathBuf]) -> Result<Self> {
        Self::open_files_by(folder, paths, |_, _| true)
    }

    /// Opens files. Only those tensors count for whose name and file `counts` returns true.
    fn open_files_by(folder: &Path, paths: &[PathBuf], counts: impl Fn(&str, &Path) -> bool) -> Result<Self> {
        let files = paths.iter().map(|path| SafetensorsFile::open(path)).collect::<Result<Vec<_>>>()?;
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (place, file) in files.iter().enumerate() {
            for name in file.tensors().keys().filter(|name| counts(name, file.path())) {
                if let Some(other) = places.insert(name.clone(), place) {
                    let why = format!("is also in `{}`", files[other].path().display());
                    return Err(invalid(file.path(), Some(name), why));
                }
            }
        }
        Ok(Self { folder: folder.to_owned(), is_whole_folder: false, files, places })
    }

    /// The folder with the configuration that belongs to the files.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the checkpoint was opened as a folder or an index, so that the other files in the folder belong to it.
    pub(super) fn is_whole_folder(&self) -> bool {
        self.is_whole_folder
    }

    /// The files.
    pub(super) fn files(&self) -> &[SafetensorsFile] {
        &self.files
    }

    /// All tensors in the order of their names.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.places.iter().filter_map(|(name, place)| Some((name.as_str(), self.files[*place].tensors().get(name)?)))
    }

    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.files[*self.places.get(name)?].tensors().get(name)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The file that holds a tensor; the folder, if no file does.
    pub(super) fn file_of(&self, name: &str) -> &Path {
        self.places.get(name).map_or(&self.folder, |place| self.files[*place].path())
    }

    /// An error about one tensor.
    pub(super) fn invalid(&self, name: &str, why: impl Into<String>) -> Error {
        invalid(self.file_of(name), Some(name), why.into())
    }

    /// `length` bytes of a tensor, starting at `offset`.
    pub(super) fn read_part(&self, name: &str, offset: usize, length: usize) -> Result<Vec<u8>> {
        self.file_with(name)?.read_part(name, offset, length)
    }

    /// Fills `bytes` with those of a tensor, from its first on.
    pub(super) fn read_into(&self, name: &str, bytes: &mut [u8]) -> Result<()> {
        self.file_with(name)?.read_into(name, 0, bytes)
    }

    /// The bytes of a tensor.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.file_with(name)?.read(name)
    }

    /// A tensor as it is.
    pub(super) fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        self.file_with(name)?.tensor(name, device)
    }

    fn file_with(&self, name: &str) -> Result<&SafetensorsFile> {
        match self.places.get(name) {
            Some(place) => Ok(&self.files[*place]),
            None => Err(self.invalid(name, "is not there")),
        }
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}
