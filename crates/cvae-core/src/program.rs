//! The intermediate representation: ops over values in single-assignment form.
//!
//! A [`Program`] has one training [`Graph`] (forward, derived backward pass, update) and one graph per
//! inference entry. Core fuses nothing and owns no buffers: a backend decides both.

use crate::backend::Entry;
use crate::error::{VerifyError, VerifyRule};
use crate::layout::ParamLayout;
use crate::objective::{Reconstruction, Term};
use crate::rng::Stream;
use crate::shape::Shape;
use crate::spec::Activation;

/// A value of a graph: `rows ×` its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

impl ValueId {
    /// Position in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A parameter of the [`ParamLayout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub u32);

impl ParamId {
    /// Position in [`ParamLayout::params`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operation. `rows` is the number of rows of the batch; every formula is in docs/MATH.md.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `output = input · Wᵀ + b`
    Linear {
        /// `rows × in`.
        input: ValueId,
        /// `W`, `[out, in]`.
        weight: ParamId,
        /// `b`, `[out]`.
        bias: Option<ParamId>,
        /// `rows × out`.
        output: ValueId,
    },
    /// `output = act(input)`, elementwise.
    Act {
        /// Which function.
        activation: Activation,
        /// Pre-activation.
        input: ValueId,
        /// Same shape.
        output: ValueId,
    },
    /// Standard normal noise of the batch's rows.
    Noise {
        /// What it is drawn for.
        stream: Stream,
        /// Filled with noise.
        output: ValueId,
    },
    /// `output = mean + e^(s/2) · noise`, with `s` the log-variance clamped to its bounds.
    Reparameterize {
        /// μ.
        mean: ValueId,
        /// s before clamping.
        logvar: ValueId,
        /// ε.
        noise: ValueId,
        /// Sampled code.
        output: ValueId,
    },
    /// The reconstruction term, averaged over rows, and its gradient (1/rows included).
    Reconstruction {
        /// Which comparison. For [`Reconstruction::Bce`] the prediction is the logits.
        kind: Reconstruction,
        /// `x'`.
        prediction: ValueId,
        /// `x`.
        target: ValueId,
        /// `∂loss/∂prediction`.
        grad: ValueId,
    },
    /// Adds the collapsed prior: term `beta·½‖z‖²`, gradient `output = grad + beta·z/rows`.
    CollapsedPrior {
        /// Weight.
        beta: f64,
        /// The code.
        code: ValueId,
        /// Gradient so far.
        grad: ValueId,
        /// Gradient with the prior.
        output: ValueId,
    },
    /// Adds the divergence: term `beta·½Σ(μ² + e^s − 1 − s)`; `mean_output = mean_grad + beta·μ/rows`,
    /// `logvar_output = logvar_grad + beta·½(e^s − 1)/rows` where `s` lies inside its bounds.
    KlDivergence {
        /// Weight.
        beta: f64,
        /// μ.
        mean: ValueId,
        /// s before clamping.
        logvar: ValueId,
        /// Gradient of μ so far.
        mean_grad: ValueId,
        /// Gradient of s so far.
        logvar_grad: ValueId,
        /// Gradient of μ with the divergence.
        mean_output: ValueId,
        /// Gradient of s with the divergence.
        logvar_output: ValueId,
    },
    /// The term `(coefficient/2)·Σ‖θ‖²` over `params`; its gradient is [`Op::LinearGradWeight`]'s `decay`.
    ParamNorm {
        /// λ.
        coefficient: f64,
        /// The parameters.
        params: Vec<ParamId>,
    },
    /// `output = grad ⊙ act'(·)`.
    ActGrad {
        /// Which function.
        activation: Activation,
        /// The activation's output if [`Activation::derivative_from_output`], else its input.
        saved: ValueId,
        /// Gradient of the activation's output.
        grad: ValueId,
        /// Gradient of the activation's input.
        output: ValueId,
    },
    /// Gradient of the log-variance through sampling: `output = grad · noise · ½e^(s/2)` inside the bounds.
    ReparameterizeGrad {
        /// Gradient of the sampled code.
        grad: ValueId,
        /// s before clamping.
        logvar: ValueId,
        /// ε.
        noise: ValueId,
        /// Gradient of s.
        output: ValueId,
    },
    /// `output = grad · W`
    LinearGradInput {
        /// `rows × out`.
        grad: ValueId,
        /// `W`, `[out, in]`.
        weight: ParamId,
        /// `rows × in`.
        output: ValueId,
    },
    /// The parameter gradients `gradᵀ · input + decay·W` and `Σ_rows grad + decay·b`.
    LinearGradWeight {
        /// `rows × in`.
        input: ValueId,
        /// `rows × out`.
        grad: ValueId,
        /// `W`.
        weight: ParamId,
        /// `b`.
        bias: Option<ParamId>,
        /// λ of the parameter regulariser.
        decay: f64,
    },
    /// `output = a + scale · b`
    AddScaled {
        /// First operand.
        a: ValueId,
        /// Second operand.
        b: ValueId,
        /// Factor of `b`.
        scale: f64,
        /// Sum.
        output: ValueId,
    },
    /// One optimiser step on every parameter; the last op of a training graph.
    Update,
}

impl Op {
    /// The op's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::Act { .. } => "act",
            Self::Noise { .. } => "noise",
            Self::Reparameterize { .. } => "reparameterize",
            Self::Reconstruction { .. } => "reconstruction",
            Self::CollapsedPrior { .. } => "collapsed_prior",
            Self::KlDivergence { .. } => "kl_divergence",
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
            Self::Linear { input, .. } | Self::Act { input, .. } => vec![input],
            Self::Noise { .. } | Self::ParamNorm { .. } | Self::Update => vec![],
            Self::Reparameterize { mean, logvar, noise, .. } => vec![mean, logvar, noise],
            Self::Reconstruction { prediction, target, .. } => vec![prediction, target],
            Self::CollapsedPrior { code, grad, .. } => vec![code, grad],
            Self::KlDivergence { mean, logvar, mean_grad, logvar_grad, .. } => {
                vec![mean, logvar, mean_grad, logvar_grad]
            }
            Self::ActGrad { saved, grad, .. } => vec![saved, grad],
            Self::ReparameterizeGrad { grad, logvar, noise, .. } => vec![grad, logvar, noise],
            Self::LinearGradInput { grad, .. } => vec![grad],
            Self::LinearGradWeight { input, grad, .. } => vec![input, grad],
            Self::AddScaled { a, b, .. } => vec![a, b],
        }
    }

    /// The values that the op defines.
    pub fn writes(&self) -> Vec<ValueId> {
        match *self {
            Self::Linear { output, .. }
            | Self::Act { output, .. }
            | Self::Noise { output, .. }
            | Self::Reparameterize { output, .. }
            | Self::CollapsedPrior { output, .. }
            | Self::ActGrad { output, .. }
            | Self::ReparameterizeGrad { output, .. }
            | Self::LinearGradInput { output, .. }
            | Self::AddScaled { output, .. } => vec![output],
            Self::Reconstruction { grad, .. } => vec![grad],
            Self::KlDivergence { mean_output, logvar_output, .. } => vec![mean_output, logvar_output],
            Self::ParamNorm { .. } | Self::LinearGradWeight { .. } | Self::Update => vec![],
        }
    }

    /// The term of the loss that the op reports.
    pub fn term(&self) -> Option<Term> {
        match self {
            Self::Reconstruction { .. } => Some(Term::Reconstruction),
            Self::CollapsedPrior { .. } | Self::KlDivergence { .. } => Some(Term::Latent),
            Self::ParamNorm { .. } => Some(Term::DecoderL2),
            _ => None,
        }
    }

    /// Whether every output element depends on the same element of each operand alone.
    pub fn is_elementwise(&self) -> bool {
        match self {
            Self::Act { .. }
            | Self::Noise { .. }
            | Self::Reparameterize { .. }
            | Self::Reconstruction { .. }
            | Self::CollapsedPrior { .. }
            | Self::KlDivergence { .. }
            | Self::ActGrad { .. }
            | Self::ReparameterizeGrad { .. }
            | Self::AddScaled { .. } => true,
            Self::Linear { .. }
            | Self::ParamNorm { .. }
            | Self::LinearGradInput { .. }
            | Self::LinearGradWeight { .. }
            | Self::Update => false,
        }
    }
}

