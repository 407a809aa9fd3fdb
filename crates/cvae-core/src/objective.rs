//! What is minimised: reconstruction, latent and regularisation terms, as plain data.
//!
//! The loss of a batch is the mean over its rows of the reconstruction and latent terms, plus the
//! regulariser. Formulas, gradients and sources: docs/MATH.md.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::columns::{ColumnGroup, ColumnKind};
use crate::corruption::Corruption;
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
    /// `gamma · |K − capacity|` with `K` the divergence averaged over the batch; the code is sampled.
    Capacity {
        /// Weight of the distance.
        gamma: f64,
        /// The divergence aimed at, in nats.
        capacity: f64,
    },
    /// `beta · Σ_j max(floor, K_j)` with `K_j` the divergence of dimension `j` averaged over the batch; the code
    /// is sampled.
    FreeBits {
        /// Weight of the divergence.
        beta: f64,
        /// Nats of each dimension that cost nothing.
        floor: f64,
    },
    /// `weight · Σ|z|`: a sparse code.
    Sparse {
        /// Weight of the absolute values.
        weight: f64,
    },
    /// `weight · MMD²` between the codes of the batch and as many draws of N(0, I).
    Mmd {
        /// Weight of the discrepancy.
        weight: f64,
    },
}

impl Latent {
    /// Bounds of the log-variance `s`, applied alike in the divergence and in sampling.
    pub const LOG_VARIANCE: (f64, f64) = (-30.0, 20.0);

    /// Scales `s` of the kernel `Σ_s C/(C + ‖a − b‖²)`, `C = 2·latent·s`, of [`Latent::Mmd`].
    pub const MMD_SCALES: [f64; 7] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

    /// Whether the code is sampled, so that the encoder has a second head for the log-variance.
    pub fn is_variational(self) -> bool {
        matches!(self, Self::Variational { .. } | Self::Capacity { .. } | Self::FreeBits { .. })
    }

    /// The weight of the term; 0 where there is none.
    pub fn weight(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Collapsed { beta } | Self::Variational { beta } | Self::FreeBits { beta, .. } => beta,
            Self::Capacity { gamma, .. } => gamma,
            Self::Sparse { weight } | Self::Mmd { weight } => weight,
        }
    }

    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Collapsed { .. } => "collapsed",
            Self::Variational { .. } => "variational",
            Self::Capacity { .. } => "capacity",
            Self::FreeBits { .. } => "free_bits",
            Self::Sparse { .. } => "sparse",
            Self::Mmd { .. } => "mmd",
        }
    }

    fn validate(self) -> Result<(), SpecError> {
        match self {
            Self::None => Ok(()),
            Self::Collapsed { beta } | Self::Variational { beta } => weight("beta", beta),
            Self::Capacity { gamma, capacity } => weight("gamma", gamma).and(weight("capacity", capacity)),
            Self::FreeBits { beta, floor } => weight("beta", beta).and(weight("floor", floor)),
            Self::Sparse { weight: value } | Self::Mmd { weight: value } => weight("weight", value),
        }
    }
}

/// A weight must be finite and not negative.
fn weight(name: &'static str, value: f64) -> Result<(), SpecError> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(SpecError::Weight { name, value }) }
}

impl fmt::Display for Latent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::None => Ok(()),
            Self::Collapsed { beta } | Self::Variational { beta } => write!(f, "(beta={beta})"),
            Self::Capacity { gamma, capacity } => write!(f, "(gamma={gamma}, capacity={capacity})"),
            Self::FreeBits { beta, floor } => write!(f, "(beta={beta}, floor={floor})"),
            Self::Sparse { weight } | Self::Mmd { weight } => write!(f, "(weight={weight})"),
        }
    }
}

/// How the divergence of a batch is bounded before it becomes a term (see [`crate::Op::KlBounded`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KlBound {
    /// `gamma · |Σ_j K_j − capacity|`
    Capacity {
        /// Weight.
        gamma: f64,
        /// Nats.
        capacity: f64,
    },
    /// `beta · Σ_j max(floor, K_j)`
    FreeBits {
        /// Weight.
        beta: f64,
        /// Nats of each dimension.
        floor: f64,
    },
}

/// A penalty on the Jacobian of one half of the model.
///
/// The Jacobian is that of what training computes: without the sigmoid that cross-entropy contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Jacobian {
    /// None.
    #[default]
    None,
    /// `weight · ‖J_D(z)ᵀ v‖²` with random signs `v`, whose mean is `weight · ‖J_D(z)‖²_F`.
    GradientPenalty {
        /// Weight.
        weight: f64,
    },
    /// `weight · ‖J_E(x)‖²_F`: exact for codes of at most [`Jacobian::EXACT_LATENT`] dimensions, else
    /// `weight · ‖J_E(x)ᵀ v‖²` with random signs `v`.
    Contractive {
        /// Weight.
        weight: f64,
    },
}

