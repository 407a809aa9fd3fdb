//! Everything needed to rebuild a training run, as one TOML file.
//!
//! A configuration holds plain data: the model, the objective, the optimiser, the data's name, and how
//! training goes. It is written to `config.toml` of a run folder and into the metadata of
//! `model.safetensors`, so that either one alone says what was trained.

mod error;
mod presets;

use std::path::Path;

use cvae_core::{Corruption, Initializer, Latent, ModelSpec, Objective, OptimizerSpec, Plan};
use cvae_data::Scaling;
use serde::{Deserialize, Serialize};

pub use error::ConfigError;

/// Version of the files of a run folder. A file of another version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Precision of a backend's arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16 products with 32-bit master weights and sums.
    Bf16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// The coordinates of codes. They are free: an invertible linear map of the codes, folded into the layers on both sides
/// of them, changes no reconstruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeBasis {
    /// Those that training ends with.
    #[default]
    Trained,
    /// With mean 0 and a mean square of 1, after directions in which moving an image by the pixels of
    /// [`Corruption::Shift`] changes codes much were made shorter (docs/MATH.md, "Aligned codes"), so that distances
    /// say more about what is shown than about where it lies. Done once, when training has ended.
    Aligned,
}

impl CodeBasis {
    /// Every kind of coordinates.
    pub const ALL: [Self; 2] = [Self::Trained, Self::Aligned];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trained => "trained",
            Self::Aligned => "aligned",
        }
    }
}

/// Where rows come from and how they are divided and scaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataConfig {
    /// Name of the training rows, as [`cvae_data::Source`] reads it; a free text for rows in memory.
    pub source: String,
    /// Name of the test rows. Without it: the published test part of `source` where there is one, else
    /// `test_fraction` of its rows.
    pub test: Option<String>,
    /// Share of `source` that is held out for testing when there are no other test rows; 0 for none.
    /// Which rows these are does not depend on the seed of the run.
    pub test_fraction: f64,
    /// Share of the training rows held out to watch training; 0 for none. Drawn from the run's seed.
    pub validation_fraction: f64,
    /// How features are scaled before training; fitted on the training rows.
    pub scaling: Scaling,
}

impl Default for DataConfig {
    /// The embedded digits, a fifth of them for testing, unscaled.
    fn default() -> Self {
        Self {
            source: "digits".to_owned(),
            test: None,
            test_fraction: 0.2,
            validation_fraction: 0.0,
            scaling: Scaling::None,
        }
    }
}

/// What the model runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendConfig {
    /// A name that [`crate::registry::select`] knows, such as `auto` or `cpu-avx2`.
    pub name: String,
    /// Precision of the arithmetic.
    pub precision: Precision,
    /// Worker threads; all cores when absent.
    pub threads: Option<usize>,
}

impl Default for BackendConfig {
    /// The fastest backend, in 32-bit floats, on all cores.
    fn default() -> Self {
        Self { name: "auto".to_owned(), precision: Precision::F32, threads: None }
    }
}

/// A training run, described completely.
///
/// ```
/// use cvae::Config;
///
/// let config = Config::digits();
/// let text = config.to_toml()?;
/// assert_eq!(Config::from_toml(&text)?, config);
///
/// let error = Config::from_toml(&text.replace("batch_size", "batchsize")).unwrap_err();
/// assert_eq!(error.to_string(), "unknown field `batchsize`");
/// # Ok::<(), cvae::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Version of the format, [`FORMAT_VERSION`].
    #[serde(default = "format_version")]
    pub format: u32,
    /// Version of the crate that wrote the configuration; informative.
    #[serde(default = "crate_version")]
    pub version: String,
    /// Key of every random number; at most `i64::MAX`, the largest integer of TOML.
    #[serde(default)]
    pub seed: u64,
    /// Passes over the training rows.
    #[serde(default = "default_epochs")]
    pub epochs: u32,
    /// Rows of a training step; the last one of an epoch may have fewer.
    #[serde(default = "default_batch_size")]
    pub batch_size: usize,
    /// Stop when the validation loss has not improved for this many epochs, and restore the best
    /// parameters. Needs validation rows.
    #[serde(default)]
    pub patience: Option<u32>,
    /// How initial parameters are drawn.
    #[serde(default)]
    pub initializer: Initializer,
    /// The coordinates that codes are in when training has ended.
    #[serde(default)]
    pub codes: CodeBasis,
    /// Where rows come from.
    #[serde(default)]
    pub data: DataConfig,
    /// What the model runs on.
    #[serde(default)]
    pub backend: BackendConfig,
    /// What is minimised.
    #[serde(default)]
    pub objective: Objective,
    /// How parameters are updated.
    #[serde(default)]
    pub optimizer: OptimizerSpec,
    /// The network.
    pub model: ModelSpec,
}

