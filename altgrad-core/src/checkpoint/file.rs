//! One safetensors file: its header, which is checked completely, and its tensors, which are read one at a time.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use altgrad_kernels::zeroed;
use bytemuck::cast_slice_mut;
use candle_core::safetensors::Load;
use candle_core::{Device, Tensor, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo, TensorView};
use serde_json::Value;

use crate::{CheckpointError, Error, Result};

/// The size of the header's length, with which a file begins.
const PREFIX: u64 = 8;
/// The longest header that the `safetensors` library reads and writes.
const LONGEST_HEADER: u64 = 100_000_000;
/// The start of the placeholder text of a file that Git LFS has not fetched.
const GIT_LFS: &[u8; PREFIX as usize] = b"version ";
/// The key of a header's metadata, among the names of tensors.
const METADATA: &str = "__metadata__";

/// An open file. Tensors are read by position and not memory-mapped: a mapped file that shrinks crashes the program,
/// whereas reading it gives an error.
#[derive(Debug)]
pub(super) struct SafetensorsFile {
    path: PathBuf,
    file: File,
    /// Where the tensors begin.
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: HashMap<String, String>,
}

impl SafetensorsFile {
    /// Opens a file and checks that its header describes it, byte for byte.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let unreadable = |source| Error::Checkpoint(CheckpointError::Unreadable { file: path.to_owned(), source });
        let invalid = |why| invalid(path, None, why);
        let mut file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        if length < PREFIX {
            return Err(invalid(format!("{length} bytes are too few for a safetensors file")));
        }
        let mut prefix = [0; PREFIX as usize];
        file.read_exact(&mut prefix).map_err(unreadable)?;
        if &prefix == GIT_LFS {
            let why = "it is a Git LFS pointer and not the file itself, which `git lfs pull` fetches".to_owned();
            return Err(invalid(why));
        }
        let header_length = u64::from_le_bytes(prefix);
        if header_length > LONGEST_HEADER.min(length - PREFIX) {
            return Err(invalid(format!(
                "its header claims {header_length} bytes, but the file has {length}; it is damaged, incomplete or \
                 not a safetensors file"
            )));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let mut entries: BTreeMap<String, Value> =
            serde_json::from_slice(&header).map_err(|error| invalid(format!("its header cannot be read: {error}")))?;
        let metadata = match entries.remove(METADATA) {
            Some(Value::Null) | None => HashMap::new(),
            Some(value) => serde_json::from_value(value)
                .map_err(|error| invalid(format!("`{METADATA}` in its header is not a map of strings: {error}")))?,
        };
        let start = PREFIX + header_length;
        let tensors = check_entries(path, entries, length - start)?;
        Ok(Self { path: path.to_owned(), file, start, tensors, metadata })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors by name.
    pub(super) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The text that the header carries beside the tensors.
    pub(super) fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// `length` bytes of a tensor, starting at `offset`.
    pub(super) fn read_part(&self, name: &str, offset: usize, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_into(name, offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` with those of a tensor from number `offset` on.
    pub(super) fn read_into(&self, name: &str, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let ((begin, end), length) = (self.info(name)?.data_offsets, bytes.len());
        if offset.checked_add(length).is_none_or(|stop| stop > end - begin) {
            return Err(invalid(&self.path, Some(name), format!("does not have {length} bytes from byte {offset} on")));
        }
        read_exact_at(&self.file, bytes, self.start + (begin + offset) as u64)
            .map_err(|source| Error::Checkpoint(CheckpointError::Unreadable { file: self.path.clone(), source }))
    }

    /// The bytes of a tensor.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (begin, end) = self.info(name)?.data_offsets;
        self.read_part(name, 0, end - begin)
    }

    /// A tensor in its own dtype, which candle must have.
    pub(super) fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let info = self.info(name)?;
        // Floats lie in files as they do in the memory of most machines.
        if cfg!(target_endian = "little") {
            let (shape, count) = (info.shape.as_slice(), info.shape.iter().product());
            match info.dtype {
                Dtype::F32 => return self.floats::<f32>(name, shape, zeroed(count), cast_slice_mut, device),
                Dtype::F64 => return self.floats::<f64>(name, shape, zeroed(count), cast_slice_mut, device),
                Dtype::F16 => return self.floats::<f16>(name, shape, zeroed(count), of_halves, device),
                Dtype::BF16 => return self.floats::<bf16>(name, shape, zeroed(count), of_halves, device),
                _ => {}
            }
        }
        let bytes = self.read(name)?;
        let view = TensorView::new(info.dtype, info.shape.clone(), &bytes)
            .map_err(|error| invalid(&self.path, Some(name), error.to_string()))?;
        view.load(device).map_err(|error| {
            let why = format!("is of dtype {}, which candle cannot hold: {error}", info.dtype);
            invalid(&self.path, Some(name), why)
        })
    }

    /// A tensor whose values are read to where they stay.
    fn floats<T: WithDType>(
        &self,
        name: &str,
        shape: &[usize],
        mut values: Vec<T>,
        bytes: impl FnOnce(&mut [T]) -> &mut [u8],
        device: &Device,
    ) -> Result<Tensor> {
        self.read_into(name, 0, bytes(&mut values))?;
        Ok(Tensor::from_vec(values, shape, device)?)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| invalid(&self.path, Some(name), "is not there".to_owned()))
    }
}

/// The bytes of floats of 16 bits.
fn of_halves<T>(values: &mut [T]) -> &mut [u8]
where
    [T]: HalfFloatSliceExt,
{
    cast_slice_mut(values.reinterpret_cast_mut())
}

/// Fills `bytes` from a file, starting at `offset`; other threads may read from the same file meanwhile.
#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Fills `bytes` from a file, starting at `offset`; other threads may read from the same file meanwhile.
#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => (bytes, offset) = (&mut bytes[read..], offset + read as u64),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `bytes` from a file, starting at `offset`. Other targets, such as WebAssembly, have no threads that could
/// interfere.
#[cfg(not(any(unix, windows)))]
fn read_exact_at(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

/// An error in a file, or in one tensor of it.
pub(super) fn invalid(file: &Path, tensor: Option<&str>, why: String) -> Error {
    Error::Checkpoint(CheckpointError::Invalid { file: file.to_owned(), tensor: tensor.map(str::to_owned), why })
}

/// The entries of a header, which must fill `length` bytes without gaps or overlaps.
fn check_entries(path: &Path, entries: BTreeMap<String, Value>, length: u64) -> Result<BTreeMap<String, TensorInfo>> {
    let mut tensors = BTreeMap::new();
    for (name, value) in entries {
        let info: TensorInfo = serde_json::from_value(value).map_err(|error| {
            invalid(path, Some(&name), format!("has an invalid description in the header: {error}"))
        })?;
        let (begin, end) = info.data_offsets;
        // A dimension of size 0 must not hide an overflow in the product of the others, which strides are computed
        // from.
        let mut sides = info.shape.iter().map(|size| *size.max(&1));
        let most = sides.try_fold(info.dtype.bitsize(), usize::checked_mul);
        let bits = most.map(|bits| if info.shape.contains(&0) { 0 } else { bits });
        let fits = bits.is_some_and(|bits| bits % 8 == 0 && end.checked_sub(begin) == Some(bits / 8));
        if !fits || end as u64 > length {
            let why = format!(
                "is described as {} of shape {:?} in bytes {begin} to {end} of {length}, which is \
                 impossible; the file is damaged or incomplete",
                info.dtype, info.shape
            );
            return Err(invalid(path, Some(&name), why));
        }
        tensors.insert(name, info);
    }
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| info.data_offsets);
    let mut reached = 0;
    for (name, info) in in_order {
        let (begin, end) = info.data_offsets;
        if begin != reached {
            let what = if begin < reached { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(invalid(path, Some(name), format!("{what}: it begins at byte {begin} instead of {reached}")));
        }
        reached = end;
    }
    if reached as u64 != length {
        let why = format!("it holds {length} bytes of tensors, but its header describes {reached}");
        return Err(invalid(path, None, why));
    }
    Ok(tensors)
}
