//! Bytes of a file, unpacked if it is compressed, and the most there can be of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::error::DataError;

/// No deflate stream unpacks to more than this many times its size (D. Salomon, *Data Compression*: one
/// bit can stand for a match of 258 bytes, and 258 · 8 / 2 = 1032).
const MAX_RATIO: u64 = 1032;

/// An opened file.
pub(crate) struct Input {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    compressed: bool,
    /// Bytes in the file, unless it is a pipe or a device.
    file_bytes: Option<u64>,
    /// Unpacked bytes read so far.
    position: u64,
}

impl Input {
    /// Opens `path`; a name ending in `.gz` is unpacked.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let fail = |source| DataError::read(path, source);
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(io::ErrorKind::IsADirectory.into()));
        }
        let file_bytes = metadata.is_file().then_some(metadata.len());
        if file_bytes == Some(0) {
            return Err(DataError::Empty { path: path.to_path_buf() });
        }
        let mut buffered = BufReader::with_capacity(1 << 16, file);
        let compressed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
        let reader: Box<dyn BufRead + Send> = if compressed {
            let start = buffered.fill_buf().map_err(fail)?;
            if !start.starts_with(&[0x1f, 0x8b]) {
                return Err(bad_magic(path, "a gzip", start));
            }
            let unpacked = MultiGzDecoder::new(buffered);
            Box::new(BufReader::with_capacity(1 << 16, unpacked))
        } else {
            Box::new(buffered)
        };
        Ok(Self { path: path.to_path_buf(), reader, compressed, file_bytes, position: 0 })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bare reader, for text.
    pub(crate) fn into_reader(self) -> Box<dyn BufRead + Send> {
        self.reader
    }

    /// Whether the file is compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Appends the next `count` bytes to `buffer`, fewer at the end of the file, and returns how many.
    /// Memory grows with the bytes that are there, not with `count`.
    pub(crate) fn read(&mut self, count: usize, buffer: &mut Vec<u8>) -> Result<usize, DataError> {
        let got = (&mut self.reader)
            .take(count as u64)
            .read_to_end(buffer)
            .map_err(|source| read_error(&self.path, self.compressed, source))?;
        self.position += got as u64;
        Ok(got)
    }

    /// Compares `payload`, the bytes a header says are still to come, with what the file can hold:
    /// exactly for a plain file, by the largest possible ratio for a compressed one.
    pub(crate) fn check_payload(&self, payload: u64) -> Result<(), DataError> {
        let Some(file_bytes) = self.file_bytes else {
            return Ok(());
        };
        let most = if self.compressed { file_bytes.saturating_mul(MAX_RATIO) } else { file_bytes };
        let left = most.saturating_sub(self.position);
        if payload > left {
            return Err(DataError::Truncated { path: self.path.clone(), expected: payload, found: left });
        }
        if payload < left && !self.compressed {
            return Err(DataError::TrailingBytes { path: self.path.clone(), expected: payload });
        }
        Ok(())
    }

    /// Makes sure that the file ends here, which for a compressed one also checks its checksum. `payload`
    /// is for the message.
    pub(crate) fn expect_end(&mut self, payload: u64) -> Result<(), DataError> {
        let rest = self.reader.fill_buf().map_err(|source| read_error(&self.path, self.compressed, source))?;
        if rest.is_empty() {
            return Ok(());
        }
        Err(DataError::TrailingBytes { path: self.path.clone(), expected: payload })
    }
}

/// The error for first bytes that are not those of `format`.
pub(crate) fn bad_magic(path: &Path, format: &'static str, start: &[u8]) -> DataError {
    DataError::BadMagic { path: path.to_path_buf(), format, found: start[..start.len().min(8)].to_vec() }
}

/// A failed read: damage to a compressed stream is told apart from trouble with the file.
pub(crate) fn read_error(path: &Path, compressed: bool, source: io::Error) -> DataError {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match source.kind() {
        InvalidData | InvalidInput | UnexpectedEof if compressed => {
            DataError::CorruptGzip { path: path.to_path_buf(), source }
        }
        _ => DataError::read(path, source),
    }
}