fn format_version() -> u32 {
    FORMAT_VERSION
}

fn crate_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn default_epochs() -> u32 {
    Config::DEFAULT_EPOCHS
}

fn default_batch_size() -> usize {
    Config::DEFAULT_BATCH_SIZE
}

impl Config {
    /// Epochs of [`Config::new`].
    pub const DEFAULT_EPOCHS: u32 = 20;
    /// Batch size of [`Config::new`].
    pub const DEFAULT_BATCH_SIZE: usize = 128;

    /// The default training of `model`: the collapsed objective with its default weights, Adam at 1e-3,
    /// 20 epochs of batches of 128 rows, seed 0, no validation rows.
    pub fn new(model: ModelSpec) -> Self {
        Self {
            format: FORMAT_VERSION,
            version: crate_version(),
            seed: 0,
            epochs: Self::DEFAULT_EPOCHS,
            batch_size: Self::DEFAULT_BATCH_SIZE,
            patience: None,
            initializer: Initializer::default(),
            codes: CodeBasis::default(),
            data: DataConfig::default(),
            backend: BackendConfig::default(),
            objective: Objective::default(),
            optimizer: OptimizerSpec::default(),
            model,
        }
    }

    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with the line, [`ConfigError::UnknownField`] with the field, and everything
    /// that [`Config::validate`] finds.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::syntax(text, &error))?;
        // Whatever the configuration did not take in is absent from what it writes.
        let given: toml::Table = toml::from_str(text).map_err(|error| ConfigError::syntax(text, &error))?;
        let taken = toml::Table::try_from(&config).map_err(ConfigError::Unwritable)?;
        match first_unknown(&given, &taken) {
            Some(field) => Err(ConfigError::UnknownField { field }),
            None => config.validate().map(|()| config),
        }
    }

    /// Reads and checks the file `path`.
    ///
    /// # Errors
    /// [`ConfigError::File`] with the path and what is wrong.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let in_file = |error| ConfigError::File { path: path.to_path_buf(), source: Box::new(error) };
        let bytes = std::fs::read(path).map_err(|error| in_file(ConfigError::Read(error)))?;
        let text = String::from_utf8(bytes).map_err(|_| in_file(ConfigError::NotText))?;
        Self::from_toml(&text).map_err(in_file)
    }

    /// The configuration as TOML.
    ///
    /// # Errors
    /// [`ConfigError::Unwritable`] when a value has no TOML form; a valid configuration always has one.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(ConfigError::Unwritable)
    }

    /// Lowers the model, objective and optimiser for batches of `batch_size` rows.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn plan(&self) -> Result<Plan, ConfigError> {
        Ok(Plan::new(self.model.clone(), self.objective.clone(), self.optimizer, self.seed, self.batch_size)?)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let range = |field: &'static str, holds: bool, rule: &'static str| match holds {
            true => Ok(()),
            false => Err(ConfigError::Range { field, rule }),
        };
        if self.format != FORMAT_VERSION {
            return Err(ConfigError::Format { found: self.format });
        }
        let share = |value: f64| (0.0..1.0).contains(&value);
        range("seed", i64::try_from(self.seed).is_ok(), "at most 9223372036854775807")?;
        range("epochs", self.epochs >= 1, "at least 1")?;
        range("batch_size", self.batch_size >= 1, "at least 1")?;
        range("batch_size", u32::try_from(self.batch_size).is_ok(), "at most 4294967295")?;
        range("patience", self.patience != Some(0), "at least 1")?;
        range("data.test_fraction", share(self.data.test_fraction), "at least 0 and below 1")?;
        range("data.validation_fraction", share(self.data.validation_fraction), "at least 0 and below 1")?;
        range("backend.threads", self.backend.threads != Some(0), "at least 1")?;
        if self.patience.is_some() && self.data.validation_fraction == 0.0 {
            return Err(ConfigError::PatienceWithoutValidation);
        }
        self.model.validate()?;
        self.objective.validate(&self.model)?;
        self.optimizer.validate()?;
        match (self.codes, self.lacks_for_alignment()) {
            (CodeBasis::Aligned, Some(lacks)) => Err(ConfigError::Aligned { lacks }),
            _ => Ok(()),
        }
    }

    /// What keeps the codes of this model from being aligned ([`CodeBasis::Aligned`]), if anything.
    pub fn lacks_for_alignment(&self) -> Option<&'static str> {
        let objective = &self.objective;
        if !matches!(objective.corruption, Corruption::Shift { .. }) {
            return Some("the corruption `shift`");
        }
        if !matches!(objective.latent, Latent::None | Latent::Collapsed { .. }) || objective.top_k.is_some() {
            return Some("an objective that gives single dimensions of the code no meaning, such as `collapsed`");
        }
        if objective.spectral_norm {
            return Some("weights that are not divided by their norm");
        }
        (!self.model.has_affine_code()).then_some("a linear code between two layers with biases")
    }

    /// Checks that a run begun with `saved` can go on with `self`: all that determines the weights after a
    /// given epoch is equal. The number of epochs, the patience, the coordinates of codes, the test rows and the
    /// backend may differ.
    ///
    /// # Errors
    /// [`ConfigError::Differs`] with the first field that must not differ.
    pub fn check_resumable(&self, saved: &Self) -> Result<(), ConfigError> {
        let fields = [
            ("seed", self.seed == saved.seed),
            ("batch_size", self.batch_size == saved.batch_size),
            ("initializer", self.initializer == saved.initializer),
            ("model", self.model == saved.model),
            ("objective", self.objective == saved.objective),
            ("optimizer", self.optimizer == saved.optimizer),
            ("data.source", self.data.source == saved.data.source),
            ("data.scaling", self.data.scaling == saved.data.scaling),
            ("data.validation_fraction", self.data.validation_fraction == saved.data.validation_fraction),
        ];
        match fields.into_iter().find(|(_, equal)| !equal) {
            Some((field, _)) => Err(ConfigError::Differs { field }),
            None => Ok(()),
        }
    }
}

/// The dotted name of the first field of `given` that `taken` lacks.
fn first_unknown(given: &toml::Table, taken: &toml::Table) -> Option<String> {
    given.iter().find_map(|(name, value)| {
        let inner = match taken.get(name) {
            Some(counterpart) => unknown_within(value, counterpart)?,
            None => String::new(),
        };
        Some(format!("{name}{inner}"))
    })
}

/// As [`first_unknown`] for a value, with the separator that leads to it.
fn unknown_within(given: &toml::Value, taken: &toml::Value) -> Option<String> {
    match (given, taken) {
        (toml::Value::Table(given), toml::Value::Table(taken)) => {
            first_unknown(given, taken).map(|field| format!(".{field}"))
        }
        (toml::Value::Array(given), toml::Value::Array(taken)) => given
            .iter()
            .zip(taken)
            .enumerate()
            .find_map(|(index, (given, taken))| Some(format!("[{index}]{}", unknown_within(given, taken)?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