/// Ops in execution order, over values in single-assignment form.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Shape of one row of each value.
    pub values: Vec<Shape>,
    /// The value that holds the caller's rows.
    pub input: ValueId,
    /// The value that the caller receives; none in a training graph.
    pub output: Option<ValueId>,
    /// The ops.
    pub ops: Vec<Op>,
}

impl Graph {
    /// Elements in one row of a value.
    pub fn size(&self, value: ValueId) -> usize {
        self.values[value.index()].size()
    }

    /// Index of the last op that reads each value; `None` for a value never read.
    pub fn last_uses(&self) -> Vec<Option<usize>> {
        let mut last = vec![None; self.values.len()];
        for (index, op) in self.ops.iter().enumerate() {
            for value in op.reads() {
                last[value.index()] = Some(index);
            }
        }
        last
    }

    /// Checks shapes, single definition before use and, in a training graph, exactly one gradient per
    /// parameter.
    ///
    /// # Errors
    /// The first op that breaks a rule.
    pub fn verify(&self, layout: &ParamLayout) -> Result<(), VerifyError> {
        let mut defined = vec![false; self.values.len()];
        if let Some(slot) = defined.get_mut(self.input.index()) {
            *slot = true;
        }
        for (index, op) in self.ops.iter().enumerate() {
            let fail = |rule| Err(VerifyError { op: index, rule });
            for value in op.reads() {
                if defined.get(value.index()) != Some(&true) {
                    return fail(VerifyRule::UndefinedValue(value.0));
                }
            }
            for value in op.writes() {
                match defined.get_mut(value.index()) {
                    Some(slot) if !*slot => *slot = true,
                    _ => return fail(VerifyRule::Redefinition(value.0)),
                }
            }
            if let Err(rule) = self.verify_shapes(op, layout) {
                return fail(rule);
            }
        }
        match self.output {
            Some(value) if defined.get(value.index()) != Some(&true) => {
                Err(VerifyError { op: self.ops.len(), rule: VerifyRule::UndefinedValue(value.0) })
            }
            Some(_) => Ok(()),
            None => self.verify_gradients(layout),
        }
    }

