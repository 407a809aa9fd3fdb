//! Densities of codes, fitted after training: what makes a deterministic autoencoder generative.
//!
//! A [`Density`] is fitted on training codes, which it standardises first, and answers with log-densities
//! (in nats, of the codes as given) and samples. All computations are in `f64`.
//!
//! ```
//! use cvae::Matrix;
//! use cvae::density::{Density, FitOptions};
//!
//! let codes: Vec<f32> = (0..600).map(|i| ((i * 37) % 101) as f32 / 50.0).collect();
//! let codes = Matrix::new(&codes, 2)?;
//! let fitted = Density::fit("gmm:3".parse()?, codes, None, &FitOptions::default())?;
//! let samples = fitted.density.sample(10, 1, 1.0)?;
//! assert_eq!(samples.len(), 10 * 2);
//! # Ok::<(), cvae::density::DensityError>(())
//! ```

mod em;
mod error;
mod fit;
mod flow;
mod gmm;
mod interpolate;
mod kmeans;
mod options;
mod spec;
mod standardize;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use error::DensityError;
pub use fit::{Candidate, FitReport, Fitted};
use flow::Flow;
pub use gmm::Gmm;
pub use interpolate::{Path, linear, spherical};
pub use options::FitOptions;
pub use spec::{Components, Covariance, DensitySpec};
use standardize::Standardizer;

use crate::Matrix;
use crate::random::{Purpose, fill_normal, stream};
use gmm::log_sum_exp;

/// Rows handled at a time.
const BLOCK_ROWS: usize = 512;

/// A density over codes. It can be stored with serde and returns bit by bit, provided that the format
/// keeps every bit of an `f64` (for `serde_json`, the feature `float_roundtrip`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Density {
    #[serde(flatten)]
    model: Model,
    /// Whether held-out codes chose the number of components.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    automatic: bool,
}

impl From<Model> for Density {
    fn from(model: Model) -> Self {
        Self { model, automatic: false }
    }
}

/// The closed set of densities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", try_from = "Stored")]
enum Model {
    Prior { latent: usize },
    Gaussian(Mixture),
    Gmm(Mixture),
    Flow(Standardized<Flow>),
}

/// The stored form, before it is checked.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Stored {
    Prior { latent: usize },
    Gaussian(Mixture),
    Gmm(Mixture),
    Flow(Standardized<Flow>),
}

/// A model over standardised codes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Standardized<T> {
    standardizer: Standardizer,
    model: T,
}

type Mixture = Standardized<Gmm>;

impl TryFrom<Stored> for Model {
    type Error = DensityError;

    fn try_from(stored: Stored) -> Result<Self, DensityError> {
        let same_latent = |mixture: &Mixture| mixture.standardizer.latent() == mixture.model.latent();
        match stored {
            Stored::Prior { latent: 0 } => Err(DensityError::Stored("the latent size is zero")),
            Stored::Prior { latent } => Ok(Self::Prior { latent }),
            Stored::Gaussian(mixture) if same_latent(&mixture) && mixture.model.components() == 1 => {
                Ok(Self::Gaussian(mixture))
            }
            Stored::Gmm(mixture) if same_latent(&mixture) => Ok(Self::Gmm(mixture)),
            Stored::Flow(flow) if flow.standardizer.latent() == flow.model.latent() => Ok(Self::Flow(flow)),
            _ => Err(DensityError::Stored("standardisation and model do not match")),
        }
    }
}

impl Density {
    /// N(0, I) over `latent` dimensions, with nothing fitted.
    ///
    /// # Errors
    ///
    /// [`DensityError::Matrix`] when `latent` is zero.
    pub fn prior(latent: usize) -> Result<Self, DensityError> {
        if latent == 0 {
            return Err(crate::MatrixError::NoColumns.into());
        }
        Ok(Model::Prior { latent }.into())
    }

    /// Latent size.
    pub fn latent(&self) -> usize {
        match &self.model {
            Model::Prior { latent } => *latent,
            Model::Gaussian(mixture) | Model::Gmm(mixture) => mixture.model.latent(),
            Model::Flow(flow) => flow.model.latent(),
        }
    }

    /// What was fitted, with the number of components that was chosen.
    pub fn spec(&self) -> DensitySpec {
        match &self.model {
            Model::Prior { .. } => DensitySpec::Prior,
            Model::Gaussian(_) => DensitySpec::Gaussian,
            Model::Flow(_) => DensitySpec::Flow,
            Model::Gmm(mixture) => DensitySpec::Gmm {
                components: Components::Fixed(mixture.model.components()),
                covariance: mixture.model.covariance_shape(),
            },
        }
    }

