//! From specification and objective to a program: forward pass, derived backward pass, update.
//!
//! A term of weight 0 is not lowered at all, so that it equals its absence bit for bit.

use crate::backend::Entry;
use crate::layout::ParamLayout;
use crate::objective::{Latent, Objective, Reconstruction};
use crate::program::{Graph, Op, ParamId, Program, ValueId};
use crate::rng::Stream;
use crate::shape::Shape;
use crate::spec::{Activation, ModelSpec, Part};

/// Lowers a validated specification and objective. `layout` is the one of `spec`.
pub(crate) fn lower(spec: &ModelSpec, objective: &Objective, layout: &ParamLayout) -> Program {
    Program {
        train: train(spec, objective, layout),
        encode: inference(spec, layout, Entry::Encode),
        decode: inference(spec, layout, Entry::Decode),
        reconstruct: inference(spec, layout, Entry::Reconstruct),
    }
}

/// A dense layer of the forward pass, as the backward pass needs it.
struct Layer {
    input: ValueId,
    weight: ParamId,
    bias: Option<ParamId>,
    activation: Activation,
    /// Value that the activation's derivative is computed from.
    saved: ValueId,
    output: ValueId,
}

struct Builder<'a> {
    layout: &'a ParamLayout,
    graph: Graph,
}

impl<'a> Builder<'a> {
    fn new(layout: &'a ParamLayout, input: Shape) -> Self {
        Self { layout, graph: Graph { values: vec![input], input: ValueId(0), output: None, ops: vec![] } }
    }

    fn value(&mut self, shape: Shape) -> ValueId {
        self.graph.values.push(shape);
        ValueId(self.graph.values.len() as u32 - 1)
    }

    fn like(&mut self, value: ValueId) -> ValueId {
        self.value(self.graph.values[value.index()].clone())
    }

    fn push(&mut self, op: Op) {
        self.graph.ops.push(op);
    }

    /// Emits the dense layer whose parameters are `name.weight` and `name.bias`.
    fn dense(&mut self, name: &str, input: ValueId, activation: Activation, shape: Shape) -> Layer {
        let find = |suffix: &str| self.layout.find(&format!("{name}.{suffix}")).map(|(id, _)| id);
        let Some(weight) = find("weight") else {
            unreachable!("the layout is built from the same specification");
        };
        let bias = find("bias");
        let linear = self.value(shape);
        self.push(Op::Linear { input, weight, bias, output: linear });
        let output = if activation == Activation::Identity {
            linear
        } else {
            let output = self.like(linear);
            self.push(Op::Act { activation, input: linear, output });
            output
        };
        let saved = if activation.derivative_from_output() { output } else { linear };
        Layer { input, weight, bias, activation, saved, output }
    }

    /// Emits the layers of a part; `logits` leaves out the activation of the last one.
    fn stack(&mut self, spec: &ModelSpec, part: Part, input: ValueId, logits: bool) -> Vec<Layer> {
        let mut layers: Vec<Layer> = vec![];
        for (index, layer) in spec.layers(part).iter().enumerate() {
            let last = index + 1 == spec.layers(part).len();
            let activation = if logits && last { Activation::Identity } else { layer.activation() };
            let input = layers.last().map_or(input, |previous| previous.output);
            let shape = layer.output(&self.graph.values[input.index()]);
            layers.push(self.dense(&format!("{part}.{}", 2 * index), input, activation, shape));
        }
        layers
    }

    /// Backward pass of a stack: from the gradient of its output to that of its input, which is not
    /// computed for the network's own input.
    fn stack_grad(&mut self, layers: &[Layer], mut grad: ValueId, decay: f64) -> ValueId {
        for layer in layers.iter().rev() {
            grad = self.act_grad(layer, grad);
            let output = (layer.input != self.graph.input).then(|| self.grad_input(layer, grad));
            self.grad_weight(layer, grad, decay);
            grad = output.unwrap_or(grad);
        }
        grad
    }

    fn act_grad(&mut self, layer: &Layer, grad: ValueId) -> ValueId {
        if layer.activation == Activation::Identity {
            return grad;
        }
        let output = self.like(grad);
        self.push(Op::ActGrad { activation: layer.activation, saved: layer.saved, grad, output });
        output
    }

    fn grad_input(&mut self, layer: &Layer, grad: ValueId) -> ValueId {
        let output = self.like(layer.input);
        self.push(Op::LinearGradInput { grad, weight: layer.weight, output });
        output
    }

    fn grad_weight(&mut self, layer: &Layer, grad: ValueId, decay: f64) {
        let Layer { input, weight, bias, .. } = *layer;
        self.push(Op::LinearGradWeight { input, grad, weight, bias, decay });
    }
}

