//! Writes the files of a checkpoint so that either all appear, complete, or none does.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use tempfile::TempDir;

use super::file::invalid;
use super::json;
use super::shards::{INDEX, SINGLE};
use crate::{CheckpointError, Error, Result};

/// A tensor to be written.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
}

impl Entry {
    pub(super) fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// A checkpoint in a temporary folder, which lies beside the target and is renamed to it at the end. If dropped before
/// that, it leaves nothing behind.
pub(super) struct CheckpointWriter {
    target: PathBuf,
    folder: TempDir,
    /// Locked while the folder is written to, so that other processes do not remove the folder as stale.
    lock: File,
    shards: Vec<File>,
    places: HashMap<String, Place>,
}

/// Where the bytes of a tensor go.
struct Place {
    shard: usize,
    position: u64,
    bytes: usize,
    written: usize,
}

impl CheckpointWriter {
    /// Lays out files of at most `shard_bytes` (unless a single tensor is larger), with the tensors in the given order.
    pub(super) fn create(target: &Path, entries: &[Entry], shard_bytes: usize) -> Result<Self> {
        check_target(target)?;
        let parent = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let (folder, lock) = fs::create_dir_all(parent)
            .and_then(|()| {
                remove_stale(parent);
                // Another process that removes stale folders may mistake a folder for one if its file is not locked
                // yet; so try twice.
                temporary_folder(parent).or_else(|_| temporary_folder(parent))
            })
            .map_err(|source| Error::Checkpoint(CheckpointError::Unwritable { file: target.to_owned(), source }))?;
        let mut writer = Self { target: target.to_owned(), folder, lock, shards: Vec::new(), places: HashMap::new() };
        let groups = cut(entries, shard_bytes);
        let mut weight_map = BTreeMap::new();
        for (number, group) in groups.iter().enumerate() {
            let name = match groups.len() {
                1 => SINGLE.to_owned(),
                count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            weight_map.extend(group.iter().map(|entry| (entry.name.clone(), name.clone())));
            writer.add_shard(&name, group)?;
        }
        if groups.len() > 1 {
            let total_size: usize = entries.iter().map(Entry::bytes).sum();
            let index = serde_json::json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
            writer.add_json(INDEX, &index)?;
        }
        Ok(writer)
    }

    fn add_shard(&mut self, name: &str, entries: &[&Entry]) -> Result<()> {
        // Wide elements first, so that each tensor is aligned to its elements, as in the `safetensors` library.
        let mut entries = entries.to_vec();
        entries.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        let mut end = 0;
        let mut tensors = Vec::with_capacity(entries.len());
        for entry in &entries {
            let data_offsets = (end, end + entry.bytes());
            tensors.push((
                entry.name.clone(),
                TensorInfo { dtype: entry.dtype, shape: entry.shape.clone(), data_offsets },
            ));
            end = data_offsets.1;
        }
        let path = self.folder.path().join(name);
        // Loaders of transformers ask which framework wrote a file.
        let metadata = Some(HashMap::from([("format".to_owned(), "pt".to_owned())]));
        let header = Metadata::new(metadata, tensors)
            .map_err(|error| error.to_string())
            .and_then(|header| serde_json::to_vec(&header).map_err(|error| error.to_string()))
            .map_err(|why| invalid(&path, None, why))?;
        let mut header = header;
        header.resize(header.len().next_multiple_of(8), b' ');
        let start = 8 + header.len() as u64;
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            file.set_len(start + end as u64)?;
            Ok(file)
        };
        self.shards.push(write().map_err(|source| self.unwritable(source))?);
        let mut position = start;
        for entry in entries {
            let place = Place { shard: self.shards.len() - 1, position, bytes: entry.bytes(), written: 0 };
            position += place.bytes as u64;
            if self.places.insert(entry.name.clone(), place).is_some() {
                return Err(invalid(&self.target, Some(&entry.name), "would be written twice".to_owned()));
            }
        }
        Ok(())
    }

