//! Frozen models: trained weights reduced to what inference needs, in one file.
//!
//! ```
//! use cvae::checkpoint::Model;
//! use cvae::{BackendConfig, Config, FrozenAutoencoder, FrozenPrecision};
//! use cvae_core::Initializer;
//! use cvae_data::{FittedScaling, LoadOptions};
//!
//! # let folder = tempfile::tempdir()?;
//! let config = Config::digits();
//! let rows = config.load_rows(&LoadOptions::default())?.train.to_f32().into_owned();
//! let plan = config.plan()?;
//! let params = plan.params.initial(Initializer::Glorot, 0); // of a trained run: RunFolder::read_model
//! let scaling = FittedScaling::fit(config.data.scaling, &rows, plan.spec.width())?;
//! let model = Model { config, plan, scaling, params };
//!
//! let path = folder.path().join("model.frozen.safetensors");
//! FrozenAutoencoder::new(&model, FrozenPrecision::Int8, &rows)?.write(&path)?;
//! let frozen = FrozenAutoencoder::read(&path)?.compile(&BackendConfig::default())?;
//! assert_eq!(frozen.encode(&rows[..64])?.len(), frozen.latent());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Autoencoder`] is convenient: it checks and scales rows and returns vectors. Where every microsecond counts,
//! pack [`FrozenAutoencoder::model`] with [`Frozen`] and call a [`Workspace`], which allocates nothing.

mod executable;

use std::path::Path;
use std::sync::Arc;

use cvae_core::{BackendId, Unsupported};
use cvae_cpu::Level;
use cvae_data::FittedScaling;

use crate::autoencoder::{Autoencoder, ModelError};
use crate::checkpoint::{CheckpointError, Model, read_frozen, write_frozen};
use crate::config::{BackendConfig, Config};
use crate::registry::default_threads;

use executable::FrozenExecutable;

pub use cvae_cpu::{
    Bf16, ByteLevels, FreezeError, Frozen, FrozenLayer, FrozenModel, FrozenPrecision, FrozenWeights, Workspace,
};

/// A frozen model with what was trained and how its features are scaled: the content of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct FrozenAutoencoder {
    config: Config,
    scaling: FittedScaling,
    model: FrozenModel,
}

impl FrozenAutoencoder {
    /// Most rows that calibration looks at.
    pub const CALIBRATION_ROWS: usize = 1024;

    /// Freezes a trained model. For [`FrozenPrecision::Int8`], `samples` are typical rows (`rows × width` values,
    /// in the units of the data) that fix the levels of the activations; at most
    /// [`FrozenAutoencoder::CALIBRATION_ROWS`] of them are used, spread evenly. Other precisions ignore them.
    ///
    /// # Errors
    /// A model with ops that frozen models do not know, samples that are no rows or not finite, or a weight too large
    /// for the precision.
    pub fn new(model: &Model, precision: FrozenPrecision, samples: &[f32]) -> Result<Self, ModelError> {
        let mut frozen = FrozenModel::new(&model.plan, &model.params)?;
        if precision == FrozenPrecision::Bf16 {
            frozen = frozen.to_bf16()?;
        }
        if precision == FrozenPrecision::Int8 {
            let width = frozen.width();
            let rows = samples.len() / width;
            if rows * width != samples.len() || rows == 0 {
                return Err(FreezeError::Samples { values: samples.len(), width }.into());
            }
            let step = rows.div_ceil(Self::CALIBRATION_ROWS);
            let mut chosen: Vec<f32> = samples.chunks_exact(width).step_by(step).flatten().copied().collect();
            model.scaling.apply(&mut chosen)?;
            frozen = frozen.quantize(&chosen)?;
        }
        Ok(Self { config: model.config.clone(), scaling: model.scaling.clone(), model: frozen })
    }

