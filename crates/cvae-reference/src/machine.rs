//! The interpreter: runs the ops of a program one after the other over `f64` buffers.

use std::sync::Arc;

use cvae_core::{CompileError, Graph, Noise, Op, ParamId, Plan, Stream, Term, ValueId};

use crate::jacobian::Curvature;
use crate::latent::Posterior;
use crate::optimizer::Tensors;
use crate::reconstruction::Comparison;
use crate::{activation, code, corruption, jacobian, latent, linear, optimizer, reconstruction, spectral};

/// What the ops of a graph act on besides its values.
pub(crate) struct Machine {
    pub(crate) plan: Arc<Plan>,
    pub(crate) tensors: Tensors,
    /// Gradients of the last pass, unclipped.
    pub(crate) grads: Vec<f64>,
    /// Terms of the last pass.
    pub(crate) terms: [f64; Term::COUNT],
    /// Epoch and row numbers of the batch: the noise position of each of its rows.
    pub(crate) epoch: u32,
    pub(crate) row_numbers: Vec<u32>,
    /// One row of noise.
    pub(crate) noise: Vec<f32>,
}

/// One buffer per value of a graph, each with room for `max_rows` rows.
pub(crate) struct Values {
    buffers: Vec<Vec<f64>>,
    /// Elements of one row of each value.
    sizes: Vec<usize>,
}

impl Values {
    pub(crate) fn new(graph: &Graph, max_rows: usize) -> Result<Self, CompileError> {
        let sizes: Vec<usize> = graph.values.iter().map(|shape| shape.size()).collect();
        let allocate = |size: &usize| zeros(max_rows.saturating_mul(*size), "the values of a batch");
        Ok(Self { buffers: sizes.iter().map(allocate).collect::<Result<_, _>>()?, sizes })
    }

    /// The first `rows` rows of a value.
    pub(crate) fn get(&self, value: ValueId, rows: usize) -> &[f64] {
        &self.buffers[value.index()][..rows * self.sizes[value.index()]]
    }

    pub(crate) fn get_mut(&mut self, value: ValueId, rows: usize) -> &mut [f64] {
        &mut self.buffers[value.index()][..rows * self.sizes[value.index()]]
    }

    /// Computes a value from the others: its buffer is moved out while `compute` fills the first `rows` rows.
    fn define<T>(&mut self, value: ValueId, rows: usize, compute: impl FnOnce(&mut Self, &mut [f64]) -> T) -> T {
        let mut buffer = std::mem::take(&mut self.buffers[value.index()]);
        let result = compute(self, &mut buffer[..rows * self.sizes[value.index()]]);
        self.buffers[value.index()] = buffer;
        result
    }

    /// Prediction, target and weights of a reconstruction term.
    fn comparison(
        &self,
        prediction: ValueId,
        target: ValueId,
        weights: Option<ValueId>,
        rows: usize,
    ) -> Comparison<'_> {
        Comparison {
            prediction: self.get(prediction, rows),
            target: self.get(target, rows),
            weights: weights.map(|weights| self.get(weights, rows)),
            rows,
        }
    }
}

pub(crate) fn zeros<T: Clone + Default>(len: usize, what: &'static str) -> Result<Vec<T>, CompileError> {
    let mut vector = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    vector.try_reserve_exact(len).map_err(|_| CompileError::Memory { bytes, what })?;
    vector.resize(len, T::default());
    Ok(vector)
}

impl Machine {
    /// A parameter's elements.
    fn param(&self, id: ParamId) -> &[f64] {
        &self.tensors.params[self.plan.params.params()[id.index()].range()]
    }

    /// Runs every op of a graph but [`Op::Update`], which is the optimiser's.
    pub(crate) fn run(&mut self, graph: &Graph, values: &mut Values, rows: usize) {
        for op in &graph.ops {
            self.run_op(op, values, rows);
        }
    }

