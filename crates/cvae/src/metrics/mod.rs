//! Metrics of reconstructions, codes, samples and scores.
//!
//! Every function takes rows as [`Matrix`](crate::Matrix), accumulates in `f64`, and gives the same
//! result for any number of threads. What is random takes a seed.
//!
//! | question | functions |
//! |---|---|
//! | How good are reconstructions? | [`mse`], [`psnr`], [`r2`], [`ssim`] |
//! | Better than a linear model? | [`Pca`] with as many components as the code has dimensions |
//! | What do codes know about labels? | [`knn_accuracy`], [`LinearProbe`] |
//! | How are codes spread? | [`latent_rms`], [`active_units`], [`effective_rank`] |
//! | Are they like the prior? | [`mmd_to_prior`], [`sliced_w2_to_prior`] |
//! | Are samples like the data? | [`mmd`], [`frechet_distance`], [`Manifold`], in the features of a [`Classifier`] |
//! | Do scores rank anomalies first? | [`auroc`], [`average_precision`] |

mod classifier;
mod error;
mod frechet;
mod latent;
mod lbfgs;
mod manifold;
mod mmd;
mod neighbors;
mod pca;
mod probe;
mod ranking;
mod reconstruction;
mod sliced;
mod ssim;

pub use classifier::Classifier;
pub use error::MetricError;
pub(crate) use error::{same_shape, same_width};
pub use frechet::{Moments, frechet_distance};
pub use latent::{active_units, effective_rank, latent_rms};
pub use manifold::{Manifold, PrecisionRecall};
pub use mmd::{mmd, mmd_to_prior};
pub(crate) use neighbors::nearest_rows;
pub use neighbors::{knn_accuracy, knn_predict};
pub use pca::Pca;
pub use probe::LinearProbe;
pub use ranking::{auroc, average_precision};
pub use reconstruction::{mse, psnr, r2};
pub use sliced::sliced_w2_to_prior;
pub use ssim::{ImageShape, ssim};
