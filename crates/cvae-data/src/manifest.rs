//! What is known about the named data sets: shape, licence, origin and checksums.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::dataset::ImageShape;
use crate::error::DataError;

/// The description of one data set, as in `datasets/NAME/manifest.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name used in sources, such as `fashion-mnist`.
    pub name: String,
    /// The full title.
    pub title: String,
    /// What the rows are.
    pub description: String,
    /// Values in a row.
    pub width: usize,
    /// The names of the classes, in the order of the labels.
    pub classes: Vec<String>,
    /// The licence, as an SPDX identifier where there is one.
    pub licence: String,
    /// Where its authors publish it.
    pub source: String,
    /// How to cite it.
    pub citation: String,
    /// One clause that says how to get the files.
    pub obtain: String,
    /// The shape of a row as an image.
    pub image: ImageShape,
    /// The files.
    pub files: Vec<ManifestFile>,
}

/// One file of a data set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name within the folder of the data set.
    pub name: String,
    /// Which part it belongs to: `train`, `test` or `all`.
    pub part: String,
    /// Rows (or labels) in it.
    pub rows: usize,
    /// Its size in bytes, where it was verified.
    pub bytes: Option<u64>,
    /// Its SHA-256 in lower-case hexadecimal, where it was verified.
    pub sha256: Option<String>,
}

impl Manifest {
    /// The manifest of the embedded digits.
    ///
    /// # Errors
    /// [`DataError::Manifest`] when the embedded text is not a manifest.
    pub fn digits() -> Result<Self, DataError> {
        Self::parse("digits", include_str!("../../../datasets/digits/manifest.toml"))
    }

    /// The manifest of Fashion-MNIST.
    ///
    /// # Errors
    /// [`DataError::Manifest`] when the embedded text is not a manifest.
    pub fn fashion_mnist() -> Result<Self, DataError> {
        Self::parse("fashion-mnist", include_str!("../../../datasets/fashion-mnist/manifest.toml"))
    }

    /// The manifest of MNIST.
    ///
    /// # Errors
    /// [`DataError::Manifest`] when the embedded text is not a manifest.
    pub fn mnist() -> Result<Self, DataError> {
        Self::parse("mnist", include_str!("../../../datasets/mnist/manifest.toml"))
    }

    /// Reads a manifest; `name` is used in messages.
    ///
    /// # Errors
    /// [`DataError::Manifest`] with the line that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, DataError> {
        toml::from_str(text).map_err(|source| DataError::Manifest { name: name.to_owned(), source: Box::new(source) })
    }

    /// Compares the files in `folder` with the checksums known, and returns how many were compared.
    ///
    /// # Errors
    /// [`DataError::NotFound`] or [`DataError::Read`] for a file that cannot be read, and
    /// [`DataError::Checksum`] for one with another content.
    pub fn verify(&self, folder: &Path) -> Result<usize, DataError> {
        let mut compared = 0;
        for file in &self.files {
            let Some(expected) = &file.sha256 else {
                continue;
            };
            let path = folder.join(&file.name);
            let found = File::open(&path).and_then(sha256).map_err(|source| DataError::read(&path, source))?;
            if found != *expected {
                return Err(DataError::Checksum { path, expected: expected.clone(), found });
            }
            compared += 1;
        }
        Ok(compared)
    }
}

/// The SHA-256 of everything `reader` holds, in lower-case hexadecimal.
///
/// # Errors
/// What the reader reports.
pub fn sha256(mut reader: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
    }
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
