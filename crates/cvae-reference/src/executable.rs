//! A plan with its state: batches in, losses and gradients out.

use std::collections::BTreeMap;
use std::sync::Arc;

use cvae_core::{
    Batch, BatchRows, CompileError, DataId, Entry, Executable, KernelChoice, Losses, Op, Plan, Rows, RunError, State,
    Term,
};

use crate::machine::{Machine, Values, zeros};
use crate::optimizer::Tensors;

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
