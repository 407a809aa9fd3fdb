//! An executable whose every caller-provided buffer stands between guard words.

use std::sync::Arc;

use cvae_core::{
    Backend, Batch, BatchRows, CompileError, DataId, Entry, Executable, Losses, Plan, Rows, RunError, State,
};

use crate::failure::Failure;
use crate::guard::{Guarded, Word};

/// A plan compiled by the backend under test.
pub(crate) struct Probe {
    executable: Box<dyn Executable>,
    plan: Arc<Plan>,
}

/// Optimiser state to start a step from.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) params: Vec<f32>,
    pub(crate) moment1: Vec<f32>,
    pub(crate) moment2: Vec<f32>,
    pub(crate) step: u64,
}

/// Everything that training changes, in the backend's own precision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) params: Vec<f64>,
    pub(crate) moment1: Vec<f64>,
    pub(crate) moment2: Vec<f64>,
    pub(crate) step: u64,
}

impl Probe {
    /// Compiles `plan`, which the backend must support.
    pub(crate) fn new(backend: &dyn Backend, plan: &Arc<Plan>) -> Result<Self, Failure> {
        backend.supports(plan)?;
        let executable = backend.compile(Arc::clone(plan)).map_err(|error| match error {
            CompileError::Unsupported(reason) => Failure::Unsupported(reason),
            other => Failure::Compile(other),
        })?;
        Ok(Self { executable, plan: Arc::clone(plan) })
    }

    /// Compiles `plan` and writes `params`.
    pub(crate) fn with_params(backend: &dyn Backend, plan: &Arc<Plan>, params: &[f32]) -> Result<Self, Failure> {
        let mut probe = Self::new(backend, plan)?;
        probe.write(State::Params, params)?;
        Ok(probe)
    }

    /// The executable, for calls with buffers of their own.
    pub(crate) fn raw(&mut self) -> &mut dyn Executable {
        self.executable.as_mut()
    }

    pub(crate) fn write(&mut self, state: State, src: &[f32]) -> Result<(), Failure> {
        let src = Guarded::new(src);
        run("write", self.executable.write(state, src.inside()))
    }

    pub(crate) fn start(&mut self, start: &Start) -> Result<(), Failure> {
        self.write(State::Params, &start.params)?;
        self.write(State::Moment1, &start.moment1)?;
        self.write(State::Moment2, &start.moment2)?;
        self.executable.set_step(start.step);
        Ok(())
    }

    pub(crate) fn read(&mut self, state: State) -> Result<Vec<f64>, Failure> {
        let mut dst = Guarded::<f64>::unwritten(self.plan.params.len());
        run("read_f64", self.executable.read_f64(state, dst.inside_mut()))?;
        intact("read_f64", &dst)?;
        Ok(dst.inside().to_vec())
    }

    /// [`Executable::read`] itself, which a checkpoint uses.
    pub(crate) fn read_f32(&mut self, state: State) -> Result<Vec<f32>, Failure> {
        let mut dst = Guarded::<f32>::unwritten(self.plan.params.len());
        run("read", self.executable.read(state, dst.inside_mut()))?;
        intact("read", &dst)?;
        Ok(dst.inside().to_vec())
    }

    pub(crate) fn snapshot(&mut self) -> Result<Snapshot, Failure> {
        Ok(Snapshot {
            params: self.read(State::Params)?,
            moment1: self.read(State::Moment1)?,
            moment2: self.read(State::Moment2)?,
            step: self.executable.step(),
        })
    }

    pub(crate) fn gradients(&mut self, batch: &Batch<'_>) -> Result<Vec<f64>, Failure> {
        guarded(batch, |batch| run("gradients", self.executable.gradients(batch)))?;
        self.read(State::Grads)
    }

    pub(crate) fn apply(&mut self) -> Result<(), Failure> {
        run("apply", self.executable.apply())
    }

    pub(crate) fn train_step(&mut self, batch: &Batch<'_>) -> Result<(), Failure> {
        guarded(batch, |batch| run("train_step", self.executable.train_step(batch)))
    }

    pub(crate) fn train_epoch(&mut self, data: DataId, order: &[u32], rows: usize, epoch: u32) -> Result<(), Failure> {
        let order = Guarded::new(order);
        run("train_epoch", self.executable.train_epoch(data, order.inside(), rows, epoch))
    }

    pub(crate) fn upload(&mut self, values: &[f32]) -> Result<DataId, Failure> {
        let values = Guarded::new(values);
        let width = self.plan.spec.width();
        run("upload", self.executable.upload(Rows::F32 { values: values.inside(), width }))
    }

    pub(crate) fn upload_u8(&mut self, values: &[u8], scale: f32) -> Result<DataId, Failure> {
        let values = Guarded::new(values);
        let width = self.plan.spec.width();
        run("upload", self.executable.upload(Rows::U8 { values: values.inside(), width, scale }))
    }

    pub(crate) fn losses(&mut self) -> Result<Losses, Failure> {
        run("losses", self.executable.losses())
    }

    /// Runs an entry in the backend's own precision.
    pub(crate) fn infer(&mut self, entry: Entry, input: &[f32]) -> Result<Vec<f64>, Failure> {
        let (from, to) = entry.widths(&self.plan);
        let input = Guarded::new(input);
        let mut out = Guarded::<f64>::unwritten(input.inside().len() / from * to);
        run("infer_f64", self.executable.infer_f64(entry, input.inside(), out.inside_mut()))?;
        intact("infer_f64", &out)?;
        Ok(out.inside().to_vec())
    }

    /// [`Executable::infer`] itself, which users call.
    pub(crate) fn infer_f32(&mut self, entry: Entry, input: &[f32]) -> Result<Vec<f32>, Failure> {
        let (from, to) = entry.widths(&self.plan);
        let input = Guarded::new(input);
        let mut out = Guarded::<f32>::unwritten(input.inside().len() / from * to);
        run("infer", self.executable.infer(entry, input.inside(), out.inside_mut()))?;
        intact("infer", &out)?;
        Ok(out.inside().to_vec())
    }
}

/// Names the call that failed.
pub(crate) fn run<T>(call: &'static str, result: Result<T, RunError>) -> Result<T, Failure> {
    result.map_err(|source| Failure::Run { call, source })
}

fn intact<T: Word>(call: &'static str, buffer: &Guarded<T>) -> Result<(), Failure> {
    match buffer.broken() {
        Some(position) => Err(Failure::Guard { call, position }),
        None => Ok(()),
    }
}

/// Calls `body` with the same batch, its slice between guard words.
fn guarded<T>(batch: &Batch<'_>, body: impl FnOnce(&Batch<'_>) -> T) -> T {
    let epoch = batch.epoch;
    match batch.rows {
        BatchRows::Host { values, first_row } => {
            let values = Guarded::new(values);
            body(&Batch { rows: BatchRows::Host { values: values.inside(), first_row }, epoch })
        }
        BatchRows::Resident { data, order } => {
            let order = Guarded::new(order);
            body(&Batch { rows: BatchRows::Resident { data, order: order.inside() }, epoch })
        }
    }
}
