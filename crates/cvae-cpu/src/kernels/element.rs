//! Elementwise ops over one block: some features of one batch panel.

use cvae_core::{Activation, Reconstruction};

use super::jacobian::{self, Curvature};
use super::latent::{self, Kl};
use super::reconstruction::{self, Comparison};
use super::{activation, corruption};
use crate::simd::Simd;

/// `features` rows of `PW` batch lanes, contiguous in memory; the first `valid` lanes belong to the batch.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) features: usize,
    pub(crate) valid: usize,
}

impl Block {
    /// Offsets of the block's vectors.
    #[inline(always)]
    pub(crate) fn vectors<S: Simd>(&self) -> impl Iterator<Item = usize> + use<S> {
        (0..self.features * 2).map(|vector| vector * S::LANES)
    }

    /// Masks of the valid lanes of a feature's two vectors.
    #[inline(always)]
    pub(crate) unsafe fn masks<S: Simd>(&self) -> [S::M; 2] {
        // SAFETY: register operations only.
        unsafe { [S::first(self.valid.min(S::LANES)), S::first(self.valid.saturating_sub(S::LANES))] }
    }
}

/// An elementwise op with its operands.
#[derive(Clone, Copy)]
pub(crate) enum Element {
    Act {
        activation: Activation,
        input: *const f32,
        output: *mut f32,
    },
    ActGrad {
        activation: Activation,
        saved: *const f32,
        grad: *const f32,
        output: *mut f32,
    },
    Reconstruction {
        kind: Reconstruction,
        scale: f32,
        operands: Comparison,
    },
    CollapsedPrior {
        weight: f32,
        code: *const f32,
        grad: *const f32,
        output: *mut f32,
    },
    Kl {
        weight: f32,
        operands: Kl,
    },
    Reparameterize {
        mean: *const f32,
        logvar: *const f32,
        noise: *const f32,
        output: *mut f32,
    },
    ReparameterizeGrad {
        grad: *const f32,
        logvar: *const f32,
        noise: *const f32,
        output: *mut f32,
    },
    AddScaled {
        scale: f32,
        a: *const f32,
        b: *const f32,
        output: *mut f32,
    },
    Multiply {
        a: *const f32,
        b: *const f32,
        output: *mut f32,
    },
    /// `output = value` where `mark` is 0 (or, with `keep`, where it is not), else 0.
    Select {
        keep: bool,
        value: *const f32,
        mark: *const f32,
        output: *mut f32,
    },
    /// `weights` may be null.
    Observe {
        input: *const f32,
        output: *mut f32,
        weights: *mut f32,
    },
    CodeL1 {
        weight: f32,
        code: *const f32,
        grad: *const f32,
        output: *mut f32,
    },
    JacobianNorm {
        weight: f32,
        input: *const f32,
        output: *mut f32,
    },
    ActGradGrad {
        activation: Activation,
        operands: Curvature,
    },
}

/// Runs `op` over a block; returns its share of a loss term, 0 for ops without one.
///
/// # Safety
/// A block of floats behind every pointer of `op`; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn element<S: Simd>(block: &Block, op: &Element) -> f64 {
    // SAFETY: as promised by the caller.
    unsafe {
        match *op {
            Element::Act { activation, input, output } => activation::act::<S>(block, activation, input, output),
            Element::ActGrad { activation, saved, grad, output } => {
                activation::act_grad::<S>(block, activation, saved, grad, output);
            }
            Element::Reconstruction { kind, scale, ref operands } => {
                return reconstruction::reconstruction::<S>(block, kind, scale, operands);
            }
            Element::CollapsedPrior { weight, code, grad, output } => {
                return latent::collapsed_prior::<S>(block, weight, code, grad, output);
            }
            Element::Kl { weight, ref operands } => return latent::kl_divergence::<S>(block, weight, operands),
            Element::Reparameterize { mean, logvar, noise, output } => {
                latent::reparameterize::<S>(block, mean, logvar, noise, output);
            }
            Element::ReparameterizeGrad { grad, logvar, noise, output } => {
                latent::reparameterize_grad::<S>(block, grad, logvar, noise, output);
            }
            Element::AddScaled { scale, a, b, output } => {
                for at in block.vectors::<S>() {
                    let sum = S::fma(S::splat(scale), S::load(b.add(at)), S::load(a.add(at)));
                    S::store(output.add(at), sum);
                }
            }
            Element::Multiply { a, b, output } => {
                for at in block.vectors::<S>() {
                    S::store(output.add(at), S::mul(S::load(a.add(at)), S::load(b.add(at))));
                }
            }
            Element::Select { keep, value, mark, output } => corruption::select::<S>(block, keep, value, mark, output),
            Element::Observe { input, output, weights } => corruption::observe::<S>(block, input, output, weights),
            Element::CodeL1 { weight, code, grad, output } => {
                return latent::code_l1::<S>(block, weight, code, grad, output);
            }
            Element::JacobianNorm { weight, input, output } => {
                return jacobian::norm::<S>(block, weight, input, output);
            }
            Element::ActGradGrad { activation, ref operands } => {
                jacobian::act_grad_grad::<S>(block, activation, operands);
            }
        }
    }
    0.0
}
