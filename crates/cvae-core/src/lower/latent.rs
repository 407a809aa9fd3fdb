//! The latent terms and the code's way back to the encoder.

use crate::lower::builder::{Builder, Layer};
use crate::objective::{KlBound, Latent};
use crate::op::Op;
use crate::program::ValueId;
use crate::rng::Stream;
use crate::spec::{Activation, ModelSpec};

/// The second head of a sampled encoder.
pub(super) struct Sampled {
    logvar: Layer,
    noise: ValueId,
    /// The sample.
    pub(super) code: ValueId,
}

/// Emits the head for the log-variance, and the sample around the mean, `head`'s output.
pub(super) fn sample(b: &mut Builder<'_>, spec: &ModelSpec, head: &Layer) -> Sampled {
    let mean = head.output;
    let logvar = b.dense("logvar", head.input, Activation::Identity, spec.latent_shape());
    let noise = b.emit(mean, |output| Op::Noise { stream: Stream::Reparameterize, output });
    let variance = logvar.output;
    let code = b.emit(mean, |output| Op::Reparameterize { mean, logvar: variance, noise, output });
    Sampled { logvar, noise, code }
}

/// Adds a term on the code that the decoder reads, and returns the gradient with it.
pub(super) fn code_term(b: &mut Builder<'_>, latent: Latent, code: ValueId, grad: ValueId) -> ValueId {
    if latent.weight() == 0.0 {
        return grad;
    }
    match latent {
        Latent::Collapsed { beta } => b.emit(code, |output| Op::CollapsedPrior { beta, code, grad, output }),
        Latent::Sparse { weight } => b.emit(code, |output| Op::CodeL1 { weight, code, grad, output }),
        Latent::Mmd { weight } => {
            let prior = b.emit(code, |output| Op::Noise { stream: Stream::Prior, output });
            b.emit(code, |output| Op::Mmd { weight, code, prior, grad, output })
        }
        Latent::None | Latent::Variational { .. } | Latent::Capacity { .. } | Latent::FreeBits { .. } => grad,
    }
}

/// Backward pass of a sampled code: through the sample, the divergence and both heads to the trunk they share.
pub(super) fn sampled_grad(b: &mut Builder<'_>, latent: Latent, encoder: &[Layer], sampled: &Sampled, grad: ValueId) {
    let Some((head, trunk)) = encoder.split_last() else { unreachable!("a validated encoder has layers") };
    let (mean, logvar, noise) = (head.output, sampled.logvar.output, sampled.noise);
    let logvar_grad = b.emit(mean, |output| Op::ReparameterizeGrad { grad, logvar, noise, output });
    let (mean_grad, logvar_grad) = divergence(b, latent, (mean, logvar), (grad, logvar_grad));
    let mean_grad = b.pre_activation_grad(head, mean_grad);
    let trunk_grad = (!trunk.is_empty()).then(|| {
        let from_mean = b.grad_input(head, mean_grad);
        let from_logvar = b.grad_input(&sampled.logvar, logvar_grad);
        b.emit(from_mean, |output| Op::AddScaled { a: from_mean, b: from_logvar, scale: 1.0, output })
    });
    b.grad_weight(head, mean_grad, 0.0);
    b.grad_weight(&sampled.logvar, logvar_grad, 0.0);
    if let Some(grad) = trunk_grad {
        b.stack_grad(trunk, grad, 0.0);
    }
}

/// Adds the divergence, and returns the gradients of mean and log-variance with it.
fn divergence(
    b: &mut Builder<'_>,
    latent: Latent,
    (mean, logvar): (ValueId, ValueId),
    (mean_grad, logvar_grad): (ValueId, ValueId),
) -> (ValueId, ValueId) {
    if latent.weight() == 0.0 {
        return (mean_grad, logvar_grad);
    }
    let bound = match latent {
        Latent::Capacity { gamma, capacity } => Some(KlBound::Capacity { gamma, capacity }),
        Latent::FreeBits { beta, floor } => Some(KlBound::FreeBits { beta, floor }),
        _ => None,
    };
    let (mean_output, logvar_output) = (b.like(mean), b.like(mean));
    b.push(match bound {
        Some(bound) => Op::KlBounded { bound, mean, logvar, mean_grad, logvar_grad, mean_output, logvar_output },
        None => {
            let beta = latent.weight();
            Op::KlDivergence { beta, mean, logvar, mean_grad, logvar_grad, mean_output, logvar_output }
        }
    });
    (mean_output, logvar_output)
}
