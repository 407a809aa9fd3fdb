//! Device time of training, measured with CUDA events.

use std::sync::Arc;

use cvae_core::{CompileError, Executable, Initializer, Plan, Rows, RunError, State, epoch_order};
use thiserror::Error;

use crate::backend::CudaBackend;
use crate::driver::{Driven, Event};

/// What to time.
#[derive(Clone, Copy, Debug)]
pub struct Timing<'a> {
    /// The training set, uploaded before the clock starts.
    pub rows: Rows<'a>,
    /// Rows of a batch.
    pub batch: usize,
    /// Steps of one measurement.
    pub steps: usize,
    /// Measurements thrown away.
    pub warm_up: usize,
    /// Measurements kept.
    pub repeats: usize,
}

/// Why no time could be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TimingError {
    /// The plan does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Training failed, or its loss is no longer finite.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl CudaBackend {
    /// Trains `plan` from its initial parameters and returns the device time of one step, in microseconds, for each
    /// measurement kept.
    ///
    /// # Errors
    /// A plan that does not compile, or training that fails.
    pub fn time_steps(&self, plan: &Arc<Plan>, timing: Timing<'_>) -> Result<Vec<f64>, TimingError> {
        let mut executable = self.compile_here(Arc::clone(plan))?;
        executable.write(State::Params, &plan.params.initial(Initializer::Torch, plan.seed))?;
        let data = executable.upload(timing.rows)?;
        let mut shuffled = vec![0; timing.rows.rows()];
        epoch_order(plan.seed, 0, &mut shuffled);
        let order: Vec<u32> = shuffled.iter().copied().cycle().take(timing.steps * timing.batch).collect();
        let name = executable.device_name().to_owned();
        let named = |result: Driven<Event>| result.map_err(|fault| fault.run(&name));
        let (start, end) = (named(executable.event())?, named(executable.event())?);
        let mut times = vec![];
        for repeat in 0..timing.warm_up + timing.repeats {
            executable.record(&start)?;
            executable.train_epoch(data, &order, timing.batch, repeat as u32)?;
            executable.record(&end)?;
            executable.synchronize()?;
            if repeat >= timing.warm_up {
                let milliseconds = start.milliseconds_to(&end).map_err(|fault| fault.run(&name))?;
                times.push(f64::from(milliseconds) * 1e3 / timing.steps as f64);
            }
        }
        executable.losses()?.check()?;
        Ok(times)
    }
}
