//! What can be wrong with the files of a run.

use std::io;
use std::path::{Path, PathBuf};

use cvae_data::{DataError, ScalingError};
use safetensors::SafeTensorError;
use thiserror::Error;

use crate::config::{ConfigError, FORMAT_VERSION};

/// A run folder, or a file of one, that cannot be used. Every message names the file or folder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The folder has files in it.
    #[error("{}: the folder is not empty; resume the run, replace it, or choose another folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has files in it, and they are not those of a run.
    #[error("{}: not a run folder: it has files, but no config.toml", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds a model that was saved without the state of its optimiser.
    #[error("{}: holds no optimiser state, so training cannot go on from it", path.display())]
    NotResumable {
        /// The state file.
        path: PathBuf,
    },
    /// The folder cannot be made, listed or cleared.
    #[error("{}: the folder cannot be used: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written; nothing of it is left.
    #[error(transparent)]
    Write(DataError),
    /// Not even a length and a header.
    #[error("{}: truncated: {bytes} bytes cannot hold a safetensors header", path.display())]
    NoHeader {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The declared length of the header is longer than the file or than any real header.
    #[error("{}: the header claims {claimed} bytes in a file of {bytes}", path.display())]
    HeaderLength {
        /// The file.
        path: PathBuf,
        /// Length that the header claims.
        claimed: u64,
        /// Length of the file.
        bytes: u64,
    },
    /// The header is not that of a safetensors file.
    #[error("{}: not a safetensors file: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: SafeTensorError,
    },
    /// The file is shorter or longer than its header says.
    #[error("{}: has {found} bytes, but its header declares {expected}: truncated or appended to", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the header declares.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// A metadata entry is missing.
    #[error("{}: the metadata entry `{key}` is missing: not a file of this project", path.display())]
    NoMetadata {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: &'static str,
    },
    /// A metadata entry is not of its kind.
    #[error("{}: the metadata entry `{key}` is malformed: {source}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The metrics cannot be written as JSON.
    #[error("{}: the metrics cannot be written: {source}", path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// What the writer says.
        source: serde_json::Error,
    },
    /// The header is not the one that was written.
    #[error("{}: the header does not match its checksum: damaged or edited", path.display())]
    HeaderDigest {
        /// The file.
        path: PathBuf,
    },
    /// The values of a tensor are not those that were written.
    #[error("{}: tensor `{tensor}` does not match its checksum: damaged or edited", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// Another version of the format.
    #[error("{}: format version `{found}` is not supported; this version reads {FORMAT_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: String,
    },
    /// A tensor is missing.
    #[error("{}: tensor `{tensor}` is missing", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the model does not have.
    #[error("{}: tensor `{tensor}` does not belong to the model", path.display())]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another element type.
    #[error("{}: tensor `{tensor}` has elements of type {found}, expected {expected}", path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type needed.
        expected: safetensors::Dtype,
        /// The type found.
        found: safetensors::Dtype,
    },
    /// A tensor of another shape.
    #[error("{}: tensor `{tensor}` has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape needed.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A value is NaN or infinite.
    #[error("{}: tensor `{tensor}` is not finite at element {element}", path.display())]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Position in the tensor's row-major order, from 0.
        element: usize,
    },
    /// The configuration in a file cannot be used.
    #[error("{}: the configuration is not usable: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// `config.toml` itself is wrong; the message names the file.
    #[error(transparent)]
    ConfigFile(#[from] ConfigError),
    /// The scaling in a file does not fit the model.
    #[error("{}: the scaling is for {found} features, the model has {expected}", path.display())]
    ScalingWidth {
        /// The file.
        path: PathBuf,
        /// Features of the model.
        expected: usize,
        /// Features of the scaling.
        found: usize,
    },
    /// A scaling that cannot be made.
    #[error(transparent)]
    Scaling(#[from] ScalingError),
    /// The contents of a file contradict each other.
    #[error("{}: contradicts itself: {what}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        what: &'static str,
    },
    /// A file of tensors that holds no frozen model.
    #[error("{}: not a frozen model, as `cvae freeze` writes one", path.display())]
    NotFrozen {
        /// The file.
        path: PathBuf,
    },
    /// The numbers in a file make no frozen model.
    #[cfg(feature = "cpu")]
    #[error("{}: not a usable frozen model: {source}", path.display())]
    Frozen {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: cvae_cpu::FreezeError,
    },
    /// The run was begun on other rows.
    #[error("{}: the run was begun on other data: the rows of `{data}` differ", path.display())]
    OtherData {
        /// The state file.
        path: PathBuf,
        /// Name of the data given.
        data: String,
    },
}

impl CheckpointError {
    /// A failed read.
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_path_buf(), source }
    }

    /// A folder that cannot be used.
    pub(super) fn folder(path: &Path, source: io::Error) -> Self {
        Self::Folder { path: path.to_path_buf(), source }
    }
}