    fn verify_shapes(&self, op: &Op, layout: &ParamLayout) -> Result<(), VerifyRule> {
        let expect = |value: ValueId, expected: usize| match self.size(value) {
            found if found == expected => Ok(()),
            found => Err(VerifyRule::Size { value: value.0, expected, found }),
        };
        let linear = |weight: ParamId, bias: Option<ParamId>, input: ValueId, output: ValueId| {
            let shape = layout.get(weight).map(|param| param.shape.as_slice());
            let Some(&[rows, columns]) = shape else {
                return Err(VerifyRule::Param(weight.0));
            };
            if let Some(bias) = bias
                && layout.get(bias).map(|param| param.shape.as_slice()) != Some(&[rows])
            {
                return Err(VerifyRule::Param(bias.0));
            }
            expect(input, columns)?;
            expect(output, rows)
        };
        match *op {
            Op::Linear { input, weight, bias, output } => linear(weight, bias, input, output),
            Op::LinearGradInput { grad, weight, output } => linear(weight, None, output, grad),
            Op::LinearGradWeight { input, grad, weight, bias, .. } => linear(weight, bias, input, grad),
            Op::ParamNorm { ref params, .. } => match params.iter().find(|param| layout.get(**param).is_none()) {
                Some(param) => Err(VerifyRule::Param(param.0)),
                None => Ok(()),
            },
            _ => {
                let operands = [op.reads(), op.writes()].concat();
                let size = operands.first().map_or(0, |value| self.size(*value));
                operands.into_iter().try_for_each(|value| expect(value, size))
            }
        }
    }

    fn verify_gradients(&self, layout: &ParamLayout) -> Result<(), VerifyError> {
        let mut counts = vec![0usize; layout.params().len()];
        for op in &self.ops {
            if let Op::LinearGradWeight { weight, bias, .. } = op {
                counts[weight.index()] += 1;
                if let Some(bias) = bias {
                    counts[bias.index()] += 1;
                }
            }
        }
        match counts.iter().position(|count| *count != 1) {
            Some(param) => {
                let rule = VerifyRule::GradientCount { param: param as u32, count: counts[param] };
                Err(VerifyError { op: self.ops.len(), rule })
            }
            None => Ok(()),
        }
    }
}

/// The lowering of a plan: one graph per function.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Forward pass, backward pass, update.
    pub train: Graph,
    /// Rows to codes.
    pub encode: Graph,
    /// Codes to rows.
    pub decode: Graph,
    /// Rows to rows.
    pub reconstruct: Graph,
}

impl Program {
    /// The graph of an inference entry.
    pub fn entry(&self, entry: Entry) -> &Graph {
        match entry {
            Entry::Encode => &self.encode,
            Entry::Decode => &self.decode,
            Entry::Reconstruct => &self.reconstruct,
        }
    }

    /// Verifies every graph.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn verify(&self, layout: &ParamLayout) -> Result<(), VerifyError> {
        [&self.train, &self.encode, &self.decode, &self.reconstruct]
            .into_iter()
            .try_for_each(|graph| graph.verify(layout))
    }
}