impl Jacobian {
    /// Largest code whose contractive term is computed exactly.
    pub const EXACT_LATENT: usize = 16;

    /// The weight of the term; 0 where there is none.
    pub fn weight(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::GradientPenalty { weight } | Self::Contractive { weight } => weight,
        }
    }

    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GradientPenalty { .. } => "gradient_penalty",
            Self::Contractive { .. } => "contractive",
        }
    }
}

impl fmt::Display for Jacobian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str(self.name()),
            _ => write!(f, "{}(weight={})", self.name(), self.weight()),
        }
    }
}

/// The objective of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// Reconstruction term; with `columns`, that of the numeric ones.
    pub reconstruction: Reconstruction,
    /// Latent term.
    pub latent: Latent,
    /// `λ` of `(λ/2)‖θ_D‖²` over all decoder parameters, part of the loss (not decoupled decay).
    pub decoder_l2: f64,
    /// Whether every decoder weight `W` acts as `W/σ(W)`, with σ its largest singular value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spectral_norm: bool,
    /// Least observation variance σ² when it is learnt: the reconstruction term is then
    /// `(width/2)·ln(MSE + sigma_floor)` with the MSE of the batch, and `reconstruction` is `mse_sum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma_floor: Option<f64>,
    /// Whether NaN marks a missing value: it is fed as 0 and left out of the reconstruction term.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
    /// Elements of the code that are kept, those of largest magnitude; the others become 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Noise on the encoder's input.
    #[serde(default, skip_serializing_if = "is_default")]
    pub corruption: Corruption,
    /// Penalty on a Jacobian.
    #[serde(default, skip_serializing_if = "is_default")]
    pub jacobian: Jacobian,
    /// Groups of columns with a loss each, in order; empty if every column is numeric.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnGroup>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Objective {
    /// β of the collapsed objective that [`Objective::default`] uses, in the sum convention.
    pub const DEFAULT_BETA: f64 = 0.0064;
    /// λ of the collapsed objective that [`Objective::default`] uses.
    pub const DEFAULT_DECODER_L2: f64 = 1e-4;
    /// Power iterations that a weight's largest singular value is found by.
    pub const SPECTRAL_ITERATIONS: u32 = 8;

    /// A plain autoencoder: `½‖x − x'‖²`.
    pub fn ae() -> Self {
        Self {
            reconstruction: Reconstruction::MseSum,
            latent: Latent::None,
            decoder_l2: 0.0,
            spectral_norm: false,
            sigma_floor: None,
            missing: false,
            top_k: None,
            corruption: Corruption::None,
            jacobian: Jacobian::None,
            columns: vec![],
        }
    }

    /// The collapsed variational autoencoder: `½‖x − x'‖² + beta·½‖z‖² + (decoder_l2/2)‖θ_D‖²`
    /// (Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020: RAE-L2).
    pub fn collapsed(beta: f64, decoder_l2: f64) -> Self {
        Self { latent: Latent::Collapsed { beta }, decoder_l2, ..Self::ae() }
    }

    /// The collapsed autoencoder whose decoder is regularised by a gradient penalty (Ghosh et al.: RAE-GP).
    pub fn collapsed_gradient_penalty(beta: f64, weight: f64) -> Self {
        Self { jacobian: Jacobian::GradientPenalty { weight }, ..Self::collapsed(beta, 0.0) }
    }

    /// The collapsed autoencoder whose decoder's weights are divided by their largest singular values (Ghosh et
    /// al.: RAE-SN).
    pub fn collapsed_spectral_norm(beta: f64) -> Self {
        Self { spectral_norm: true, ..Self::collapsed(beta, 0.0) }
    }

    /// The β-VAE (Higgins et al., ICLR 2017); `beta = 1` is the VAE (Kingma & Welling, ICLR 2014).
    pub fn vae(beta: f64) -> Self {
        Self { latent: Latent::Variational { beta }, ..Self::ae() }
    }

    /// The contractive autoencoder (Rifai et al., ICML 2011).
    pub fn contractive(weight: f64) -> Self {
        Self { jacobian: Jacobian::Contractive { weight }, ..Self::ae() }
    }

    /// The denoising autoencoder (Vincent et al., ICML 2008).
    pub fn denoising(corruption: Corruption) -> Self {
        Self { corruption, ..Self::ae() }
    }

    /// The masked autoencoder (He et al., CVPR 2022): columns are masked, and the loss is on them alone.
    pub fn masked(share: f64) -> Self {
        Self::denoising(Corruption::Masked { share, patch: None })
    }

    /// The sparse autoencoder with an L1 penalty on the code.
    pub fn sparse(weight: f64) -> Self {
        Self { latent: Latent::Sparse { weight }, ..Self::ae() }
    }

    /// The k-sparse autoencoder (Makhzani & Frey, ICLR 2014).
    pub fn top_k(k: usize) -> Self {
        Self { top_k: Some(k), ..Self::ae() }
    }

    /// The Wasserstein autoencoder with maximum mean discrepancy (Tolstikhin et al., ICLR 2018).
    pub fn wae_mmd(weight: f64) -> Self {
        Self { latent: Latent::Mmd { weight }, ..Self::ae() }
    }

    /// Whether scaling the code up and the decoder down, or the reverse, lowers the loss without bound: a term
    /// that shrinks the code without a decoder regulariser (docs/MATH.md, "Degeneracy").
    pub fn is_degenerate(&self) -> bool {
        let shrinks = matches!(self.latent, Latent::Collapsed { .. } | Latent::Sparse { .. })
            && self.latent.weight() > 0.0
            || matches!(self.jacobian, Jacobian::Contractive { weight } if weight > 0.0);
        let regularised = matches!(self.jacobian, Jacobian::GradientPenalty { weight } if weight > 0.0);
        shrinks && self.decoder_l2 == 0.0 && !self.spectral_norm && !regularised
    }

    /// Whether the decoder's last activation is part of the reconstruction term, which then takes logits.
    pub fn takes_logits(&self) -> bool {
        self.reconstruction == Reconstruction::Bce
    }

    /// Checks the objective by itself and against the model.
    ///
    /// # Errors
    /// A weight that is negative or not finite, a `delta` that is not positive, cross-entropy without a sigmoid
    /// output, or parts that do not fit each other or the model.
    pub fn validate(&self, spec: &ModelSpec) -> Result<(), SpecError> {
        weight("decoder_l2", self.decoder_l2)?;
        self.latent.validate()?;
        weight("weight", self.jacobian.weight())?;
        self.corruption.validate(spec.width())?;
        self.validate_columns(spec)?;
        if self.spectral_norm && matches!(self.jacobian, Jacobian::GradientPenalty { weight } if weight > 0.0) {
            return Err(SpecError::SpectralPenalty);
        }
        match (self.sigma_floor, self.top_k) {
            (Some(floor), _) if !(floor.is_finite() && floor > 0.0) => {
                return Err(SpecError::NotPositive { name: "sigma_floor", value: floor });
            }
            (Some(_), _) if self.reconstruction != Reconstruction::MseSum || !self.columns.is_empty() => {
                return Err(SpecError::SigmaReconstruction);
            }
            (_, Some(_)) if self.latent.is_variational() => return Err(SpecError::TopKSampled),
            (_, Some(k)) if !(1..=spec.latent()).contains(&k) => {
                return Err(SpecError::TopK { k, latent: spec.latent() });
            }
            _ => {}
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

    fn validate_columns(&self, spec: &ModelSpec) -> Result<(), SpecError> {
        if self.columns.is_empty() {
            return Ok(());
        }
        for (index, group) in self.columns.iter().enumerate() {
            weight("weight", group.weight)?;
            if group.width == 0 {
                return Err(SpecError::EmptyColumns { group: index });
            }
        }
        let columns = self.columns.iter().fold(0usize, |sum, group| sum.saturating_add(group.width));
        if columns != spec.width() {
            return Err(SpecError::ColumnsWidth { columns, width: spec.width() });
        }
        if self.reconstruction == Reconstruction::Bce {
            return Err(SpecError::ColumnsBce);
        }
        let output = spec.output_activation();
        let classes = self.columns.iter().any(|group| group.kind != ColumnKind::Numeric);
        if classes && output != Activation::Identity { Err(SpecError::ColumnsOutput { output }) } else { Ok(()) }
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
    /// The weighted penalty on a Jacobian.
    Jacobian,
}

impl Term {
    /// Number of terms.
    pub const COUNT: usize = 4;
    /// Every term, in the order of its index.
    pub const ALL: [Self; Self::COUNT] = [Self::Reconstruction, Self::Latent, Self::DecoderL2, Self::Jacobian];

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
            Self::Jacobian => "jacobian",
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
