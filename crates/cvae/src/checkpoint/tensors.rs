//! Safetensors files in which every byte is accounted for.
//!
//! The metadata holds the SHA-256 of every tensor's bytes (`digests`) and of the header itself (`sha256`,
//! computed with its own digits as `0`). Reading compares the header with the length of the file before
//! anything is allocated, and each tensor with its digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

#[cfg(feature = "cpu")]
use cvae_cpu::Bf16;
use cvae_data::atomic_write;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::error::CheckpointError;
use crate::config::FORMAT_VERSION;

/// Longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes of the header's length.
const LENGTH_BYTES: u64 = 8;
/// Bytes converted or read at a time.
const BLOCK: usize = 1 << 16;
/// Metadata entry with the digest of the header.
const SHA256: &str = "sha256";
/// Metadata entry with the digests of the tensors.
const DIGESTS: &str = "digests";
/// Metadata entry with the version of the format.
const VERSION: &str = "format_version";
/// What the digest of the header is while the header is digested.
const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The elements of a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Elements<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Bytes.
    U8(&'a [u8]),
    /// 16-bit floats.
    #[cfg(feature = "cpu")]
    Bf16(&'a [Bf16]),
    /// Signed bytes.
    #[cfg(feature = "cpu")]
    I8(&'a [i8]),
}

impl Elements<'_> {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::U8(_) => Dtype::U8,
            #[cfg(feature = "cpu")]
            Self::Bf16(_) => Dtype::BF16,
            #[cfg(feature = "cpu")]
            Self::I8(_) => Dtype::I8,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::F32(values) => values.len() as u64 * 4,
            Self::U8(values) => values.len() as u64,
            #[cfg(feature = "cpu")]
            Self::Bf16(values) => values.len() as u64 * 2,
            #[cfg(feature = "cpu")]
            Self::I8(values) => values.len() as u64,
        }
    }

    /// Writes the elements in little-endian order.
    fn write(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::U8(values) => out.write_all(values),
            #[cfg(feature = "cpu")]
            Self::I8(values) => {
                let mut block = [0; BLOCK];
                for values in values.chunks(BLOCK) {
                    for (byte, value) in block.iter_mut().zip(values) {
                        [*byte] = value.to_le_bytes();
                    }
                    out.write_all(&block[..values.len()])?;
                }
                Ok(())
            }
            #[cfg(feature = "cpu")]
            Self::Bf16(values) => {
                let mut block = [0; BLOCK];
                for values in values.chunks(BLOCK / 2) {
                    for (bytes, value) in block.chunks_exact_mut(2).zip(values) {
                        bytes.copy_from_slice(&value.to_bits().to_le_bytes());
                    }
                    out.write_all(&block[..values.len() * 2])?;
                }
                Ok(())
            }
            Self::F32(values) => {
                let mut block = [0; BLOCK];
                for values in values.chunks(BLOCK / 4) {
                    for (bytes, value) in block.chunks_exact_mut(4).zip(values) {
                        bytes.copy_from_slice(&value.to_le_bytes());
                    }
                    out.write_all(&block[..values.len() * 4])?;
                }
                Ok(())
            }
        }
    }
}

/// A tensor to be written. Tensors of longer elements must come before those of shorter ones, so that all are aligned.
#[derive(Clone, Debug)]
pub(crate) struct Tensor<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: Elements<'a>,
}

