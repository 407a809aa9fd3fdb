//! What is minimised: reconstruction, latent and regularisation terms, as plain data.
//!
//! The loss of a batch is the mean over its rows of the reconstruction and latent terms, plus the
//! regulariser. Formulas, gradients and sources: docs/MATH.md.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::SpecError;
use crate::spec::{Activation, ModelSpec};

/// How the reconstruction `x'` is compared with the target `x`. Sums run over the features of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reconstruction {
    /// `½ Σ (x' − x)²`: the Gaussian log-likelihood scaled by σ², the default.
    MseSum,
    /// `Σ (x' − x)² / width`: the mean over all elements, as in most tutorials.
    MseMean,
    /// Binary cross-entropy, computed from the logits of a sigmoid output: `Σ max(u,0) − u·x + ln(1+e^−|u|)`.
    Bce,
    /// `Σ |x' − x|`
    L1,
    /// `Σ h(x' − x)` with `h(e) = ½e²` for `|e| ≤ delta`, else `delta·(|e| − ½·delta)`.
    Huber {
        /// Where the loss turns from quadratic to linear; positive.
        delta: f64,
    },
}

impl Reconstruction {
    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::MseSum => "mse_sum",
            Self::MseMean => "mse_mean",
            Self::Bce => "bce",
            Self::L1 => "l1",
            Self::Huber { .. } => "huber",
        }
    }
}

impl fmt::Display for Reconstruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Huber { delta } => write!(f, "huber(delta={delta})"),
            other => f.write_str(other.name()),
        }
    }
}

/// What is asked of the code.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Latent {
    /// Nothing: a plain autoencoder.
    None,
    /// `beta · ½‖z‖²`: the collapsed objective, `−log p(z)` scaled by σ² = beta.
    Collapsed {
        /// Weight of the prior, equal to the observation variance σ².
        beta: f64,
    },
    /// `beta · KL(N(μ, e^s) ‖ N(0, I))` with the code sampled as `μ + e^(s/2)·ε`.
    Variational {
        /// Weight of the divergence; 1 is the VAE.
        beta: f64,
    },
}

impl Latent {
    /// Bounds of the log-variance `s`, applied alike in the divergence and in sampling.
    pub const LOG_VARIANCE: (f64, f64) = (-30.0, 20.0);

    /// Whether the encoder has a second head for the log-variance.
    pub fn is_variational(self) -> bool {
        matches!(self, Self::Variational { .. })
    }
}

impl fmt::Display for Latent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Collapsed { beta } => write!(f, "collapsed(beta={beta})"),
            Self::Variational { beta } => write!(f, "variational(beta={beta})"),
        }
    }
}

/// The objective of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Reconstruction term.
    pub reconstruction: Reconstruction,
    /// Latent term.
    pub latent: Latent,
    /// `λ` of `(λ/2)‖θ_D‖²` over all decoder parameters, part of the loss (not decoupled decay).
    pub decoder_l2: f64,
}

impl Objective {
    /// β of the collapsed objective that [`Objective::default`] uses, in the sum convention.
    pub const DEFAULT_BETA: f64 = 0.0064;
    /// λ of the collapsed objective that [`Objective::default`] uses.
    pub const DEFAULT_DECODER_L2: f64 = 1e-4;

    /// A plain autoencoder: `½‖x − x'‖²`.
    pub fn ae() -> Self {
        Self { reconstruction: Reconstruction::MseSum, latent: Latent::None, decoder_l2: 0.0 }
    }

    /// The collapsed variational autoencoder: `½‖x − x'‖² + beta·½‖z‖² + (decoder_l2/2)‖θ_D‖²`
    /// (Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020: RAE-L2).
    pub fn collapsed(beta: f64, decoder_l2: f64) -> Self {
        Self { reconstruction: Reconstruction::MseSum, latent: Latent::Collapsed { beta }, decoder_l2 }
    }

    /// The β-VAE (Higgins et al., ICLR 2017); `beta = 1` is the VAE (Kingma & Welling, ICLR 2014).
    pub fn vae(beta: f64) -> Self {
        Self { reconstruction: Reconstruction::MseSum, latent: Latent::Variational { beta }, decoder_l2: 0.0 }
    }

    /// Whether scaling the code up and the decoder down lowers the loss without bound: a collapsed prior
    /// without a decoder regulariser (docs/MATH.md, "Degeneracy").
    pub fn is_degenerate(&self) -> bool {
        matches!(self.latent, Latent::Collapsed { beta } if beta > 0.0) && self.decoder_l2 == 0.0
    }

    /// Checks the objective by itself and against the model.
    ///
    /// # Errors
    /// A weight that is negative or not finite, a `delta` that is not positive, or cross-entropy without a
    /// sigmoid output.
    pub fn validate(&self, spec: &ModelSpec) -> Result<(), SpecError> {
        let weight = |name: &'static str, value: f64| {
            if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(SpecError::Weight { name, value }) }
        };
        weight("decoder_l2", self.decoder_l2)?;
        if let Latent::Collapsed { beta } | Latent::Variational { beta } = self.latent {
            weight("beta", beta)?;
        }
        match self.reconstruction {
            Reconstruction::Huber { delta } if !(delta.is_finite() && delta > 0.0) => {
                Err(SpecError::NotPositive { name: "delta", value: delta })
            }
            Reconstruction::Bce if spec.output_activation() != Activation::Sigmoid => {
                Err(SpecError::BceOutput { output: spec.output_activation() })
            }
            _ => Ok(()),
        }
    }
}

impl Default for Objective {
    fn default() -> Self {
        Self::collapsed(Self::DEFAULT_BETA, Self::DEFAULT_DECODER_L2)
    }
}

/// One reported term of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// The reconstruction term.
    Reconstruction,
    /// The weighted latent term.
    Latent,
    /// The weighted decoder regulariser.
    DecoderL2,
}

impl Term {
    /// Number of terms.
    pub const COUNT: usize = 3;
    /// Every term, in the order of its index.
    pub const ALL: [Self; Self::COUNT] = [Self::Reconstruction, Self::Latent, Self::DecoderL2];

    /// Position in arrays of per-term losses.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name used in metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reconstruction => "reconstruction",
            Self::Latent => "latent",
            Self::DecoderL2 => "decoder_l2",
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
