//! The model of a run folder, on a backend.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cvae::density::{Density, DensitySpec};
use cvae::{Autoencoder, BackendConfig, LoadedRows, Matrix, RunFolder, registry};
use cvae_core::Backend;
use cvae_data::{Dataset, LoadOptions};

use crate::args::EngineArgs;

/// Loads the model of the run folder or frozen model at `path` on the backend of the arguments, or else on the run's.
///
/// # Errors
/// A folder or file that cannot be used, or a backend that cannot be had.
pub(crate) fn load(path: &Path, engine: &EngineArgs) -> Result<Autoencoder> {
    #[cfg(feature = "cpu")]
    if path.is_file() {
        return frozen(path, engine);
    }
    Ok(Autoencoder::load(path, backend(path, engine)?.as_ref())?)
}

/// The backend of the arguments, or else that of the run folder at `path`.
///
/// # Errors
/// A folder that cannot be used, or a backend that cannot be had.
pub(crate) fn backend(path: &Path, engine: &EngineArgs) -> Result<Arc<dyn Backend>> {
    if !path.is_dir() {
        bail!("{}: there is no such run folder", path.display());
    }
    let config = RunFolder::new(path).config()?;
    let backend = BackendConfig {
        name: engine.backend.clone().unwrap_or(config.backend.name),
        precision: config.backend.precision,
        threads: engine.threads.or(config.backend.threads),
    };
    Ok(registry::select(&backend)?.backend)
}

/// The frozen model in the file at `path`, on the CPU backend of the arguments.
///
/// # Errors
/// A file that is no frozen model, or a backend that cannot run it.
#[cfg(feature = "cpu")]
fn frozen(path: &Path, engine: &EngineArgs) -> Result<Autoencoder> {
    let default = BackendConfig::default();
    let name = engine.backend.clone().unwrap_or(default.name);
    let backend = BackendConfig { name, threads: engine.threads, ..default };
    Ok(cvae::FrozenAutoencoder::read(path)?.compile(&backend)?)
}

/// The rows a run was trained and is tested on.
///
/// # Errors
/// A source that is no longer there, or no longer as wide as the model.
pub(crate) fn rows(model: &Autoencoder) -> Result<LoadedRows> {
    let rows = model.config().load_rows(&LoadOptions::default())?;
    rows.train.expect_width(model.width())?;
    Ok(rows)
}

/// How rows for the model are read: with missing values where its objective knows of them.
pub(crate) fn options(model: &Autoencoder) -> LoadOptions {
    LoadOptions { allow_nan: model.config().objective.missing, ..LoadOptions::default() }
}

/// The rows that judge a run and were not trained on: its validation rows, or else its test rows, with a word for
/// which.
///
/// # Errors
/// A run that holds no rows out, or rows that cannot be read.
pub(crate) fn held_out(model: &Autoencoder, rows: &LoadedRows) -> Result<(Dataset, &'static str)> {
    let config = model.config();
    if config.data.validation_fraction > 0.0 {
        let (_, validation) = cvae_data::split(rows.train.rows(), config.data.validation_fraction, config.seed)?;
        return Ok((rows.train.select(&validation)?, "validation"));
    }
    match &rows.test {
        Some(test) => Ok((test.clone(), "test")),
        None => bail!("the run holds no rows out: name normal rows that it was not trained on with --held-out"),
    }
}

/// The density `spec` of the model's codes: the one stored in the run folder `run`, or else one that is fitted to
/// the codes of the training rows and stored there.
///
/// # Errors
/// Training rows that cannot be used, or a density that cannot be fitted.
pub(crate) fn density(model: &mut Autoencoder, run: &Path, spec: DensitySpec) -> Result<Density> {
    if spec == DensitySpec::Prior {
        return Ok(Density::prior(model.latent())?);
    }
    if let Some(density) = model.density(spec) {
        return Ok(density.clone());
    }
    let rows = rows(model)?;
    let report = model.fit_density(spec, &model.encode_dataset(&rows.train)?)?;
    let density = model.density(spec).cloned();
    let density = density.with_context(|| format!("the density `{spec}` was not fitted"))?;
    let mut text =
        format!("fitted {}: log-likelihood of a training code {:.3}", density.spec(), report.train_log_likelihood);
    if let Some(test) = &rows.test {
        let codes = model.encode_dataset(test)?;
        let mean = density.mean_log_prob(Matrix::new(&codes, model.latent())?)?;
        text.push_str(&format!(", of a test code {mean:.3}"));
    }
    // The density is at hand either way; a folder that cannot be written to only makes the next call fit again.
    match RunFolder::new(run).write_densities(model.densities()) {
        Ok(()) => eprintln!("{text}; stored in {}", run.display()),
        Err(error) => eprintln!("{text}; not stored: {error}"),
    }
    Ok(density)
}