    /// Writes the next bytes of a tensor.
    pub(super) fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(place) = self.places.get_mut(name).filter(|place| bytes.len() <= place.bytes - place.written) else {
            return Err(invalid(&self.target, Some(name), format!("has no room for {} more bytes", bytes.len())));
        };
        let position = place.position + place.written as u64;
        place.written += bytes.len();
        let file = &mut self.shards[place.shard];
        let written = file.seek(SeekFrom::Start(position)).and_then(|_| file.write_all(bytes));
        written.map_err(|source| self.unwritable(source))
    }

    /// Adds a JSON file.
    pub(super) fn add_json(&mut self, name: &str, content: &serde_json::Value) -> Result<()> {
        let write = || {
            let mut file = File::create(self.folder.path().join(name))?;
            json::write(content, &mut file)?;
            file.sync_all()
        };
        write().map_err(|source| self.unwritable(source))
    }

    /// Adds a copy of a file.
    pub(super) fn add_copy(&mut self, file: &Path) -> Result<()> {
        let Some(name) = file.file_name() else { return Ok(()) };
        let mut original = File::open(file)
            .map_err(|source| Error::Checkpoint(CheckpointError::Unreadable { file: file.to_owned(), source }))?;
        let copy = File::create(self.folder.path().join(name)).and_then(|mut copy| io::copy(&mut original, &mut copy));
        copy.map(|_| ()).map_err(|source| self.unwritable(source))
    }

    /// Checks that all tensors are complete, and renames the folder to the target.
    pub(super) fn finish(mut self) -> Result<()> {
        if let Some((name, _)) = self.places.iter().find(|(_, place)| place.written != place.bytes) {
            return Err(invalid(&self.target, Some(name), "was not written completely".to_owned()));
        }
        for file in &self.shards {
            file.sync_all().map_err(|source| self.unwritable(source))?;
        }
        // On some systems, a folder with open files cannot be renamed.
        self.shards.clear();
        check_target(&self.target)?;
        // Some systems replace an empty folder on renaming, others fail.
        if self.target.is_dir() {
            fs::remove_dir(&self.target).map_err(|source| self.unwritable(source))?;
        }
        fs::remove_file(self.folder.path().join(LOCK)).map_err(|source| self.unwritable(source))?;
        fs::rename(self.folder.path(), &self.target).map_err(|source| self.unwritable(source))?;
        drop(self.lock);
        // The folder has another name now, so there is nothing to remove.
        let _ = self.folder.keep();
        Ok(())
    }

    fn unwritable(&self, source: io::Error) -> Error {
        Error::Checkpoint(CheckpointError::Unwritable { file: self.target.clone(), source })
    }
}

/// Fails if something would be overwritten.
fn check_target(target: &Path) -> Result<()> {
    match fs::read_dir(target).map(Iterator::count) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) if !target.exists() => {
            Err(Error::Checkpoint(CheckpointError::Unwritable { file: target.to_owned(), source }))
        }
        _ => Err(Error::Checkpoint(CheckpointError::TargetExists { folder: target.to_owned() })),
    }
}

/// How the names of temporary folders begin.
const PREFIX: &str = ".altgrad-checkpoint-";
/// The file in a temporary folder that the process writing to the folder keeps locked.
const LOCK: &str = ".lock";

/// Removes temporary folders left behind by processes that were interrupted. A folder that cannot be removed, or not be
/// recognized as stale, stays: it does no harm.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_temporary = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let lock = File::open(entry.path().join(LOCK));
        if let (true, Ok(lock)) = (is_temporary, lock)
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder with the permissions that any new folder gets, and its locked file.
fn temporary_folder(parent: &Path) -> io::Result<(TempDir, File)> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    let folder = builder.tempdir_in(parent)?;
    let lock = File::create(folder.path().join(LOCK))?;
    match lock.try_lock() {
        // Some file systems have no locks; then no other process can take one either.
        Ok(()) | Err(fs::TryLockError::Error(_)) => Ok((folder, lock)),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// The entries of each file.
fn cut(entries: &[Entry], shard_bytes: usize) -> Vec<Vec<&Entry>> {
    let mut shards: Vec<Vec<&Entry>> = vec![Vec::new()];
    let mut filled = 0_usize;
    for entry in entries {
        let bytes = entry.bytes();
        if filled > 0 && filled.saturating_add(bytes) > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(entry);
        }
    }
    shards
}
