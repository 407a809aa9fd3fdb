//! From specification and objective to a program: forward pass, derived backward pass, update.
//!
//! A term of weight 0 is not lowered at all, so that it equals its absence bit for bit.

mod builder;
mod input;
mod jacobian;
mod latent;

use crate::backend::Entry;
use crate::columns::ColumnKind;
use crate::layout::ParamLayout;
use crate::lower::builder::{Builder, Layer, Vectors};
use crate::lower::input::Input;
use crate::objective::Objective;
use crate::op::Op;
use crate::program::{Graph, ParamId, Program, ValueId};
use crate::spec::{ModelSpec, Part};

/// Lowers a validated specification and objective. `layout` is the one of `spec`.
pub(crate) fn lower(spec: &ModelSpec, objective: &Objective, layout: &ParamLayout) -> Program {
    Program {
        train: train(spec, objective, layout),
        encode: inference(spec, objective, layout, Entry::Encode),
        decode: inference(spec, objective, layout, Entry::Decode),
        reconstruct: inference(spec, objective, layout, Entry::Reconstruct),
    }
}

fn train(spec: &ModelSpec, objective: &Objective, layout: &ParamLayout) -> Graph {
    let mut b = Builder::new(layout, spec.input.clone());

    // Forward.
    let input = input::training(&mut b, objective);
    b.source = input.fed;
    let mut encoder = b.stack(spec, Part::Encoder, input.fed, false);
    let Some(head) = encoder.last() else { unreachable!("a validated encoder has layers") };
    let sampled = objective.latent.is_variational().then(|| latent::sample(&mut b, spec, head));
    let dense_code = head.output;
    let sparse_code = objective.top_k.map(|k| b.emit(dense_code, |output| Op::TopK { k, input: dense_code, output }));
    let code = sampled.as_ref().map(|sampled| sampled.code).or(sparse_code).unwrap_or(dense_code);
    b.spectral = objective.spectral_norm.then_some(Vectors::Kept);
    let mut decoder = b.stack(spec, Part::Decoder, code, objective.takes_logits());

    // Loss.
    let grad = reconstruction(&mut b, objective, &decoder, &input);
    let decay = objective.decoder_l2;
    if decay > 0.0 {
        let params = layout.params().iter().enumerate();
        let params = params.filter(|(_, param)| param.part == Part::Decoder).map(|(i, _)| ParamId(i as u32)).collect();
        b.push(Op::ParamNorm { coefficient: decay, params });
    }
    jacobian::lower(&mut b, objective, &mut encoder, &mut decoder, sparse_code);

    // Backward.
    let code_grad = b.stack_grad(&decoder, grad, decay);
    match sampled {
        Some(sampled) => latent::sampled_grad(&mut b, objective.latent, &encoder, &sampled, code_grad),
        None => {
            let mut grad = latent::code_term(&mut b, objective.latent, code, code_grad);
            if let Some(code) = sparse_code {
                grad = b.emit(code, |output| Op::TopKGrad { code, grad, output });
            }
            b.stack_grad(&encoder, grad, 0.0);
        }
    }
    b.push(Op::Update);
    b.graph
}

/// Emits the reconstruction term and returns the gradient of the prediction.
fn reconstruction(b: &mut Builder<'_>, objective: &Objective, decoder: &[Layer], input: &Input) -> ValueId {
    let Some(last) = decoder.last() else { unreachable!("a validated decoder has layers") };
    let (prediction, kind) = (last.output, objective.reconstruction);
    let Input { target, weights, .. } = *input;
    b.emit(prediction, |grad| match objective.sigma_floor {
        Some(floor) => Op::SigmaReconstruction { floor, prediction, target, weights, grad },
        None if objective.columns.is_empty() => Op::Reconstruction { kind, prediction, target, weights, grad },
        None => {
            let columns = objective.columns.clone();
            Op::MixedReconstruction { kind, columns, prediction, target, weights, grad }
        }
    })
}

fn inference(spec: &ModelSpec, objective: &Objective, layout: &ParamLayout, entry: Entry) -> Graph {
    let (input, parts): (_, &[Part]) = match entry {
        Entry::Encode => (spec.input.clone(), &[Part::Encoder]),
        Entry::Decode => (spec.latent_shape(), &[Part::Decoder]),
        Entry::Reconstruct => (spec.input.clone(), &[Part::Encoder, Part::Decoder]),
    };
    let mut b = Builder::new(layout, input);
    let mut value = b.graph.input;
    for part in parts {
        if *part == Part::Encoder && objective.missing {
            value = b.emit(value, |output| Op::Observe { input: value, output, weights: None });
        }
        b.spectral = (*part == Part::Decoder && objective.spectral_norm).then_some(Vectors::Dropped);
        let layers = b.stack(spec, *part, value, false);
        value = layers.last().map_or(value, |layer| layer.output);
        match (part, objective.top_k) {
            (Part::Encoder, Some(k)) => value = b.emit(value, |output| Op::TopK { k, input: value, output }),
            (Part::Decoder, _) if objective.columns.iter().any(|group| group.kind != ColumnKind::Numeric) => {
                let columns = objective.columns.clone();
                value = b.emit(value, |output| Op::MixedOutput { columns, input: value, output });
            }
            _ => {}
        }
    }
    b.graph.output = Some(value);
    b.graph
}
