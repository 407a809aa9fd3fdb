//! The interpreter: runs the ops of a program one after the other over `f64` buffers.

use std::collections::BTreeMap;
use std::sync::Arc;

use cvae_core::{
    Batch, BatchRows, CompileError, DataId, Entry, Executable, Graph, KernelChoice, Losses, Noise, Op, ParamId, Plan,
    Rows, RunError, State, Term, ValueId,
};

use crate::latent::Posterior;
use crate::optimizer::Tensors;
use crate::{activation, latent, linear, optimizer, reconstruction};

/// A plan with its state.
pub(crate) struct ReferenceExecutable {
    machine: Machine,
    train: Values,
    encode: Values,
    decode: Values,
    reconstruct: Values,
    /// Whether the machine's gradients are those that `gradients` left.
    has_grads: bool,
    data: BTreeMap<usize, Vec<f64>>,
    next_data: usize,
    losses: Losses,
    steps: u64,
}

/// What the ops of a graph act on besides its values.
struct Machine {
    plan: Arc<Plan>,
    tensors: Tensors,
    /// Gradients of the last pass, unclipped.
    grads: Vec<f64>,
    /// Terms of the last pass.
    terms: [f64; Term::COUNT],
    /// Epoch and row numbers of the batch: the noise position of each of its rows.
    epoch: u32,
    row_numbers: Vec<u32>,
    /// One row of noise.
    noise: Vec<f32>,
}

/// One buffer per value of a graph, each with room for `max_rows` rows.
struct Values {
    buffers: Vec<Vec<f64>>,
    /// Elements of one row of each value.
    sizes: Vec<usize>,
}

impl Values {
    fn new(graph: &Graph, max_rows: usize) -> Result<Self, CompileError> {
        let sizes: Vec<usize> = graph.values.iter().map(|shape| shape.size()).collect();
        let allocate = |size: &usize| zeros(max_rows.saturating_mul(*size), "the values of a batch");
        Ok(Self { buffers: sizes.iter().map(allocate).collect::<Result<_, _>>()?, sizes })
    }

    /// The first `rows` rows of a value.
    fn get(&self, value: ValueId, rows: usize) -> &[f64] {
        &self.buffers[value.index()][..rows * self.sizes[value.index()]]
    }

    fn get_mut(&mut self, value: ValueId, rows: usize) -> &mut [f64] {
        &mut self.buffers[value.index()][..rows * self.sizes[value.index()]]
    }

    /// Computes a value from the others: its buffer is moved out while `compute` fills the first `rows` rows.
    fn define<T>(&mut self, value: ValueId, rows: usize, compute: impl FnOnce(&mut Self, &mut [f64]) -> T) -> T {
        let mut buffer = std::mem::take(&mut self.buffers[value.index()]);
        let result = compute(self, &mut buffer[..rows * self.sizes[value.index()]]);
        self.buffers[value.index()] = buffer;
        result
    }
}