    /// Whether this is what fitting `spec` gave: its own [`Density::spec`], or an automatic number of components of
    /// the same covariance where it was chosen so.
    pub fn answers(&self, spec: DensitySpec) -> bool {
        match (spec, self.spec()) {
            (
                DensitySpec::Gmm { components: Components::Auto, covariance },
                DensitySpec::Gmm { covariance: fitted, .. },
            ) => self.automatic && covariance == fitted,
            (spec, fitted) => spec == fitted,
        }
    }

    /// Whether held-out codes chose the number of components.
    pub fn is_automatic(&self) -> bool {
        self.automatic
    }

    /// The mixture over standardised codes, or `None` for the prior and for a flow.
    pub fn gmm(&self) -> Option<&Gmm> {
        match &self.model {
            Model::Prior { .. } | Model::Flow(_) => None,
            Model::Gaussian(mixture) | Model::Gmm(mixture) => Some(&mixture.model),
        }
    }

    /// Log-density of every code, in nats.
    ///
    /// # Errors
    ///
    /// [`DensityError::WidthMismatch`] when the codes have another latent size.
    pub fn log_prob(&self, codes: Matrix<'_>) -> Result<Vec<f64>, DensityError> {
        let latent = self.latent();
        if codes.width() != latent {
            return Err(DensityError::WidthMismatch { expected: latent, found: codes.width() });
        }
        let blocks: Vec<Vec<f64>> = codes
            .values()
            .par_chunks(BLOCK_ROWS * latent)
            .map(|block| match &self.model {
                Model::Prior { .. } => {
                    let constant = 0.5 * latent as f64 * (2.0 * std::f64::consts::PI).ln();
                    let square = |row: &[f32]| row.iter().map(|&z| f64::from(z).powi(2)).sum::<f64>();
                    block.chunks_exact(latent).map(|row| -0.5 * square(row) - constant).collect()
                }
                Model::Gaussian(mixture) | Model::Gmm(mixture) => {
                    let joint = mixture.model.joint_log_densities(&mixture.standardizer.forward(block));
                    let volume = mixture.standardizer.log_volume();
                    joint.chunks_exact(mixture.model.components()).map(|row| log_sum_exp(row) + volume).collect()
                }
                Model::Flow(flow) => {
                    let mut values = flow.model.log_densities(&flow.standardizer.forward(block));
                    let volume = flow.standardizer.log_volume();
                    values.iter_mut().for_each(|value| *value += volume);
                    values
                }
            })
            .collect();
        Ok(blocks.concat())
    }

    /// Mean log-density of the codes, in nats.
    ///
    /// # Errors
    ///
    /// As [`log_prob`](Self::log_prob).
    pub fn mean_log_prob(&self, codes: Matrix<'_>) -> Result<f64, DensityError> {
        let values = self.log_prob(codes)?;
        Ok(values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Draws `count` codes, `[count, latent]`. `temperature` multiplies the deviation from the mean (of
    /// the drawn component; for a flow, the noise it starts from): 1 samples the density, 0 gives means.
    ///
    /// Row `i` depends on `seed` and `i` alone (ChaCha8 with one stream per row), whatever `count` and
    /// the number of threads.
    ///
    /// # Errors
    ///
    /// [`DensityError::Temperature`] when the temperature is negative or not finite.
    pub fn sample(&self, count: usize, seed: u64, temperature: f64) -> Result<Vec<f32>, DensityError> {
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(DensityError::Temperature(temperature));
        }
        let latent = self.latent();
        let mut codes = vec![0.0; count * latent];
        codes.par_chunks_mut(latent).enumerate().for_each(|(index, code)| {
            let mut rng = stream(seed, Purpose::Samples, index as u64);
            let mut row = vec![0.0; latent];
            match &self.model {
                Model::Prior { .. } => {
                    fill_normal(&mut rng, &mut row);
                    code.iter_mut().zip(row).for_each(|(code, value)| *code = (temperature * value) as f32);
                }
                Model::Gaussian(mixture) | Model::Gmm(mixture) => {
                    mixture.model.sample(&mut rng, temperature, &mut row);
                    mixture.standardizer.backward(&row, code);
                }
                Model::Flow(flow) => {
                    flow.model.sample(&mut rng, temperature, &mut row);
                    flow.standardizer.backward(&row, code);
                }
            }
        });
        Ok(codes)
    }
}

/// The log-density of a Gaussian at its mean, or `None` for any other density.
pub(crate) fn log_peak(density: &Density) -> Option<f64> {
    match &density.model {
        Model::Gaussian(mixture) => {
            let joint = mixture.model.joint_log_densities(mixture.model.means());
            Some(log_sum_exp(&joint) + mixture.standardizer.log_volume())
        }
        Model::Prior { .. } | Model::Gmm(_) | Model::Flow(_) => None,
    }
}

#[cfg(test)]
mod tests;