    /// The random numbers of a stream in the batch's epoch.
    fn source(&self, stream: Stream) -> Noise {
        Noise::new(self.plan.seed, stream, self.epoch)
    }

    /// Fills a value row by row with the numbers that `fill` makes of a stream.
    fn draw(
        &mut self,
        stream: Stream,
        values: &mut Values,
        output: ValueId,
        rows: usize,
        fill: impl Fn(Noise, u32, &mut [f32]),
    ) {
        let source = self.source(stream);
        let size = values.sizes[output.index()];
        let out = values.get_mut(output, rows);
        for (row, out) in self.row_numbers.iter().zip(out.chunks_exact_mut(size)) {
            fill(source, *row, &mut self.noise[..size]);
            out.iter_mut().zip(&self.noise).for_each(|(wide, narrow)| *wide = f64::from(*narrow));
        }
    }

    /// Adds an op's share of a term.
    fn report(&mut self, term: Term, share: f64) {
        self.terms[term.index()] += share;
    }

    fn run_op(&mut self, op: &Op, values: &mut Values, rows: usize) {
        match *op {
            Op::Linear { input, weight, bias, output } => {
                let (w, b) = (self.param(weight), bias.map(|bias| self.param(bias)));
                let width = values.sizes[input.index()];
                values.define(output, rows, |values, out| linear::forward(values.get(input, rows), w, b, width, out));
            }
            Op::Act { activation, input, output } => {
                values.define(output, rows, |values, out| {
                    activation::forward(activation, values.get(input, rows), out);
                });
            }
            Op::Noise { stream, output } => self.draw(stream, values, output, rows, Noise::normal),
            Op::Signs { stream, output } => self.draw(stream, values, output, rows, Noise::signs),
            Op::Reparameterize { mean, logvar, noise, output } => {
                values.define(output, rows, |values, out| {
                    let posterior = Posterior { mean: values.get(mean, rows), logvar: values.get(logvar, rows) };
                    latent::reparameterize(&posterior, values.get(noise, rows), out);
                });
            }
            Op::Reconstruction { kind, prediction, target, weights, grad } => {
                let term = values.define(grad, rows, |values, out| {
                    reconstruction::loss(kind, &values.comparison(prediction, target, weights, rows), out)
                });
                self.report(Term::Reconstruction, term);
            }
            Op::SigmaReconstruction { floor, prediction, target, weights, grad } => {
                let term = values.define(grad, rows, |values, out| {
                    reconstruction::sigma_loss(floor, &values.comparison(prediction, target, weights, rows), out)
                });
                self.report(Term::Reconstruction, term);
            }
            Op::MixedReconstruction { kind, ref columns, prediction, target, weights, grad } => {
                let term = values.define(grad, rows, |values, out| {
                    let batch = values.comparison(prediction, target, weights, rows);
                    reconstruction::mixed_loss(kind, columns, &batch, out)
                });
                self.report(Term::Reconstruction, term);
            }
            Op::MixedOutput { ref columns, input, output } => {
                let width = values.sizes[input.index()];
                values.define(output, rows, |values, out| {
                    reconstruction::mixed_output(columns, width, values.get(input, rows), out);
                });
            }
            Op::Observe { input, output, weights } => {
                values.define(output, rows, |values, out| corruption::observe(values.get(input, rows), out));
                if let Some(weights) = weights {
                    values.define(weights, rows, |values, out| {
                        corruption::observed(values.get(input, rows), out);
                    });
                }
            }
            Op::Mask { share, ref units, output } => {
                let noise = self.source(Stream::Corrupt);
                corruption::mask(noise, &self.row_numbers, share, units, values.get_mut(output, rows));
            }
            Op::Erase { input, mask, output } => {
                values.define(output, rows, |values, out| {
                    corruption::erase(values.get(input, rows), values.get(mask, rows), out);
                });
            }
            Op::Permute { input, mask, ref units, output } => {
                let noise = self.source(Stream::Permute);
                values.define(output, rows, |values, out| {
                    let (input, mask) = (values.get(input, rows), values.get(mask, rows));
                    corruption::permute(noise, &self.row_numbers, units, input, mask, out);
                });
            }
            Op::Shift { input, mask, shift, output } => {
                let noise = self.source(Stream::Permute);
                values.define(output, rows, |values, out| {
                    let (input, mask) = (values.get(input, rows), values.get(mask, rows));
                    corruption::shift(noise, &self.row_numbers, shift, input, mask, out);
                });
            }
            Op::Multiply { a, b, output } => {
                values.define(output, rows, |values, out| {
                    for ((out, a), b) in out.iter_mut().zip(values.get(a, rows)).zip(values.get(b, rows)) {
                        *out = a * b;
                    }
                });
            }
            Op::TopK { k, input, output } => {
                let width = values.sizes[input.index()];
                values.define(output, rows, |values, out| code::top_k(k, width, values.get(input, rows), out));
            }
            Op::TopKGrad { code, grad, output } => {
                values.define(output, rows, |values, out| {
                    code::top_k_grad(values.get(code, rows), values.get(grad, rows), out);
                });
            }
            Op::CodeL1 { weight, code, grad, output } => {
                let term = values.define(output, rows, |values, out| {
                    code::l1(weight, values.get(code, rows), values.get(grad, rows), rows, out)
                });
                self.report(Term::Latent, term);
            }
            Op::Mmd { weight, code, prior, grad, output } => {
                let width = values.sizes[code.index()];
                let term = values.define(output, rows, |values, out| {
                    let (code, prior) = (values.get(code, rows), values.get(prior, rows));
                    code::mmd(weight, width, code, prior, values.get(grad, rows), out)
                });
                self.report(Term::Latent, term);
            }
            Op::KlBounded { bound, mean, logvar, mean_grad, logvar_grad, mean_output, logvar_output } => {
                let width = values.sizes[mean.index()];
                let term = values.define(mean_output, rows, |values, mean_out| {
                    values.define(logvar_output, rows, |values, logvar_out| {
                        let posterior = Posterior { mean: values.get(mean, rows), logvar: values.get(logvar, rows) };
                        let grad =
                            Posterior { mean: values.get(mean_grad, rows), logvar: values.get(logvar_grad, rows) };
                        let mut out = Posterior { mean: mean_out, logvar: logvar_out };
                        latent::kl_bounded(bound, width, &posterior, &grad, &mut out)
                    })
                });
                self.report(Term::Latent, term);
            }
            Op::UnitVector { index, output } => {
                let width = values.sizes[output.index()];
                jacobian::unit_vector(index, width, values.get_mut(output, rows));
            }
            Op::JacobianNorm { weight, input, output } => {
                let term = values
                    .define(output, rows, |values, out| jacobian::norm(weight, values.get(input, rows), rows, out));
                self.report(Term::Jacobian, term);
            }
            Op::ActGradGrad { activation, saved, cotangent, adjoint, grad, output } => {
                values.define(output, rows, |values, out| {
                    let operands = Curvature {
                        saved: values.get(saved, rows),
                        cotangent: values.get(cotangent, rows),
                        adjoint: values.get(adjoint, rows),
                        grad: values.get(grad, rows),
                    };
                    jacobian::act_grad_grad(activation, &operands, out);
                });
            }
            Op::CollapsedPrior { beta, code, grad, output } => {
                self.terms[Term::Latent.index()] += values.define(output, rows, |values, out| {
                    latent::collapsed_prior(beta, values.get(code, rows), values.get(grad, rows), rows, out)
                });
            }
            Op::KlDivergence { beta, mean, logvar, mean_grad, logvar_grad, mean_output, logvar_output } => {
                self.terms[Term::Latent.index()] += values.define(mean_output, rows, |values, mean_out| {
                    values.define(logvar_output, rows, |values, logvar_out| {
                        let posterior = Posterior { mean: values.get(mean, rows), logvar: values.get(logvar, rows) };
                        let grad =
                            Posterior { mean: values.get(mean_grad, rows), logvar: values.get(logvar_grad, rows) };
                        let mut out = Posterior { mean: mean_out, logvar: logvar_out };
                        latent::kl_divergence(beta, &posterior, &grad, rows, &mut out)
                    })
                });
            }
            Op::ParamNorm { coefficient, ref params } => {
                self.terms[Term::DecoderL2.index()] +=
                    params.iter().map(|param| linear::param_norm(coefficient, self.param(*param))).sum::<f64>();
            }
            Op::ActGrad { activation, saved, grad, output } => {
                values.define(output, rows, |values, out| {
                    activation::backward(activation, values.get(saved, rows), values.get(grad, rows), out);
                });
            }
            Op::ReparameterizeGrad { grad, logvar, noise, output } => {
                values.define(output, rows, |values, out| {
                    let (grad, logvar) = (values.get(grad, rows), values.get(logvar, rows));
                    latent::reparameterize_grad(grad, logvar, values.get(noise, rows), out);
                });
            }
            Op::LinearGradInput { grad, weight, output } => {
                let (w, width) = (self.param(weight), values.sizes[output.index()]);
                values.define(output, rows, |values, out| {
                    linear::grad_input(values.get(grad, rows), w, width, out);
                });
            }
            Op::LinearGradWeight { input, grad, weight, bias, decay, ref extra } => {
                let layout = self.plan.params.params();
                let (params, grads) = (&self.tensors.params, &mut self.grads);
                let range = layout[weight.index()].range();
                let out = &mut grads[range.clone()];
                linear::grad_decay(&params[range], decay, out);
                for (input, grad) in [(input, grad)].iter().chain(extra) {
                    let width = values.sizes[input.index()];
                    linear::add_grad_weight(values.get(*input, rows), values.get(*grad, rows), width, out);
                }
                if let Some(bias) = bias {
                    let range = layout[bias.index()].range();
                    linear::grad_decay(&params[range.clone()], decay, &mut grads[range.clone()]);
                    linear::add_grad_bias(values.get(grad, rows), &mut grads[range]);
                }
            }
            Op::AddScaled { a, b, scale, output } => {
                values.define(output, rows, |values, out| {
                    for ((out, a), b) in out.iter_mut().zip(values.get(a, rows)).zip(values.get(b, rows)) {
                        *out = a + scale * b;
                    }
                });
            }
            Op::SpectralScale { weight, iterations, scale, left, right } => {
                let width = self.plan.params.params()[weight.index()].fan_in;
                let found = spectral::singular(self.param(weight), width, weight.0, iterations);
                spectral::repeat(&[found.scale], values.get_mut(scale, rows));
                for (value, vector) in [(left, found.left), (right, found.right)] {
                    if let Some(value) = value {
                        spectral::repeat(&vector, values.get_mut(value, rows));
                    }
                }
            }
            Op::ScaleRows { input, scale, output } => {
                values.define(output, rows, |values, out| {
                    spectral::scale_rows(values.get(input, rows), values.get(scale, rows), out);
                });
            }
            Op::SpectralGrad { grad, input, scale, left, output } => {
                values.define(output, rows, |values, out| {
                    let (grad, input) = (values.get(grad, rows), values.get(input, rows));
                    spectral::grad(grad, input, values.get(scale, rows), values.get(left, rows), out);
                });
            }
            Op::Update => {}
        }
    }

    /// One optimiser step from the gradients, clipping included.
    pub(crate) fn update(&mut self, step: u64) {
        let factor = optimizer::clip_factor(&self.grads, self.plan.optimizer.clip_norm);
        optimizer::update(self.plan.optimizer.coefficients(step), &mut self.tensors, &self.grads, factor);
    }
}
