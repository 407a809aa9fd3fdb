//! The model of a run folder, on a backend.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cvae::density::{Density, DensitySpec};
use cvae::{Autoencoder, BackendConfig, LoadedRows, RunFolder, registry};
use cvae_data::LoadOptions;

use crate::args::EngineArgs;

/// Loads the model of the run folder at `path` on the backend of the arguments, or else on the run's.
///
/// # Errors
/// A folder or file that cannot be used, or a backend that cannot be had.
pub(crate) fn load(path: &Path, engine: &EngineArgs) -> Result<Autoencoder> {
    if !path.is_dir() {
        bail!("{}: there is no such run folder", path.display());
    }
    let config = RunFolder::new(path).config()?;
    let backend = BackendConfig {
        name: engine.backend.clone().unwrap_or(config.backend.name),
        precision: config.backend.precision,
        threads: engine.threads.or(config.backend.threads),
    };
    let selected = registry::select(&backend)?;
    Ok(Autoencoder::load(path, selected.backend.as_ref())?)
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

/// The density `spec` of the model's codes: the one stored with it, or else one fitted to the codes of the
/// training rows.
///
/// # Errors
/// Training rows that cannot be used, or a density that cannot be fitted.
pub(crate) fn density(model: &mut Autoencoder, spec: DensitySpec) -> Result<Density> {
    let stored = |model: &Autoencoder| model.densities().iter().find(|density| density.spec() == spec).cloned();
    if spec == DensitySpec::Prior {
        return Ok(Density::prior(model.latent())?);
    }
    if let Some(density) = stored(model) {
        return Ok(density);
    }
    let codes = model.encode_dataset(&rows(model)?.train)?;
    model.fit_density(spec, &codes)?;
    // `gmm:auto` is stored under the number of components that was chosen.
    let fitted = model.densities().last().cloned();
    fitted.with_context(|| format!("the density `{spec}` was not fitted"))
}
