//! What an op reads, writes and depends on.

use crate::objective::Term;
use crate::op::Op;
use crate::program::ValueId;

impl Op {
    /// The op's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::Act { .. } => "act",
            Self::Noise { .. } => "noise",
            Self::Reparameterize { .. } => "reparameterize",
            Self::Mask { .. } => "mask",
            Self::Erase { .. } => "erase",
            Self::Permute { .. } => "permute",
            Self::Shift { .. } => "shift",
            Self::Observe { .. } => "observe",
            Self::Multiply { .. } => "multiply",
            Self::TopK { .. } => "top_k",
            Self::TopKGrad { .. } => "top_k_grad",
            Self::Reconstruction { .. } => "reconstruction",
            Self::SigmaReconstruction { .. } => "sigma_reconstruction",
            Self::MixedReconstruction { .. } => "mixed_reconstruction",
            Self::MixedOutput { .. } => "mixed_output",
            Self::CollapsedPrior { .. } => "collapsed_prior",
            Self::KlDivergence { .. } => "kl_divergence",
            Self::KlBounded { .. } => "kl_bounded",
            Self::CodeL1 { .. } => "code_l1",
            Self::Mmd { .. } => "mmd",
            Self::Signs { .. } => "signs",
            Self::UnitVector { .. } => "unit_vector",
            Self::JacobianNorm { .. } => "jacobian_norm",
            Self::ActGradGrad { .. } => "act_grad_grad",
            Self::SpectralScale { .. } => "spectral_scale",
            Self::ScaleRows { .. } => "scale_rows",
            Self::SpectralGrad { .. } => "spectral_grad",
            Self::ParamNorm { .. } => "param_norm",
            Self::ActGrad { .. } => "act_grad",
            Self::ReparameterizeGrad { .. } => "reparameterize_grad",
            Self::LinearGradInput { .. } => "linear_grad_input",
            Self::LinearGradWeight { .. } => "linear_grad_weight",
            Self::AddScaled { .. } => "add_scaled",
            Self::Update => "update",
        }
    }

    /// The values that the op reads.
    pub fn reads(&self) -> Vec<ValueId> {
        match *self {
            Self::Linear { input, .. }
            | Self::Act { input, .. }
            | Self::Observe { input, .. }
            | Self::TopK { input, .. }
            | Self::MixedOutput { input, .. }
            | Self::JacobianNorm { input, .. } => vec![input],
            Self::Noise { .. }
            | Self::Mask { .. }
            | Self::Signs { .. }
            | Self::UnitVector { .. }
            | Self::SpectralScale { .. }
            | Self::ParamNorm { .. }
            | Self::Update => vec![],
            Self::ScaleRows { input, scale, .. } => vec![input, scale],
            Self::SpectralGrad { grad, input, scale, left, .. } => vec![grad, input, scale, left],
            Self::Reparameterize { mean, logvar, noise, .. } => vec![mean, logvar, noise],
            Self::Erase { input, mask, .. } | Self::Permute { input, mask, .. } | Self::Shift { input, mask, .. } => {
                vec![input, mask]
            }
            Self::Multiply { a, b, .. } | Self::AddScaled { a, b, .. } => vec![a, b],
            Self::Reconstruction { prediction, target, weights, .. }
            | Self::SigmaReconstruction { prediction, target, weights, .. }
            | Self::MixedReconstruction { prediction, target, weights, .. } => {
                [prediction, target].into_iter().chain(weights).collect()
            }
            Self::TopKGrad { code, grad, .. }
            | Self::CollapsedPrior { code, grad, .. }
            | Self::CodeL1 { code, grad, .. } => vec![code, grad],
            Self::Mmd { code, prior, grad, .. } => vec![code, prior, grad],
            Self::KlDivergence { mean, logvar, mean_grad, logvar_grad, .. }
            | Self::KlBounded { mean, logvar, mean_grad, logvar_grad, .. } => {
                vec![mean, logvar, mean_grad, logvar_grad]
            }
            Self::ActGrad { saved, grad, .. } => vec![saved, grad],
            Self::ActGradGrad { saved, cotangent, adjoint, grad, .. } => vec![saved, cotangent, adjoint, grad],
            Self::ReparameterizeGrad { grad, logvar, noise, .. } => vec![grad, logvar, noise],
            Self::LinearGradInput { grad, .. } => vec![grad],
            Self::LinearGradWeight { input, grad, ref extra, .. } => {
                [input, grad].into_iter().chain(extra.iter().flat_map(|(input, grad)| [*input, *grad])).collect()
            }
        }
    }

    /// The values that the op defines.
    pub fn writes(&self) -> Vec<ValueId> {
        match *self {
            Self::Linear { output, .. }
            | Self::Act { output, .. }
            | Self::Noise { output, .. }
            | Self::Reparameterize { output, .. }
            | Self::Mask { output, .. }
            | Self::Erase { output, .. }
            | Self::Permute { output, .. }
            | Self::Shift { output, .. }
            | Self::Multiply { output, .. }
            | Self::TopK { output, .. }
            | Self::TopKGrad { output, .. }
            | Self::MixedOutput { output, .. }
            | Self::CollapsedPrior { output, .. }
            | Self::CodeL1 { output, .. }
            | Self::Mmd { output, .. }
            | Self::Signs { output, .. }
            | Self::UnitVector { output, .. }
            | Self::JacobianNorm { output, .. }
            | Self::ScaleRows { output, .. }
            | Self::SpectralGrad { output, .. }
            | Self::ActGradGrad { output, .. }
            | Self::ActGrad { output, .. }
            | Self::ReparameterizeGrad { output, .. }
            | Self::LinearGradInput { output, .. }
            | Self::AddScaled { output, .. } => vec![output],
            Self::Observe { output, weights, .. } => [output].into_iter().chain(weights).collect(),
            Self::SpectralScale { scale, left, right, .. } => [scale].into_iter().chain(left).chain(right).collect(),
            Self::Reconstruction { grad, .. }
            | Self::SigmaReconstruction { grad, .. }
            | Self::MixedReconstruction { grad, .. } => vec![grad],
            Self::KlDivergence { mean_output, logvar_output, .. }
            | Self::KlBounded { mean_output, logvar_output, .. } => vec![mean_output, logvar_output],
            Self::ParamNorm { .. } | Self::LinearGradWeight { .. } | Self::Update => vec![],
        }
    }

    /// The term of the loss that the op reports.
    pub fn term(&self) -> Option<Term> {
        match self {
            Self::Reconstruction { .. } | Self::SigmaReconstruction { .. } | Self::MixedReconstruction { .. } => {
                Some(Term::Reconstruction)
            }
            Self::CollapsedPrior { .. }
            | Self::KlDivergence { .. }
            | Self::KlBounded { .. }
            | Self::CodeL1 { .. }
            | Self::Mmd { .. } => Some(Term::Latent),
            Self::ParamNorm { .. } => Some(Term::DecoderL2),
            Self::JacobianNorm { .. } => Some(Term::Jacobian),
            _ => None,
        }
    }

    /// Whether every output element depends on the same element of each operand alone.
    pub fn is_elementwise(&self) -> bool {
        match self {
            Self::Act { .. }
            | Self::Noise { .. }
            | Self::Reparameterize { .. }
            | Self::Mask { .. }
            | Self::Erase { .. }
            | Self::Observe { .. }
            | Self::Multiply { .. }
            | Self::TopKGrad { .. }
            | Self::Reconstruction { .. }
            | Self::CollapsedPrior { .. }
            | Self::KlDivergence { .. }
            | Self::CodeL1 { .. }
            | Self::Signs { .. }
            | Self::UnitVector { .. }
            | Self::JacobianNorm { .. }
            | Self::ActGradGrad { .. }
            | Self::ActGrad { .. }
            | Self::ReparameterizeGrad { .. }
            | Self::AddScaled { .. } => true,
            Self::Linear { .. }
            | Self::Permute { .. }
            | Self::Shift { .. }
            | Self::TopK { .. }
            | Self::SigmaReconstruction { .. }
            | Self::MixedReconstruction { .. }
            | Self::MixedOutput { .. }
            | Self::KlBounded { .. }
            | Self::Mmd { .. }
            | Self::SpectralScale { .. }
            | Self::ScaleRows { .. }
            | Self::SpectralGrad { .. }
            | Self::ParamNorm { .. }
            | Self::LinearGradInput { .. }
            | Self::LinearGradWeight { .. }
            | Self::Update => false,
        }
    }

    /// Whether a row of the output depends on other rows of the batch, so that a backend which divides the rows
    /// must wait for all of them.
    pub fn couples_rows(&self) -> bool {
        matches!(
            self,
            Self::Permute { .. } | Self::SigmaReconstruction { .. } | Self::KlBounded { .. } | Self::Mmd { .. }
        )
    }
}
