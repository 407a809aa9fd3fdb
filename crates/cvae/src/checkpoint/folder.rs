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

    /// Makes the folder ready for a run with `config` and writes `config.toml`. Returns whether there is a
    /// run to go on with.
    ///
    /// # Errors
    /// A folder that `existing` does not allow, a run begun with another configuration, or a folder that
    /// cannot be written to.
    pub fn prepare(&self, config: &Config, existing: Existing) -> Result<bool, CheckpointError> {
        let fail = |source| CheckpointError::folder(&self.path, source);
        fs::create_dir_all(&self.path).map_err(fail)?;
        let mut others = false;
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // What a killed process was writing.
            let name = entry.file_name();
            let name = name.to_string_lossy();
            match name.starts_with(".cvae-") && name.ends_with(".tmp") {
                true => fs::remove_file(entry.path()).map_err(fail)?,
                false => others = true,
            }
        }
        let resumed = match existing {
            _ if !others => false,
            Existing::Refuse => return Err(CheckpointError::NotEmpty { path: self.path.clone() }),
            Existing::Resume => {
                config.check_resumable(&self.config()?)?;
                true
            }
            Existing::Replace => {
                if !self.file(Self::CONFIG).is_file() {
                    return Err(CheckpointError::NotARun { path: self.path.clone() });
                }
                // The configuration goes last: until then the folder is recognised as a run's.
                for name in [Self::STATE, Self::MODEL, Self::METRICS, Self::REPORT] {
                    remove(&self.file(name)).map_err(fail)?;
                }
                false
            }
        };
        self.write_config(config)?;
        Ok(resumed)
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

/// Removes a file that may be absent.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
