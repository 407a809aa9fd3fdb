//! The folder of a run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cvae_data::atomic_write;

use super::error::CheckpointError;
use crate::config::Config;

/// What to do with a run folder that has files in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Fail.
    #[default]
    Refuse,
    /// Remove the files of the run that is there, and begin anew.
    Replace,
    /// Go on where that run stopped. An empty or missing folder begins a run.
    Resume,
}

/// A folder with the files of one run.
///
/// | file | content |
/// |---|---|
/// | `config.toml` | the [`Config`] |
/// | `model.safetensors` | the parameters, the configuration and the feature scaling |
/// | `state.safetensors` | all that training needs to go on: authoritative on resume |
/// | `metrics.jsonl` | one line an epoch |
///
/// Each file is replaced as a whole, and no two need to agree: resuming reads `config.toml` and
/// `state.safetensors`, and rewrites the others from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Name of the configuration.
    pub const CONFIG: &'static str = "config.toml";
    /// Name of the model.
    pub const MODEL: &'static str = "model.safetensors";
    /// Name of the state of training.
    pub const STATE: &'static str = "state.safetensors";
    /// Name of the metrics.
    pub const METRICS: &'static str = "metrics.jsonl";
    /// Name of the report.
    pub const REPORT: &'static str = "report.html";

    /// The folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads `config.toml`.
    ///
    /// # Errors
    /// [`CheckpointError::NotARun`] when there is none, [`CheckpointError::ConfigFile`] when it is wrong.
    pub fn config(&self) -> Result<Config, CheckpointError> {
        let path = self.file(Self::CONFIG);
        match path.try_exists() {
            Ok(false) => Err(CheckpointError::NotARun { path: self.path.clone() }),
            Ok(true) => Ok(Config::load(path)?),
            Err(source) => Err(CheckpointError::folder(&self.path, source)),
        }
    }

    /// Whether there is a run to go on with. Changes nothing.
    ///
    /// # Errors
    /// A folder that `existing` does not allow, or a run begun with another configuration.
    pub fn examine(&self, config: &Config, existing: Existing) -> Result<bool, CheckpointError> {
        if self.entries()?.iter().all(|path| is_temporary(path)) {
            return Ok(false);
        }
        match existing {
            Existing::Refuse => Err(CheckpointError::NotEmpty { path: self.path.clone() }),
            Existing::Replace if self.file(Self::CONFIG).is_file() => Ok(false),
            Existing::Replace => Err(CheckpointError::NotARun { path: self.path.clone() }),
            Existing::Resume => {
                let differs = |source| CheckpointError::Config { path: self.file(Self::CONFIG), source };
                config.check_resumable(&self.config()?).map_err(differs)?;
                Ok(true)
            }
        }
    }

    /// Makes the folder ready for a run with `config`: removes the files of a run that is replaced and what a
    /// killed process left, and writes `config.toml`.
    ///
    /// # Errors
    /// As [`RunFolder::examine`], or a folder that cannot be written to.
    pub fn prepare(&self, config: &Config, existing: Existing) -> Result<(), CheckpointError> {
        let fail = |source| CheckpointError::folder(&self.path, source);
        fs::create_dir_all(&self.path).map_err(fail)?;
        let resumed = self.examine(config, existing)?;
        for path in self.entries()?.iter().filter(|path| is_temporary(path)) {
            remove(path).map_err(fail)?;
        }
        if !resumed {
            // The old configuration is replaced last: until then the folder is recognised as a run's.
            for name in [Self::STATE, Self::MODEL, Self::METRICS, Self::REPORT] {
                remove(&self.file(name)).map_err(fail)?;
            }
        }
        self.write_config(config)
    }

    /// What is in the folder; nothing when it does not exist.
    fn entries(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let fail = |source| CheckpointError::folder(&self.path, source);
        match fs::read_dir(&self.path) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path()).map_err(fail)).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
            Err(error) => Err(fail(error)),
        }
    }

    /// Writes `config.toml`.
    ///
    /// # Errors
    /// A configuration that has no TOML form, or a file that cannot be written.
    pub fn write_config(&self, config: &Config) -> Result<(), CheckpointError> {
        let text = config.to_toml()?;
        atomic_write(self.file(Self::CONFIG), |file| file.write_all(text.as_bytes())).map_err(CheckpointError::Write)
    }

    /// Writes `metrics.jsonl`.
    pub(crate) fn write_metrics(&self, lines: &[u8]) -> Result<(), CheckpointError> {
        atomic_write(self.file(Self::METRICS), |file| file.write_all(lines)).map_err(CheckpointError::Write)
    }
}

/// Whether a file is one that a killed process was writing.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.starts_with(".cvae-") && name.ends_with(".tmp"))
}

/// Removes a file that may be absent.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
