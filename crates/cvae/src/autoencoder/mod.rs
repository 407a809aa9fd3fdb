//! A trained model on a backend.

mod align;
mod error;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvae_core::{Backend, BackendId, Entry, Executable, KernelChoice, OpProfile, Plan, State};
use cvae_data::{Dataset, FittedScaling};

use crate::Matrix;
use crate::checkpoint::{CheckpointError, Existing, Model, RunFolder, StateFile};
use crate::config::Config;
use crate::density::{Density, DensityError, DensitySpec, FitOptions, FitReport, Fitted, Path};

pub use error::ModelError;

/// Rows encoded or reconstructed at a time where only a summary of them is kept.
const BLOCK_ROWS: usize = 4096;

/// A trained autoencoder, compiled for a backend.
///
/// Rows and codes are row-major slices: `rows × width` and `rows × latent` values, any number of rows. Rows
/// are in the units of the data; the feature scaling that training fitted is applied on the way in and undone
/// on the way out. Values are finite; NaN marks a missing one where the objective knows of missing values.
pub struct Autoencoder {
    config: Config,
    scaling: FittedScaling,
    backend: BackendId,
    plan: Arc<Plan>,
    executable: Mutex<Box<dyn Executable>>,
    densities: Vec<Density>,
}

impl std::fmt::Debug for Autoencoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Autoencoder")
            .field("backend", &self.backend)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Autoencoder {
    /// Compiles `model` for `backend`.
    ///
    /// # Errors
    /// A backend that does not support the model, or lacks memory or threads.
    pub fn new(model: Model, backend: &dyn Backend) -> Result<Self, ModelError> {
        let plan = Arc::new(model.plan);
        let mut executable = backend.compile(Arc::clone(&plan))?;
        executable.write(State::Params, &model.params)?;
        Ok(Self::assemble(model.config, model.scaling, backend.id(), plan, executable))
    }

    /// A model that is compiled already and has its parameters.
    pub(crate) fn assemble(
        config: Config,
        scaling: FittedScaling,
        backend: BackendId,
        plan: Arc<Plan>,
        executable: Box<dyn Executable>,
    ) -> Self {
        Self { config, scaling, backend, plan, executable: Mutex::new(executable), densities: vec![] }
    }

    /// The same model with the parameters that training began with, to compare with.
    ///
    /// # Errors
    /// As [`Autoencoder::new`].
    pub fn untrained(&self, backend: &dyn Backend) -> Result<Self, ModelError> {
        let params = self.plan.params.initial(self.config.initializer, self.config.seed);
        let plan = Plan::clone(&self.plan);
        Self::new(Model { config: self.config.clone(), plan, scaling: self.scaling.clone(), params }, backend)
    }

    /// Loads the model of a run folder, and the densities that were fitted to its codes.
    ///
    /// # Errors
    /// Anything wrong with `config.toml`, `model.safetensors` or the densities in `state.safetensors`, by file
    /// and tensor, or a backend that cannot run the model.
    pub fn load(folder: impl AsRef<std::path::Path>, backend: &dyn Backend) -> Result<Self, ModelError> {
        let folder = RunFolder::new(folder.as_ref());
        let config = folder.config()?;
        let model = folder.read_model()?;
        let edited = |source| CheckpointError::Config { path: folder.file(RunFolder::CONFIG), source };
        config.check_resumable(&model.config).map_err(edited)?;
        let densities = folder.read_densities(model.plan.spec.latent())?;
        Ok(Self { densities, ..Self::new(model, backend)? })
    }

    /// Writes `config.toml`, `model.safetensors` and a `state.safetensors` without the optimiser's state to
    /// `folder`. A folder that training wrote has these files already.
    ///
    /// # Errors
    /// A folder that `existing` does not allow, or cannot be written to.
    pub fn save(&self, folder: impl AsRef<std::path::Path>, existing: Existing) -> Result<(), ModelError> {
        let folder = RunFolder::new(folder.as_ref());
        let params = self.parameters()?;
        folder.prepare(&self.config, existing)?;
        let state = StateFile {
            config: self.config.clone(),
            scaling: self.scaling.clone(),
            training: None,
            densities: self.densities.clone(),
        };
        folder.write_state(&state, &self.plan.params)?;
        Ok(folder.write_model(&self.config, &self.scaling, &self.plan.params, &params)?)
    }

    /// What was trained, and how.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The lowered model.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How features are scaled.
    pub fn scaling(&self) -> &FittedScaling {
        &self.scaling
    }

    /// The backend it runs on.
    pub fn backend(&self) -> &BackendId {
        &self.backend
    }

    /// The kernel that each op runs on.
    pub fn kernels(&self) -> Vec<KernelChoice> {
        self.lock().kernels()
    }

    /// Where the time of the training steps went, if the backend was asked to measure it
    /// ([`registry::PROFILE`](crate::registry::PROFILE)); else nothing.
    pub fn profile(&self) -> Vec<OpProfile> {
        self.lock().profile()
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.plan.spec.width()
    }

    /// Elements of a code.
    pub fn latent(&self) -> usize {
        self.plan.spec.latent()
    }

    /// The parameters, in the plan's layout.
    ///
    /// # Errors
    /// A failed device.
    pub fn parameters(&self) -> Result<Vec<f32>, ModelError> {
        let mut params = vec![0.0; self.plan.params.len()];
        self.lock().read(State::Params, &mut params)?;
        Ok(params)
    }

    /// Rows to codes: `rows × width` values to `rows × latent`. A variational model gives posterior means.
    ///
    /// # Errors
    /// Values that are no whole rows or not finite, or a failed device.
    pub fn encode(&self, rows: &[f32]) -> Result<Vec<f32>, ModelError> {
        let scaled = self.scale(rows)?;
        self.infer(Entry::Encode, &scaled)
    }

    /// Codes to rows: `rows × latent` values to `rows × width`.
    ///
    /// # Errors
    /// Values that are no whole codes or not finite, or a failed device.
    pub fn decode(&self, codes: &[f32]) -> Result<Vec<f32>, ModelError> {
        check(codes, self.latent())?;
        self.unscale(self.infer(Entry::Decode, codes)?)
    }

    /// Rows to rows: encodes and decodes.
    ///
    /// # Errors
    /// As [`Autoencoder::encode`].
    pub fn reconstruct(&self, rows: &[f32]) -> Result<Vec<f32>, ModelError> {
        let scaled = self.scale(rows)?;
        self.unscale(self.infer(Entry::Reconstruct, &scaled)?)
    }

    /// How abnormal each row is: its mean squared reconstruction error over the scaled features, so that a
    /// feature's units do not weigh. Higher is more abnormal. Missing values do not count.
    ///
    /// # Errors
    /// As [`Autoencoder::encode`].
    pub fn score(&self, rows: &[f32]) -> Result<Vec<f32>, ModelError> {
        let scaled = self.scale(rows)?;
        let reconstructed = self.infer(Entry::Reconstruct, &scaled)?;
        let width = self.width();
        let error = |(row, other): (&[f32], &[f32])| {
            let observed = row.iter().zip(other).filter(|(value, _)| !value.is_nan());
            let squares = observed.clone().map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
            (squares.sum::<f64>() / observed.count().max(1) as f64) as f32
        };
        Ok(scaled.chunks_exact(width).zip(reconstructed.chunks_exact(width)).map(error).collect())
    }

    /// The rows with their missing values, NaN, replaced by what the model reconstructs there. The objective the model
    /// was trained with must know of missing values ([`Objective::missing`](cvae_core::Objective::missing)).
    ///
    /// # Errors
    /// As [`Autoencoder::encode`].
    pub fn impute(&self, rows: &[f32]) -> Result<Vec<f32>, ModelError> {
        let reconstructed = self.reconstruct(rows)?;
        let fill = |(value, other): (&f32, f32)| if value.is_nan() { other } else { *value };
        Ok(rows.iter().zip(reconstructed).map(fill).collect())
    }

    /// How normal each row is: [`Autoencoder::score`] negated, after scikit-learn's method of this name.
    ///
    /// # Errors
    /// As [`Autoencoder::encode`].
    pub fn score_samples(&self, rows: &[f32]) -> Result<Vec<f32>, ModelError> {
        let mut scores = self.score(rows)?;
        scores.iter_mut().for_each(|score| *score = -*score);
        Ok(scores)
    }

    /// [`Autoencoder::encode`] under the name of the field's transformers.
    ///
    /// # Errors
    /// As [`Autoencoder::encode`].
    pub fn transform(&self, rows: &[f32]) -> Result<Vec<f32>, ModelError> {
        self.encode(rows)
    }

    /// [`Autoencoder::decode`] under the name of the field's transformers.
    ///
    /// # Errors
    /// As [`Autoencoder::decode`].
    pub fn inverse_transform(&self, codes: &[f32]) -> Result<Vec<f32>, ModelError> {
        self.decode(codes)
    }

    /// Draws `count` rows: codes from a density, decoded. Row `i` depends on `seed` and `i` alone.
    ///
    /// # Errors
    /// [`ModelError::NoDensity`] for a density other than the prior that has not been fitted, or a failed
    /// device.
    pub fn sample(&self, count: usize, seed: u64, density: DensitySpec) -> Result<Vec<f32>, ModelError> {
        let codes = match density {
            DensitySpec::Prior => self.draw(&Density::prior(self.latent())?, count, seed)?,
            spec => {
                let fitted = self.density(spec).ok_or(ModelError::NoDensity { spec })?;
                self.draw(fitted, count, seed)?
            }
        };
        self.decode(&codes)
    }

    fn draw(&self, density: &Density, count: usize, seed: u64) -> Result<Vec<f32>, ModelError> {
        let width = self.width().max(self.latent());
        match count.checked_mul(width).is_some_and(|values| values <= isize::MAX as usize / 8) {
            true => Ok(density.sample(count, seed, 1.0)?),
            false => Err(ModelError::TooLarge { rows: count, width }),
        }
    }

    /// `steps` rows between two rows, `[steps, width]`: their codes, both included, joined by a path and decoded.
    ///
    /// # Errors
    /// As [`Autoencoder::encode`]; fewer than two steps, or more than there is memory for.
    pub fn interpolate(&self, from: &[f32], to: &[f32], steps: usize, path: Path) -> Result<Vec<f32>, ModelError> {
        let width = self.width().max(self.latent());
        if steps.checked_mul(width).is_none_or(|values| values > isize::MAX as usize / 8) {
            return Err(ModelError::TooLarge { rows: steps, width });
        }
        let (from, to) = (self.encode(from)?, self.encode(to)?);
        self.decode(&path.codes(&from, &to, steps)?)
    }

    /// Fits a density to codes, `rows × latent` values (those of training rows), for [`Autoencoder::sample`].
    /// It replaces an earlier fit of the same specification.
    ///
    /// # Errors
    /// Values that are no whole codes or not finite, or too few of them.
    pub fn fit_density(&mut self, spec: DensitySpec, codes: &[f32]) -> Result<FitReport, ModelError> {
        check(codes, self.latent())?;
        let codes = Matrix::new(codes, self.latent()).map_err(DensityError::from)?;
        let Fitted { density, report } = Density::fit(spec, codes, None, &FitOptions::default())?;
        self.densities.retain(|earlier| !earlier.answers(spec) && earlier.spec() != density.spec());
        self.densities.push(density);
        Ok(report)
    }

    /// The density that fitting `spec` gave ([`Density::answers`]), if it was fitted.
    pub fn density(&self, spec: DensitySpec) -> Option<&Density> {
        self.densities.iter().find(|density| density.answers(spec))
    }

    /// The densities fitted to the codes.
    pub fn densities(&self) -> &[Density] {
        &self.densities
    }

    /// The codes of a data set, `rows × latent`.
    ///
    /// # Errors
    /// As [`Autoencoder::encode`]; also rows of another width than the model's.
    pub fn encode_dataset(&self, data: &Dataset) -> Result<Vec<f32>, ModelError> {
        data.expect_width(self.width())?;
        let mut codes = Vec::new();
        let mut block = Vec::new();
        for start in (0..data.rows()).step_by(BLOCK_ROWS) {
            data.copy_rows(start..data.rows().min(start + BLOCK_ROWS), &mut block)?;
            codes.extend(self.encode(&block)?);
        }
        Ok(codes)
    }

    /// Checks rows and brings their features to the model's scale.
    pub(crate) fn scale(&self, rows: &[f32]) -> Result<Vec<f32>, ModelError> {
        let missing = self.config.objective.missing;
        let usable = |value: f32| value.is_finite() || missing && value.is_nan();
        check_values(rows, self.width(), usable)?;
        let mut scaled = rows.to_vec();
        self.scaling.apply(&mut scaled)?;
        // A value far outside the range that was trained on can overflow.
        check_values(&scaled, self.width(), usable)?;
        Ok(scaled)
    }

    fn unscale(&self, mut rows: Vec<f32>) -> Result<Vec<f32>, ModelError> {
        self.scaling.invert(&mut rows)?;
        Ok(rows)
    }

    /// Runs an entry on checked rows in the model's scale.
    pub(crate) fn infer(&self, entry: Entry, input: &[f32]) -> Result<Vec<f32>, ModelError> {
        let (from, to) = entry.widths(&self.plan);
        let rows = input.len() / from;
        let len = rows.checked_mul(to).ok_or(ModelError::TooLarge { rows, width: to })?;
        let mut out = Vec::new();
        out.try_reserve_exact(len).map_err(|_| ModelError::TooLarge { rows, width: to })?;
        out.resize(len, 0.0);
        self.lock().infer(entry, input, &mut out)?;
        Ok(out)
    }

    /// An executable left by a panicking thread is as it was before the call that panicked.
    fn lock(&self) -> MutexGuard<'_, Box<dyn Executable>> {
        self.executable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that values are whole rows, at least one, and finite.
fn check(values: &[f32], width: usize) -> Result<(), ModelError> {
    check_values(values, width, f32::is_finite)
}

/// Checks that values are whole rows, at least one, and usable.
fn check_values(values: &[f32], width: usize, usable: impl Fn(f32) -> bool) -> Result<(), ModelError> {
    if values.is_empty() {
        return Err(ModelError::NoRows);
    }
    if !values.len().is_multiple_of(width) {
        return Err(ModelError::Rows { values: values.len(), width });
    }
    match values.iter().position(|value| !usable(*value)) {
        Some(index) => Err(ModelError::NonFinite { row: index / width, column: index % width }),
        None => Ok(()),
    }
}
