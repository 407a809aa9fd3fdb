//! Anomaly scores of rows: higher is more abnormal.
//!
//! [`Detector`] puts the pieces together: it fits the chosen [`Term`]s on held-out rows, calibrates each,
//! adds them up, and flags rows above a threshold with a stated false-positive rate. The pieces are also
//! there one by one: [`row_errors`], [`feature_errors`], [`ResidualScale`], [`SmoothResidual`],
//! [`Mahalanobis`],
//! [`Neighbors`], [`Calibration`], [`conformal_threshold`], [`top_features`].

mod calibration;
mod detector;
mod error;
mod mahalanobis;
mod neighbors;
mod residual;
mod smooth;

pub use calibration::{Calibration, CalibrationKind, conformal_threshold};
pub use detector::{Detector, DetectorOptions, Observed, Term};
pub use error::ScoreError;
pub use mahalanobis::Mahalanobis;
pub use neighbors::Neighbors;
pub use residual::{FeatureShare, ResidualScale, feature_errors, row_errors, top_features};
pub use smooth::SmoothResidual;
