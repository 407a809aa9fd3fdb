//! Elementwise ops with their operands behind pointers.

use cvae_core::{Op, Reconstruction, ValueId};

use crate::kernels::element::Element;
use crate::kernels::jacobian::Curvature;
use crate::kernels::latent::Kl;
use crate::kernels::reconstruction::Comparison;
use crate::run::Pass;

/// What an op of a program is to this backend.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A matrix product, the norm of parameters or the update, each with phases of its own.
    Structural,
    /// Every output element depends on the same element of the operands: part of the phase before.
    Elementwise,
    /// Drawn from the generator.
    Drawn,
    /// Depends on whole rows or on the whole batch.
    Coupled,
}

impl Class {
    /// The class of `op`.
    pub(crate) fn of(op: &Op) -> Self {
        match op {
            Op::Linear { .. }
            | Op::LinearGradInput { .. }
            | Op::LinearGradWeight { .. }
            | Op::ParamNorm { .. }
            | Op::Update => Self::Structural,
            Op::Noise { .. } | Op::Mask { .. } | Op::Signs { .. } | Op::UnitVector { .. } => Self::Drawn,
            Op::Permute { .. }
            | Op::Shift { .. }
            | Op::TopK { .. }
            | Op::SigmaReconstruction { .. }
            | Op::MixedReconstruction { .. }
            | Op::MixedOutput { .. }
            | Op::KlBounded { .. }
            | Op::SpectralScale { .. }
            | Op::ScaleRows { .. }
            | Op::SpectralGrad { .. }
            | Op::Mmd { .. } => Self::Coupled,
            Op::Act { .. }
            | Op::Reparameterize { .. }
            | Op::Erase { .. }
            | Op::Observe { .. }
            | Op::Multiply { .. }
            | Op::TopKGrad { .. }
            | Op::Reconstruction { .. }
            | Op::CollapsedPrior { .. }
            | Op::KlDivergence { .. }
            | Op::CodeL1 { .. }
            | Op::JacobianNorm { .. }
            | Op::ActGrad { .. }
            | Op::ActGradGrad { .. }
            | Op::ReparameterizeGrad { .. }
            | Op::AddScaled { .. } => Self::Elementwise,
        }
    }
}

/// The kernel call of an elementwise op on values `width` features wide; `at` gives where each operand's block
/// starts.
pub(crate) fn element(pass: &Pass, op: &Op, width: usize, at: impl Fn(ValueId) -> *mut f32) -> Element {
    let rows = pass.rows as f64;
    let weight = |weight: f64| (weight / rows) as f32;
    match *op {
        Op::Act { activation, input, output } => Element::Act { activation, input: at(input), output: at(output) },
        Op::ActGrad { activation, saved, grad, output } => {
            Element::ActGrad { activation, saved: at(saved), grad: at(grad), output: at(output) }
        }
        Op::ActGradGrad { activation, saved, cotangent, adjoint, grad, output } => {
            let operands = Curvature {
                saved: at(saved),
                cotangent: at(cotangent),
                adjoint: at(adjoint),
                grad: at(grad),
                output: at(output),
            };
            Element::ActGradGrad { activation, operands }
        }
        Op::Reconstruction { kind, prediction, target, weights, grad } => {
            let count = if kind == Reconstruction::MseMean { rows * width as f64 } else { rows };
            let operands = Comparison {
                prediction: at(prediction),
                target: at(target),
                weights: weights.map_or(std::ptr::null(), |weights| at(weights).cast_const()),
                grad: at(grad),
            };
            Element::Reconstruction { kind, scale: (1.0 / count) as f32, operands }
        }
        Op::CollapsedPrior { beta, code, grad, output } => {
            Element::CollapsedPrior { weight: weight(beta), code: at(code), grad: at(grad), output: at(output) }
        }
        Op::CodeL1 { weight: factor, code, grad, output } => {
            Element::CodeL1 { weight: weight(factor), code: at(code), grad: at(grad), output: at(output) }
        }
        Op::KlDivergence { beta, mean, logvar, mean_grad, logvar_grad, mean_output, logvar_output } => {
            let operands = Kl {
                mean: at(mean),
                logvar: at(logvar),
                mean_grad: at(mean_grad),
                logvar_grad: at(logvar_grad),
                mean_output: at(mean_output),
                logvar_output: at(logvar_output),
            };
            Element::Kl { weight: weight(beta), operands }
        }
        Op::Reparameterize { mean, logvar, noise, output } => {
            Element::Reparameterize { mean: at(mean), logvar: at(logvar), noise: at(noise), output: at(output) }
        }
        Op::ReparameterizeGrad { grad, logvar, noise, output } => {
            Element::ReparameterizeGrad { grad: at(grad), logvar: at(logvar), noise: at(noise), output: at(output) }
        }
        Op::AddScaled { a, b, scale, output } => {
            Element::AddScaled { scale: scale as f32, a: at(a), b: at(b), output: at(output) }
        }
        Op::Multiply { a, b, output } => Element::Multiply { a: at(a), b: at(b), output: at(output) },
        Op::Erase { input, mask, output } => {
            Element::Select { keep: false, value: at(input), mark: at(mask), output: at(output) }
        }
        Op::TopKGrad { code, grad, output } => {
            Element::Select { keep: true, value: at(grad), mark: at(code), output: at(output) }
        }
        Op::Observe { input, output, weights } => Element::Observe {
            input: at(input),
            output: at(output),
            weights: weights.map_or(std::ptr::null_mut(), &at),
        },
        Op::JacobianNorm { weight: factor, input, output } => {
            Element::JacobianNorm { weight: weight(factor), input: at(input), output: at(output) }
        }
        _ => unreachable!("{op} is not elementwise"),
    }
}
