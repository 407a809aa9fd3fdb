//! Files for tests, built byte by byte from the formats' definitions.

#![allow(dead_code, reason = "each test binary uses some of these")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use cvae_data::{DataError, Dataset, LoadOptions, Source};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Loads `path` with default options.
pub(crate) fn load(path: &Path) -> Result<Dataset, DataError> {
    load_with(path, &LoadOptions::default())
}

/// Loads `path`.
pub(crate) fn load_with(path: &Path, options: &LoadOptions) -> Result<Dataset, DataError> {
    let source: Source = path.to_str().expect("temporary paths are UTF-8").parse()?;
    source.load(options)
}

/// Reads `path` in chunks of `max_rows` rows.
pub(crate) fn read_chunks(path: &Path, max_rows: usize) -> Result<Vec<f32>, DataError> {
    let source: Source = path.to_str().expect("temporary paths are UTF-8").parse()?;
    let mut reader = source.open(&LoadOptions::default())?;
    let (mut all, mut chunk) = (Vec::new(), Vec::new());
    while reader.next_chunk(max_rows, &mut chunk)? > 0 {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Writes a file of the given content into `folder`.
pub(crate) fn file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).expect("the temporary folder is writable");
    path
}

/// Compresses.
pub(crate) fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).expect("memory is writable");
    encoder.finish().expect("memory is writable")
}

/// A version 1.0 npy file with the given header text.
pub(crate) fn npy_raw(header: &str, values: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

/// A C-order npy file.
pub(crate) fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    npy_raw(&header, values)
}

/// Little-endian bytes of 32-bit floats.
pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An idx file.
pub(crate) fn idx(kind: u8, sizes: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(values);
    bytes
}
