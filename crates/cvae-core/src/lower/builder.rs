//! Layers, forward and backward, as ops.

use crate::layout::ParamLayout;
use crate::objective::Objective;
use crate::op::Op;
use crate::program::{Graph, ParamId, ValueId};
use crate::shape::Shape;
use crate::spec::{Activation, ModelSpec, Part};

/// A dense layer of the forward pass, as the backward pass needs it.
pub(super) struct Layer {
    pub(super) input: ValueId,
    pub(super) weight: ParamId,
    pub(super) bias: Option<ParamId>,
    pub(super) activation: Activation,
    /// Value that the activation's derivative is computed from.
    pub(super) saved: ValueId,
    pub(super) output: ValueId,
    /// Further (input, grad) pairs of the weight's gradient.
    pub(super) pairs: Vec<(ValueId, ValueId)>,
    /// (cotangent, adjoint) pairs: their products with the second derivative of the activation are gradients of
    /// the pre-activation.
    pub(super) curvature: Vec<(ValueId, ValueId)>,
    /// What divides the weight by its largest singular value.
    spectral: Option<Spectral>,
}

/// The outputs of [`Op::SpectralScale`]. The layer's input is multiplied by the scale instead of its weight.
#[derive(Clone, Copy)]
struct Spectral {
    scale: ValueId,
    /// Left and right vector, in a graph with a backward pass.
    vectors: Option<(ValueId, ValueId)>,
}

pub(super) struct Builder<'a> {
    layout: &'a ParamLayout,
    pub(super) graph: Graph,
    /// The value that the network reads, whose gradient nothing needs.
    pub(super) source: ValueId,
    /// Whether the weights of the next layers are divided by their largest singular values, and whether the
    /// backward pass needs the singular vectors.
    pub(super) spectral: Option<Vectors>,
}

/// Whether [`Op::SpectralScale`] leaves its vectors.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Vectors {
    Kept,
    Dropped,
}

impl<'a> Builder<'a> {
    pub(super) fn new(layout: &'a ParamLayout, input: Shape) -> Self {
        let input_id = ValueId(0);
        let graph = Graph { values: vec![input], input: input_id, output: None, ops: vec![] };
        Self { layout, graph, source: input_id, spectral: None }
    }

    pub(super) fn value(&mut self, shape: Shape) -> ValueId {
        self.graph.values.push(shape);
        ValueId(self.graph.values.len() as u32 - 1)
    }

    pub(super) fn like(&mut self, value: ValueId) -> ValueId {
        self.value(self.graph.values[value.index()].clone())
    }

    pub(super) fn push(&mut self, op: Op) {
        self.graph.ops.push(op);
    }

    /// Emits an op with one output of the shape of `value`, and returns that output.
    pub(super) fn emit(&mut self, value: ValueId, op: impl FnOnce(ValueId) -> Op) -> ValueId {
        let output = self.like(value);
        self.push(op(output));
        output
    }

    /// Emits the dense layer whose parameters are `name.weight` and `name.bias`.
    pub(super) fn dense(&mut self, name: &str, input: ValueId, activation: Activation, shape: Shape) -> Layer {
        let find = |suffix: &str| self.layout.find(&format!("{name}.{suffix}")).map(|(id, _)| id);
        let Some(weight) = find("weight") else {
            unreachable!("the layout is built from the same specification");
        };
        let bias = find("bias");
        let (input, spectral) = match self.spectral {
            Some(vectors) => self.scaled(weight, input, &shape, vectors),
            None => (input, None),
        };
        let linear = self.value(shape);
        self.push(Op::Linear { input, weight, bias, output: linear });
        let output = if activation == Activation::Identity {
            linear
        } else {
            self.emit(linear, |output| Op::Act { activation, input: linear, output })
        };
        let saved = if activation.derivative_from_output() { output } else { linear };
        Layer { input, weight, bias, activation, saved, output, pairs: vec![], curvature: vec![], spectral }
    }

    /// Emits the scale of a weight, and the layer's input multiplied by it.
    fn scaled(
        &mut self,
        weight: ParamId,
        input: ValueId,
        shape: &Shape,
        vectors: Vectors,
    ) -> (ValueId, Option<Spectral>) {
        let scale = self.value(Shape::flat(1));
        let vectors = (vectors == Vectors::Kept).then(|| (self.value(shape.clone()), self.like(input)));
        let (left, right) = vectors.unzip();
        self.push(Op::SpectralScale { weight, iterations: Objective::SPECTRAL_ITERATIONS, scale, left, right });
        let output = self.emit(input, |output| Op::ScaleRows { input, scale, output });
        (output, Some(Spectral { scale, vectors }))
    }

    /// Emits the layers of a part; `logits` leaves out the activation of the last one.
    pub(super) fn stack(&mut self, spec: &ModelSpec, part: Part, input: ValueId, logits: bool) -> Vec<Layer> {
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
    pub(super) fn stack_grad(&mut self, layers: &[Layer], mut grad: ValueId, decay: f64) -> ValueId {
        for layer in layers.iter().rev() {
            grad = self.pre_activation_grad(layer, grad);
            let output = (layer.input != self.source).then(|| self.grad_input(layer, grad));
            match (layer.spectral, output) {
                (Some(Spectral { scale, vectors: Some((left, right)) }), Some(input_grad)) => {
                    let input = layer.input;
                    let along =
                        self.emit(left, |output| Op::SpectralGrad { grad: input_grad, input, scale, left, output });
                    self.push_grad_weight(layer, grad, decay, vec![(right, along)]);
                    grad = self.emit(input_grad, |output| Op::ScaleRows { input: input_grad, scale, output });
                }
                _ => {
                    self.grad_weight(layer, grad, decay);
                    grad = output.unwrap_or(grad);
                }
            }
        }
        grad
    }

    /// `grad ⊙ act'(·)`
    pub(super) fn act_grad(&mut self, layer: &Layer, grad: ValueId) -> ValueId {
        let Layer { activation, saved, .. } = *layer;
        if activation == Activation::Identity {
            return grad;
        }
        self.emit(grad, |output| Op::ActGrad { activation, saved, grad, output })
    }

    /// The gradient of a layer's pre-activation from that of its output and from the Jacobian term.
    pub(super) fn pre_activation_grad(&mut self, layer: &Layer, grad: ValueId) -> ValueId {
        let Layer { activation, saved, .. } = *layer;
        let mut grad = self.act_grad(layer, grad);
        for (cotangent, adjoint) in layer.curvature.iter().copied() {
            grad = self.emit(grad, |output| Op::ActGradGrad { activation, saved, cotangent, adjoint, grad, output });
        }
        grad
    }

    pub(super) fn grad_input(&mut self, layer: &Layer, grad: ValueId) -> ValueId {
        self.emit(layer.input, |output| Op::LinearGradInput { grad, weight: layer.weight, output })
    }

    pub(super) fn grad_weight(&mut self, layer: &Layer, grad: ValueId, decay: f64) {
        self.push_grad_weight(layer, grad, decay, layer.pairs.clone());
    }

    fn push_grad_weight(&mut self, layer: &Layer, grad: ValueId, decay: f64, extra: Vec<(ValueId, ValueId)>) {
        let Layer { input, weight, bias, .. } = *layer;
        self.push(Op::LinearGradWeight { input, grad, weight, bias, decay, extra });
    }
}