fn zeros<T: Clone + Default>(len: usize, what: &'static str) -> Result<Vec<T>, CompileError> {
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
    fn run(&mut self, graph: &Graph, values: &mut Values, rows: usize) {
        for op in &graph.ops {
            self.run_op(op, values, rows);
        }
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
            Op::Noise { stream, output } => {
                let source = Noise::new(self.plan.seed, stream, self.epoch);
                let size = values.sizes[output.index()];
                let out = values.get_mut(output, rows);
                for (row, out) in self.row_numbers.iter().zip(out.chunks_exact_mut(size)) {
                    source.normal(*row, &mut self.noise[..size]);
                    out.iter_mut().zip(&self.noise).for_each(|(wide, narrow)| *wide = f64::from(*narrow));
                }
            }
            Op::Reparameterize { mean, logvar, noise, output } => {
                values.define(output, rows, |values, out| {
                    let posterior = Posterior { mean: values.get(mean, rows), logvar: values.get(logvar, rows) };
                    latent::reparameterize(&posterior, values.get(noise, rows), out);
                });
            }
            Op::Reconstruction { kind, prediction, target, grad } => {
                self.terms[Term::Reconstruction.index()] += values.define(grad, rows, |values, out| {
                    reconstruction::loss(kind, values.get(prediction, rows), values.get(target, rows), rows, out)
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
            Op::LinearGradWeight { input, grad, weight, bias, decay } => {
                let layout = &self.plan.params;
                let (params, grads) = (&self.tensors.params, &mut self.grads);
                let range = layout.params()[weight.index()].range();
                let (x, g, width) = (values.get(input, rows), values.get(grad, rows), values.sizes[input.index()]);
                linear::grad_weight(x, g, &params[range.clone()], width, decay, &mut grads[range]);
                if let Some(bias) = bias {
                    let range = layout.params()[bias.index()].range();
                    linear::grad_bias(g, &params[range.clone()], decay, &mut grads[range]);
                }
            }
            Op::AddScaled { a, b, scale, output } => {
                values.define(output, rows, |values, out| {
                    for ((out, a), b) in out.iter_mut().zip(values.get(a, rows)).zip(values.get(b, rows)) {
                        *out = a + scale * b;
                    }
                });
            }
            Op::Update => {}
        }
    }

    /// One optimiser step from the gradients, clipping included.
    fn update(&mut self, step: u64) {
        let factor = optimizer::clip_factor(&self.grads, self.plan.optimizer.clip_norm);
        optimizer::update(self.plan.optimizer.coefficients(step), &mut self.tensors, &self.grads, factor);
    }
}

impl ReferenceExecutable {
    /// Allocates everything that a step needs; parameters and moments start at 0.
    pub(crate) fn new(plan: Arc<Plan>) -> Result<Self, CompileError> {
        let (len, rows) = (plan.params.len(), plan.max_rows);
        let program = &plan.program;
        let widest = program.train.values.iter().map(|shape| shape.size()).max().unwrap_or(0);
        let tensors = Tensors {
            params: zeros(len, "the parameters")?,
            moment1: zeros(len, "the first moments")?,
            moment2: zeros(len, "the second moments")?,
        };
        let train = Values::new(&program.train, rows)?;
        let encode = Values::new(&program.encode, rows)?;
        let decode = Values::new(&program.decode, rows)?;
        let reconstruct = Values::new(&program.reconstruct, rows)?;
        let mut row_numbers = zeros(rows, "the row numbers of a batch")?;
        row_numbers.clear();
        let machine = Machine {
            tensors,
            grads: zeros(len, "the gradients")?,
            terms: [0.0; Term::COUNT],
            epoch: 0,
            row_numbers,
            noise: zeros(widest, "a row of noise")?,
            plan,
        };
        Ok(Self {
            machine,
            train,
            encode,
            decode,
            reconstruct,
            has_grads: false,
            data: BTreeMap::new(),
            next_data: 0,
            losses: Losses::default(),
            steps: 0,
        })
    }

    /// Checks a batch, and only then copies its rows and their noise positions in; returns its rows.
    fn load(&mut self, batch: &Batch<'_>) -> Result<usize, RunError> {
        let machine = &mut self.machine;
        let width = machine.plan.spec.width();
        let rows = batch.check(width, machine.plan.max_rows)?;
        let input = self.train.get_mut(machine.plan.program.train.input, rows);
        match batch.rows {
            BatchRows::Host { values, first_row } => {
                input.iter_mut().zip(values).for_each(|(wide, narrow)| *wide = f64::from(*narrow));
                machine.row_numbers.clear();
                machine.row_numbers.extend((0..rows as u32).map(|row| first_row.wrapping_add(row)));
            }
            BatchRows::Resident { data, order } => {
                let set = self.data.get(&data.0).ok_or(RunError::UnknownData(data.0))?;
                let available = set.len() / width;
                if let Some(&index) = order.iter().find(|index| **index as usize >= available) {
                    return Err(RunError::RowIndex { index, rows: available });
                }
                for (row, index) in input.chunks_exact_mut(width).zip(order) {
                    row.copy_from_slice(&set[*index as usize * width..][..width]);
                }
                machine.row_numbers.clear();
                machine.row_numbers.extend_from_slice(order);
            }
        }
        machine.epoch = batch.epoch;
        Ok(rows)
    }

    /// Forward and backward pass of the loaded batch into the machine's gradients; gathers the losses.
    fn forward_backward(&mut self, rows: usize) {
        let plan = Arc::clone(&self.machine.plan);
        self.machine.terms = [0.0; Term::COUNT];
        self.machine.run(&plan.program.train, &mut self.train, rows);
        self.losses.push(self.steps + 1, rows, self.machine.terms);
    }

    fn run_entry<T>(
        &mut self,
        entry: Entry,
        input: &[f32],
        out: &mut [T],
        convert: impl Fn(f64) -> T,
    ) -> Result<(), RunError> {
        let plan = Arc::clone(&self.machine.plan);
        entry.check(&plan, input, out)?;
        let (from, to) = entry.widths(&plan);
        let graph = plan.program.entry(entry);
        let values = match entry {
            Entry::Encode => &mut self.encode,
            Entry::Decode => &mut self.decode,
            Entry::Reconstruct => &mut self.reconstruct,
        };
        for (input, out) in input.chunks(plan.max_rows * from).zip(out.chunks_mut(plan.max_rows * to)) {
            let rows = input.len() / from;
            let target = values.get_mut(graph.input, rows);
            target.iter_mut().zip(input).for_each(|(wide, narrow)| *wide = f64::from(*narrow));
            self.machine.run(graph, values, rows);
            let result = values.get(graph.output.unwrap_or(graph.input), rows);
            out.iter_mut().zip(result).for_each(|(out, value)| *out = convert(*value));
        }
        Ok(())
    }

    /// The buffer of a part of the state that can be read.
    fn state(&self, state: State) -> Result<&[f64], RunError> {
        match state {
            State::Params => Ok(&self.machine.tensors.params),
            State::Moment1 => Ok(&self.machine.tensors.moment1),
            State::Moment2 => Ok(&self.machine.tensors.moment2),
            State::Grads if self.has_grads => Ok(&self.machine.grads),
            State::Grads => Err(RunError::NoGradients),
        }
    }
}

fn check_state(expected: usize, found: usize) -> Result<(), RunError> {
    match expected == found {
        true => Ok(()),
        false => Err(RunError::Length { what: "the state", expected, found }),
    }
}

impl Executable for ReferenceExecutable {
    fn plan(&self) -> &Plan {
        &self.machine.plan
    }

    fn kernels(&self) -> Vec<KernelChoice> {
        let choice = |op: &Op| KernelChoice { op: op.to_string(), kernel: format!("reference {} f64", op.name()) };
        self.machine.plan.program.train.ops.iter().map(choice).collect()
    }

    fn write(&mut self, state: State, src: &[f32]) -> Result<(), RunError> {
        let tensors = &mut self.machine.tensors;
        let buffer = match state {
            State::Params => &mut tensors.params,
            State::Moment1 => &mut tensors.moment1,
            State::Moment2 => &mut tensors.moment2,
            State::Grads => return Err(RunError::ReadOnly),
        };
        check_state(buffer.len(), src.len())?;
        buffer.iter_mut().zip(src).for_each(|(wide, narrow)| *wide = f64::from(*narrow));
        Ok(())
    }

    fn read(&mut self, state: State, dst: &mut [f32]) -> Result<(), RunError> {
        let buffer = self.state(state)?;
        check_state(buffer.len(), dst.len())?;
        dst.iter_mut().zip(buffer).for_each(|(narrow, wide)| *narrow = *wide as f32);
        Ok(())
    }

    fn read_f64(&mut self, state: State, dst: &mut [f64]) -> Result<(), RunError> {
        let buffer = self.state(state)?;
        check_state(buffer.len(), dst.len())?;
        dst.copy_from_slice(buffer);
        Ok(())
    }

    fn step(&self) -> u64 {
        self.steps
    }

    fn set_step(&mut self, step: u64) {
        self.steps = step;
    }

    /// A byte becomes the `f32` product `b · scale`, the value that every backend trains on.
    fn upload(&mut self, rows: Rows<'_>) -> Result<DataId, RunError> {
        let width = self.machine.plan.spec.width();
        let len = rows.check(width)? * width;
        let mut set: Vec<f64> = Vec::new();
        let bytes = len.saturating_mul(size_of::<f64>());
        set.try_reserve_exact(len).map_err(|_| RunError::Memory { bytes, what: "a data set" })?;
        match rows {
            Rows::F32 { values, .. } => set.extend(values.iter().map(|value| f64::from(*value))),
            Rows::U8 { values, scale, .. } => {
                set.extend(values.iter().map(|byte| f64::from(f32::from(*byte) * scale)));
            }
        }
        let id = self.next_data;
        self.next_data += 1;
        self.data.insert(id, set);
        Ok(DataId(id))
    }

    fn release(&mut self, data: DataId) -> Result<(), RunError> {
        self.data.remove(&data.0).map(drop).ok_or(RunError::UnknownData(data.0))
    }

    fn gradients(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        let rows = self.load(batch)?;
        self.forward_backward(rows);
        self.has_grads = true;
        Ok(())
    }

    fn apply(&mut self) -> Result<(), RunError> {
        if !self.has_grads {
            return Err(RunError::NoGradients);
        }
        self.machine.update(self.steps);
        self.has_grads = false;
        self.steps += 1;
        Ok(())
    }

    fn train_step(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        self.gradients(batch)?;
        self.apply()
    }

    fn infer(&mut self, entry: Entry, input: &[f32], out: &mut [f32]) -> Result<(), RunError> {
        self.run_entry(entry, input, out, |value| value as f32)
    }

    fn infer_f64(&mut self, entry: Entry, input: &[f32], out: &mut [f64]) -> Result<(), RunError> {
        self.run_entry(entry, input, out, |value| value)
    }

    fn losses(&mut self) -> Result<Losses, RunError> {
        Ok(std::mem::take(&mut self.losses))
    }

    fn synchronize(&mut self) -> Result<(), RunError> {
        Ok(())
    }
}
