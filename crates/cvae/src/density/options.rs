//! How a density is fitted.

use super::DensityError;

/// Options of [`Density::fit`](super::Density::fit).
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// Chooses starting points and held-out codes.
    pub seed: u64,
    /// Independent starts of a few steps each; the one of largest likelihood goes on.
    pub restarts: usize,
    /// Starts, and the candidates of an automatic choice, see at most this many codes; the result is then
    /// fitted on all.
    pub start_rows: usize,
    /// Steps after which the iteration stops all the same.
    pub max_iterations: usize,
    /// The iteration stops when the mean log-likelihood of a code changes by less.
    pub tolerance: f64,
    /// Smallest eigenvalue of a covariance, relative to the mean variance of the codes. A maximum
    /// likelihood covariance with this bound has its smaller eigenvalues raised to it. A flow is
    /// trained on standardised codes with noise of this variance, which bounds its density likewise.
    pub covariance_floor: f64,
    /// Share of the codes held out, where no held-out codes are given, to choose the number of components
    /// or the step at which a flow is best.
    pub held_out_share: f64,
    /// Training steps of a flow, of 512 codes each; it stops earlier when held-out codes say so.
    pub flow_steps: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            restarts: 4,
            start_rows: 10_000,
            max_iterations: 200,
            tolerance: 1e-3,
            covariance_floor: 1e-6,
            held_out_share: 0.1,
            flow_steps: 3000,
        }
    }
}

impl FitOptions {
    /// Checks every field.
    pub(crate) fn validate(&self) -> Result<(), DensityError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let checks = [
            ("restarts", self.restarts > 0, "at least 1"),
            ("start_rows", self.start_rows > 0, "at least 1"),
            ("max_iterations", self.max_iterations > 0, "at least 1"),
            ("flow_steps", self.flow_steps > 0, "at least 1"),
            ("tolerance", positive(self.tolerance), "positive and finite"),
            ("covariance_floor", (1e-12..=1.0).contains(&self.covariance_floor), "between 1e-12 and 1"),
            ("held_out_share", self.held_out_share > 0.0 && self.held_out_share < 1.0, "strictly between 0 and 1"),
        ];
        match checks.into_iter().find(|check| !check.1) {
            Some((name, _, range)) => Err(DensityError::Option { name, range }),
            None => Ok(()),
        }
    }
}
