//! A frozen model behind the trait of executables: it infers, and refuses all else.

use std::sync::Arc;

use cvae_core::{Batch, DataId, DeviceError, Entry, Executable, KernelChoice, Losses, Plan, Rows, RunError, State};
use cvae_cpu::{Frozen, Workspace};
use thiserror::Error;

/// Why everything but inference is refused.
#[derive(Debug, Error)]
#[error("it can only encode, decode and reconstruct")]
struct InferenceOnly;

/// The refusal of `operation`.
fn refuse<T>(operation: &'static str) -> Result<T, RunError> {
    Err(DeviceError { device: "a frozen model".to_owned(), operation, source: Box::new(InferenceOnly) }.into())
}

/// A packed model and its workspace.
pub(super) struct FrozenExecutable {
    plan: Arc<Plan>,
    kernels: Vec<KernelChoice>,
    workspace: Workspace,
}

impl FrozenExecutable {
    pub(super) fn new(plan: Arc<Plan>, frozen: &Frozen, workspace: Workspace) -> Self {
        Self { plan, kernels: frozen.kernels(), workspace }
    }
}

impl Executable for FrozenExecutable {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn kernels(&self) -> Vec<KernelChoice> {
        self.kernels.clone()
    }

    fn write(&mut self, _state: State, _src: &[f32]) -> Result<(), RunError> {
        refuse("writing parameters")
    }

    fn read(&mut self, _state: State, _dst: &mut [f32]) -> Result<(), RunError> {
        refuse("reading parameters")
    }

    fn step(&self) -> u64 {
        0
    }

    fn set_step(&mut self, _step: u64) {}

    fn upload(&mut self, _rows: Rows<'_>) -> Result<DataId, RunError> {
        refuse("training")
    }

    fn release(&mut self, data: DataId) -> Result<(), RunError> {
        Err(RunError::UnknownData(data.0))
    }

    fn gradients(&mut self, _batch: &Batch<'_>) -> Result<(), RunError> {
        refuse("training")
    }

    fn apply(&mut self) -> Result<(), RunError> {
        Err(RunError::NoGradients)
    }

    fn train_step(&mut self, _batch: &Batch<'_>) -> Result<(), RunError> {
        refuse("training")
    }

    fn infer(&mut self, entry: Entry, input: &[f32], out: &mut [f32]) -> Result<(), RunError> {
        self.workspace.infer(entry, input, out)
    }

    fn losses(&mut self) -> Result<Losses, RunError> {
        Ok(Losses::default())
    }

    fn synchronize(&mut self) -> Result<(), RunError> {
        Ok(())
    }
}