/// Writes `tensors` to `path`, all or nothing.
///
/// # Errors
/// [`CheckpointError::Write`].
pub(crate) fn write(
    path: &Path,
    metadata: &[(&'static str, String)],
    tensors: &[Tensor<'_>],
) -> Result<(), CheckpointError> {
    atomic_write(path, |file| {
        let header = header(metadata, tensors)?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|tensor| tensor.elements.write(file))
    })
    .map_err(CheckpointError::Write)
}

/// The header with its digests, padded to whole words.
fn header(metadata: &[(&'static str, String)], tensors: &[Tensor<'_>]) -> io::Result<Vec<u8>> {
    let (mut infos, mut digests, mut offset) = (Map::new(), Map::new(), 0);
    for tensor in tensors {
        let mut hash = Sha256::new();
        tensor.elements.write(&mut hash)?;
        digests.insert(tensor.name.clone(), hex(hash).into());
        let end = offset + tensor.elements.bytes();
        let info = json!({ "dtype": tensor.elements.dtype(), "shape": tensor.shape, "data_offsets": [offset, end] });
        infos.insert(tensor.name.clone(), info);
        offset = end;
    }
    let mut entries: Map<String, Value> =
        metadata.iter().map(|(key, text)| ((*key).to_owned(), text.as_str().into())).collect();
    entries.insert(VERSION.to_owned(), FORMAT_VERSION.to_string().into());
    entries.insert(DIGESTS.to_owned(), Value::Object(digests).to_string().into());
    entries.insert(SHA256.to_owned(), BLANK.into());
    infos.insert("__metadata__".to_owned(), Value::Object(entries));

    let mut header = serde_json::to_vec(&Value::Object(infos))?;
    header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    if header.len() as u64 > MAX_HEADER {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the header is longer than the format allows"));
    }
    let digest = hex(Sha256::new_with_prefix(&header));
    if let Some(at) = digest_position(&header) {
        header[at..at + BLANK.len()].copy_from_slice(digest.as_bytes());
    }
    Ok(header)
}

/// Where the header's own digest stands in it. Quotes within any text of the header are escaped, so that
/// the pattern occurs once at most.
fn digest_position(header: &[u8]) -> Option<usize> {
    let pattern = format!("\"{SHA256}\":\"");
    let at = header.windows(pattern.len()).position(|window| window == pattern.as_bytes())? + pattern.len();
    (header.len() >= at + BLANK.len()).then_some(at)
}

/// A digest as text.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An open file whose header has been verified.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    digests: BTreeMap<String, String>,
    /// Offset of the first tensor.
    start: u64,
}

impl TensorFile {
    /// Opens `path` and verifies its header.
    ///
    /// # Errors
    /// Everything that can be told from the header and the length of the file.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let owned = || path.to_path_buf();
        let read = |source| CheckpointError::read(path, source);
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?;
        if !length.is_file() {
            return Err(read(io::ErrorKind::IsADirectory.into()));
        }
        let bytes = length.len();
        if bytes < LENGTH_BYTES {
            return Err(CheckpointError::NoHeader { path: owned(), bytes });
        }
        let mut claimed = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut claimed).map_err(read)?;
        let claimed = u64::from_le_bytes(claimed);
        if claimed > MAX_HEADER || claimed > bytes - LENGTH_BYTES {
            return Err(CheckpointError::HeaderLength { path: owned(), claimed, bytes });
        }
        let mut text = vec![0; claimed as usize];
        file.read_exact(&mut text).map_err(read)?;
        let parsed: Result<Metadata, _> = serde_json::from_slice(&text);
        let header = parsed.map_err(|error| CheckpointError::Header { path: owned(), source: error.into() })?;
        let start = LENGTH_BYTES + claimed;
        let expected = start.saturating_add(header.data_len() as u64);
        if expected != bytes {
            return Err(CheckpointError::Length { path: owned(), expected, found: bytes });
        }
        let mut this = Self { path: owned(), file, header, digests: BTreeMap::new(), start };
        this.verify_header(text)?;
        this.digests = this.json(DIGESTS)?;
        match this.text(VERSION)? {
            version if version == FORMAT_VERSION.to_string() => Ok(this),
            version => Err(CheckpointError::Version { path: owned(), found: version.to_owned() }),
        }
    }

    fn verify_header(&self, mut text: Vec<u8>) -> Result<(), CheckpointError> {
        let found = self.text(SHA256)?;
        let damaged = || CheckpointError::HeaderDigest { path: self.path.clone() };
        let at = digest_position(&text).ok_or_else(damaged)?;
        text[at..at + BLANK.len()].copy_from_slice(BLANK.as_bytes());
        if hex(Sha256::new_with_prefix(&text)) == found { Ok(()) } else { Err(damaged()) }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A metadata entry.
    pub(crate) fn text(&self, key: &'static str) -> Result<&str, CheckpointError> {
        let entry = self.header.metadata().as_ref().and_then(|entries| entries.get(key));
        entry.map(String::as_str).ok_or_else(|| CheckpointError::NoMetadata { path: self.path.clone(), key })
    }

    /// A metadata entry in JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, key: &'static str) -> Result<T, CheckpointError> {
        serde_json::from_str(self.text(key)?).map_err(|source| CheckpointError::Metadata {
            path: self.path.clone(),
            key,
            source,
        })
    }

    /// Checks that the tensors are exactly those `expected`, `(name, type, shape)`; a shape of `None`
    /// stands for any vector.
    pub(crate) fn expect<'a>(
        &self,
        expected: impl Iterator<Item = (&'a str, Dtype, Option<&'a [usize]>)>,
    ) -> Result<(), CheckpointError> {
        let mut known = BTreeMap::new();
        for (tensor, dtype, shape) in expected {
            let info = self.info(tensor)?;
            known.insert(tensor, ());
            if info.dtype != dtype {
                let (path, tensor) = (self.path.clone(), tensor.to_owned());
                return Err(CheckpointError::ElementType { path, tensor, expected: dtype, found: info.dtype });
            }
            let fits = shape.map_or(info.shape.len() == 1, |shape| shape == info.shape);
            if !fits {
                return Err(CheckpointError::Shape {
                    path: self.path.clone(),
                    tensor: tensor.to_owned(),
                    expected: shape.map_or(vec![], <[usize]>::to_vec),
                    found: info.shape.clone(),
                });
            }
        }
        match self.header.offset_keys().into_iter().find(|name| !known.contains_key(name.as_str())) {
            Some(tensor) => Err(CheckpointError::UnexpectedTensor { path: self.path.clone(), tensor }),
            None => Ok(()),
        }
    }

    /// Reads a tensor of floats into `out`, which has its length; every value must be finite.
    pub(crate) fn read_f32(&mut self, name: &str, out: &mut [f32]) -> Result<(), CheckpointError> {
        let mut values = out.iter_mut();
        self.blocks(name, |block| {
            for (bytes, value) in block.chunks_exact(4).zip(values.by_ref()) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        })?;
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(element) => {
                Err(CheckpointError::NonFinite { path: self.path.clone(), tensor: name.to_owned(), element })
            }
        }
    }

    /// Reads a tensor of 16-bit floats; every value must be finite.
    #[cfg(feature = "cpu")]
    pub(crate) fn read_bf16(&mut self, name: &str) -> Result<Vec<Bf16>, CheckpointError> {
        let mut out = vec![];
        self.blocks(name, |block| {
            out.extend(block.chunks_exact(2).map(|bytes| Bf16::from_bits(u16::from_le_bytes([bytes[0], bytes[1]]))));
        })?;
        match out.iter().position(|value: &Bf16| !value.to_f32().is_finite()) {
            None => Ok(out),
            Some(element) => {
                Err(CheckpointError::NonFinite { path: self.path.clone(), tensor: name.to_owned(), element })
            }
        }
    }

    /// Reads a tensor of bytes, signed ones in two's complement.
    pub(crate) fn read_u8(&mut self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let mut out = vec![];
        self.blocks(name, |block| out.extend_from_slice(block))?;
        Ok(out)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        let missing = || CheckpointError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() };
        self.header.info(name).ok_or_else(missing)
    }

    /// Reads the bytes of a tensor block by block and verifies their digest.
    fn blocks(&mut self, name: &str, mut take: impl FnMut(&[u8])) -> Result<(), CheckpointError> {
        let (from, to) = self.info(name)?.data_offsets;
        let (mut hash, mut block, mut left) = (Sha256::new(), vec![0; BLOCK], to - from);
        let read = |source| CheckpointError::read(&self.path, source);
        self.file.seek(SeekFrom::Start(self.start + from as u64)).map_err(read)?;
        while left > 0 {
            let part = &mut block[..left.min(BLOCK)];
            self.file.read_exact(part).map_err(read)?;
            hash.update(&*part);
            take(part);
            left -= part.len();
        }
        match self.digests.get(name) {
            Some(digest) if *digest == hex(hash) => Ok(()),
            _ => Err(CheckpointError::Digest { path: self.path.clone(), tensor: name.to_owned() }),
        }
    }
}
