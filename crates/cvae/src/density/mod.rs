//! Densities of codes, fitted after training: what makes a deterministic autoencoder generative.
mod error;
mod gmm;
mod spec;
mod standardize;

pub use error::DensityError;
pub use gmm::Gmm;
pub use spec::{Components, Covariance, DensitySpec};