fn train(spec: &ModelSpec, objective: &Objective, layout: &ParamLayout) -> Graph {
    let mut b = Builder::new(layout, spec.input.clone());
    let target = b.graph.input;

    // Forward.
    let encoder = b.stack(spec, Part::Encoder, target, false);
    let Some(head) = encoder.last() else { unreachable!("a validated encoder has layers") };
    let code = head.output;
    let sampled = objective.latent.is_variational().then(|| {
        let logvar = b.dense("logvar", head.input, Activation::Identity, spec.latent_shape());
        let noise = b.like(code);
        b.push(Op::Noise { stream: Stream::Reparameterize, output: noise });
        let output = b.like(code);
        b.push(Op::Reparameterize { mean: code, logvar: logvar.output, noise, output });
        (logvar, noise, output)
    });
    let decoder_input = sampled.as_ref().map_or(code, |(_, _, output)| *output);
    let from_logits = objective.reconstruction == Reconstruction::Bce;
    let decoder = b.stack(spec, Part::Decoder, decoder_input, from_logits);
    let Some(last) = decoder.last() else { unreachable!("a validated decoder has layers") };

    // Loss.
    let prediction = last.output;
    let grad = b.like(prediction);
    b.push(Op::Reconstruction { kind: objective.reconstruction, prediction, target, grad });
    let decay = objective.decoder_l2;
    if decay > 0.0 {
        let params = layout.params().iter().enumerate();
        let params = params.filter(|(_, param)| param.part == Part::Decoder).map(|(i, _)| ParamId(i as u32)).collect();
        b.push(Op::ParamNorm { coefficient: decay, params });
    }

    // Backward.
    let code_grad = b.stack_grad(&decoder, grad, decay);
    match sampled {
        None => {
            let grad = match objective.latent {
                Latent::Collapsed { beta } if beta > 0.0 => {
                    let output = b.like(code);
                    b.push(Op::CollapsedPrior { beta, code, grad: code_grad, output });
                    output
                }
                _ => code_grad,
            };
            b.stack_grad(&encoder, grad, 0.0);
        }
        Some((logvar, noise, _)) => {
            let logvar_grad = b.like(code);
            b.push(Op::ReparameterizeGrad { grad: code_grad, logvar: logvar.output, noise, output: logvar_grad });
            let (mean_grad, logvar_grad) = match objective.latent {
                Latent::Variational { beta } if beta > 0.0 => {
                    let (mean_output, logvar_output) = (b.like(code), b.like(code));
                    b.push(Op::KlDivergence {
                        beta,
                        mean: code,
                        logvar: logvar.output,
                        mean_grad: code_grad,
                        logvar_grad,
                        mean_output,
                        logvar_output,
                    });
                    (mean_output, logvar_output)
                }
                _ => (code_grad, logvar_grad),
            };
            heads_grad(&mut b, &encoder, &logvar, mean_grad, logvar_grad);
        }
    }
    b.push(Op::Update);
    b.graph
}

/// Backward pass of the two heads of a variational encoder and of the trunk they share.
fn heads_grad(b: &mut Builder<'_>, encoder: &[Layer], logvar: &Layer, mean_grad: ValueId, logvar_grad: ValueId) {
    let Some((head, trunk)) = encoder.split_last() else { unreachable!("a validated encoder has layers") };
    let mean_grad = b.act_grad(head, mean_grad);
    let trunk_grad = (!trunk.is_empty()).then(|| {
        let from_mean = b.grad_input(head, mean_grad);
        let from_logvar = b.grad_input(logvar, logvar_grad);
        let output = b.like(from_mean);
        b.push(Op::AddScaled { a: from_mean, b: from_logvar, scale: 1.0, output });
        output
    });
    b.grad_weight(head, mean_grad, 0.0);
    b.grad_weight(logvar, logvar_grad, 0.0);
    if let Some(grad) = trunk_grad {
        b.stack_grad(trunk, grad, 0.0);
    }
}

fn inference(spec: &ModelSpec, layout: &ParamLayout, entry: Entry) -> Graph {
    let (input, parts): (_, &[Part]) = match entry {
        Entry::Encode => (spec.input.clone(), &[Part::Encoder]),
        Entry::Decode => (spec.latent_shape(), &[Part::Decoder]),
        Entry::Reconstruct => (spec.input.clone(), &[Part::Encoder, Part::Decoder]),
    };
    let mut b = Builder::new(layout, input);
    let mut value = b.graph.input;
    for part in parts {
        let layers = b.stack(spec, *part, value, false);
        value = layers.last().map_or(value, |layer| layer.output);
    }
    b.graph.output = Some(value);
    b.graph
}
