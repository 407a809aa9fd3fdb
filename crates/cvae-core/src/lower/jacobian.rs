//! The Jacobian terms, as explicit propagation of cotangents.
//!
//! A cotangent `v` of a part's output is pulled back layer by layer, `g = act'(a) ⊙ u` and then `u = g·W`, to
//! `Jᵀv`. The squared norm of that is the term. Its gradient runs the other way: with `ū` the gradient of a
//! layer's pulled-back cotangent, `W` receives `gᵀ·ū`, the gradient of `g` is `ū·Wᵀ`, and what the derivative of
//! the activation receives is left in [`Layer::curvature`] for the ordinary backward pass, which then adds both
//! to the gradients it computes anyway.

use crate::lower::builder::{Builder, Layer};
use crate::objective::{Jacobian, Objective};
use crate::op::Op;
use crate::program::ValueId;
use crate::rng::Stream;
use crate::spec::Activation;

/// Emits the Jacobian term of `objective`, if it has one. `code` is the encoder's sparse code where only its
/// largest elements are kept.
pub(super) fn lower(
    b: &mut Builder<'_>,
    objective: &Objective,
    encoder: &mut [Layer],
    decoder: &mut [Layer],
    sparse_code: Option<ValueId>,
) {
    let (Some(head), Some(last)) = (encoder.last(), decoder.last()) else {
        unreachable!("validated parts have layers");
    };
    let (code, prediction) = (head.output, last.output);
    match objective.jacobian {
        Jacobian::GradientPenalty { weight } if weight > 0.0 => {
            let signs = b.emit(prediction, |output| Op::Signs { stream: Stream::Probe, output });
            squared_norm(b, decoder, weight, signs);
        }
        Jacobian::Contractive { weight } if weight > 0.0 => {
            let latent = b.graph.size(code);
            let probes = if latent <= Jacobian::EXACT_LATENT { latent } else { 1 };
            for index in 0..probes {
                let mut probe = b.emit(code, |output| match probes == latent {
                    true => Op::UnitVector { index, output },
                    false => Op::Signs { stream: Stream::Probe, output },
                });
                if let Some(code) = sparse_code {
                    probe = b.emit(probe, |output| Op::TopKGrad { code, grad: probe, output });
                }
                squared_norm(b, encoder, weight, probe);
            }
        }
        Jacobian::None | Jacobian::GradientPenalty { .. } | Jacobian::Contractive { .. } => {}
    }
}

/// Emits `weight·‖Jᵀ·cotangent‖²` for the Jacobian of `layers`, and leaves its gradients in them.
fn squared_norm(b: &mut Builder<'_>, layers: &mut [Layer], weight: f64, cotangent: ValueId) {
    let mut pulled = cotangent;
    // Of each layer, last one first: the cotangents of its output and of its pre-activation.
    let mut trace = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        let before = b.act_grad(layer, pulled);
        trace.push((pulled, before));
        pulled = b.grad_input(layer, before);
    }
    let mut adjoint = b.emit(pulled, |output| Op::JacobianNorm { weight, input: pulled, output });
    let count = layers.len();
    for (index, (layer, (cotangent, before))) in layers.iter_mut().zip(trace.into_iter().rev()).enumerate() {
        layer.pairs.push((adjoint, before));
        let last = index + 1 == count;
        if last && !has_curvature(layer.activation) {
            break;
        }
        adjoint = b.emit(before, |output| Op::Linear { input: adjoint, weight: layer.weight, bias: None, output });
        if has_curvature(layer.activation) {
            layer.curvature.push((cotangent, adjoint));
        }
        if !last {
            adjoint = b.act_grad(layer, adjoint);
        }
    }
}

/// Whether the second derivative is anything but 0.
fn has_curvature(activation: Activation) -> bool {
    match activation {
        Activation::Identity | Activation::Relu | Activation::LeakyRelu => false,
        Activation::Elu | Activation::Gelu | Activation::Silu | Activation::Tanh | Activation::Sigmoid => true,
    }
}