    /// Reads a file that [`FrozenAutoencoder::write`] wrote.
    ///
    /// # Errors
    /// Anything wrong with the file, by name and tensor.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let (config, scaling, model) = read_frozen(path.as_ref())?;
        Ok(Self { config, scaling, model })
    }

    /// Writes a safetensors file, all of it or nothing.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
        write_frozen(path.as_ref(), &self.config, &self.scaling, &self.model)
    }

    /// What was trained, and how.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How features are scaled before the model and back after it.
    pub fn scaling(&self) -> &FittedScaling {
        &self.scaling
    }

    /// The layers.
    pub fn model(&self) -> &FrozenModel {
        &self.model
    }

    /// Packs the model for the instruction set that `backend` names and starts its threads. `auto` and `cpu` stand for
    /// the widest, for a model in bf16 the one that multiplies bfloat16 where there is one; such a level runs no others.
    /// The result encodes, decodes, reconstructs and scores; its parameters cannot be read.
    ///
    /// # Errors
    /// [`ModelError::FrozenBackend`] for another backend than the CPU's, an instruction set that this processor
    /// lacks, or no memory or threads.
    pub fn compile(&self, backend: &BackendConfig) -> Result<Autoencoder, ModelError> {
        let level = level(&backend.name, self.model.precision())?;
        let plan = Arc::new(self.config.plan()?);
        let frozen = Frozen::new(&self.model, level)?;
        let workspace = frozen.workspace(backend.threads.unwrap_or_else(default_threads))?;
        let executable = FrozenExecutable::new(Arc::clone(&plan), &frozen, workspace);
        let id = id(level, frozen.precision());
        Ok(Autoencoder::assemble(self.config.clone(), self.scaling.clone(), id, plan, Box::new(executable)))
    }
}

/// The instruction set of a backend's name, for a model of some precision.
fn level(name: &str, precision: FrozenPrecision) -> Result<Level, ModelError> {
    let products: &[Level] = if precision == FrozenPrecision::Bf16 { &Level::BF16 } else { &[] };
    let level = match name {
        "auto" | "cpu" => match precision {
            // Where there are tiles, pairs are multiplied more slowly than floats.
            FrozenPrecision::Bf16 if Level::Avx512Bf16.available() && !Level::AmxBf16.available() => Level::Avx512Bf16,
            _ => Level::best(),
        },
        name => match Level::ALL.iter().chain(products).find(|level| level.id().as_str() == name) {
            Some(level) => *level,
            None => return Err(ModelError::FrozenBackend { name: name.to_owned() }),
        },
    };
    match level.available() {
        true => Ok(level),
        false => {
            let (backend, missing) = (level.id().to_string(), level.requirement().to_owned());
            Err(FreezeError::Unsupported(Unsupported::Unavailable { backend, missing }).into())
        }
    }
}

/// The id of a frozen model's engine: the level's, with the precision where it is not f32. A level that computes in f32
/// stores weights in bf16, and no more.
fn id(level: Level, precision: FrozenPrecision) -> BackendId {
    match (precision, level) {
        (FrozenPrecision::F32, level) | (_, level @ (Level::ScalarBf16 | Level::Avx512Bf16 | Level::AmxBf16)) => {
            level.id()
        }
        (FrozenPrecision::Bf16, Level::Scalar) => BackendId::new("cpu-scalar-bf16-weights"),
        (FrozenPrecision::Bf16, Level::Neon) => BackendId::new("cpu-neon-bf16-weights"),
        (FrozenPrecision::Bf16, Level::Avx2) => BackendId::new("cpu-avx2-bf16-weights"),
        (FrozenPrecision::Bf16, Level::Avx512) => BackendId::new("cpu-avx512-bf16-weights"),
        (FrozenPrecision::Int8, Level::Scalar) => BackendId::new("cpu-scalar-int8"),
        (FrozenPrecision::Int8, Level::Neon) => BackendId::new("cpu-neon-int8"),
        (FrozenPrecision::Int8, Level::Avx2) => BackendId::new("cpu-avx2-int8"),
        (FrozenPrecision::Int8, Level::Avx512) => BackendId::new("cpu-avx512-int8"),
    }
}
