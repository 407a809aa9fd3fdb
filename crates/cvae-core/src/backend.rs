//! The traits a backend implements: mathematics in, executable out.
//!
//! Both traits are object-safe; one virtual call per step or epoch costs nothing and lets a backend fuse
//! whatever it likes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{CompileError, RunError, Unsupported};
use crate::objective::Term;
use crate::plan::Plan;

/// Name of a backend at one instruction set and precision, such as `cpu-avx512` or `candle-f64`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendId(Cow<'static, str>);

impl BackendId {
    /// An id from a constant name.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a backend runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// Human-readable name.
    pub name: String,
    /// Worker threads, where that is meaningful.
    pub threads: Option<usize>,
    /// Bytes of device memory, where it is separate.
    pub memory: Option<u64>,
    /// Instruction sets or compute capability in use.
    pub features: Vec<String>,
}

/// Which kernel an op really runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelChoice {
    /// The op, as the program prints it, or a group of fused ops.
    pub op: String,
    /// The kernel.
    pub kernel: String,
}

/// Where time went since an executable was compiled: one op, or a group of fused ops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpProfile {
    /// The kernel and what it works on.
    pub op: String,
    /// How often it ran.
    pub calls: u64,
    /// Seconds altogether, as the mean over the threads that share the op.
    pub seconds: f64,
    /// Floating-point operations of its matrix products altogether.
    pub flops: f64,
    /// Bytes of weights, moments and activations that its matrix products read and write altogether, each counted
    /// once a call.
    pub bytes: f64,
}

/// Part of an executable's state, as one flat buffer in the order of [`crate::ParamLayout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The parameters.
    Params,
    /// Adam's first moment, or the velocity of gradient descent.
    Moment1,
    /// Adam's second moment; zero for gradient descent.
    Moment2,
    /// The gradients that [`Executable::gradients`] left, before clipping, until the next step consumes them;
    /// not writable.
    Grads,
}

/// Rows of a data set, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// 32-bit floats.
    F32 {
        /// `rows × width` values.
        values: &'a [f32],
        /// Elements of a row.
        width: usize,
    },
    /// Bytes; element `b` stands for `b · scale`.
    U8 {
        /// `rows × width` bytes.
        values: &'a [u8],
        /// Elements of a row.
        width: usize,
        /// Factor from byte to value.
        scale: f32,
    },
}

impl Rows<'_> {
    /// Elements of a row.
    pub fn width(&self) -> usize {
        match self {
            Self::F32 { width, .. } | Self::U8 { width, .. } => *width,
        }
    }

    /// Number of whole rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::F32 { values, width } => values.len() / (*width).max(1),
            Self::U8 { values, width, .. } => values.len() / (*width).max(1),
        }
    }

    /// Checks that the values are whole rows of `width` elements.
    ///
    /// # Errors
    /// [`RunError::Length`] for another width or a partial row; [`RunError::Rows`] for no rows, or more
    /// than a `u32` can index.
    pub fn check(&self, width: usize) -> Result<usize, RunError> {
        if self.width() != width {
            return Err(RunError::Length { what: "a data row", expected: width, found: self.width() });
        }
        let len = match self {
            Self::F32 { values, .. } => values.len(),
            Self::U8 { values, .. } => values.len(),
        };
        let rows = self.rows();
        if len != rows * width {
            return Err(RunError::Length { what: "the data", expected: rows * width, found: len });
        }
        if rows == 0 || u32::try_from(rows).is_err() {
            return Err(RunError::Rows { rows, max_rows: u32::MAX as usize });
        }
        Ok(rows)
    }
}

/// A data set held by an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DataId(pub usize);

/// Where the rows of a batch come from.
#[derive(Clone, Copy, Debug)]
pub enum BatchRows<'a> {
    /// Row-major values; row `r` draws the noise of row `first_row + r`.
    Host {
        /// `rows × width` values.
        values: &'a [f32],
        /// Noise position of the first row.
        first_row: u32,
    },
    /// Rows of an uploaded data set; each draws the noise of its index.
    Resident {
        /// The data set.
        data: DataId,
        /// Row indices, one per batch row.
        order: &'a [u32],
    },
}

/// The rows of one training step.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Where the rows come from.
    pub rows: BatchRows<'a>,
    /// Noise position: a row sees fresh noise in every epoch.
    pub epoch: u32,
}

impl<'a> Batch<'a> {
    /// Rows given as values, with the noise of rows `0..rows` in epoch 0.
    pub fn host(values: &'a [f32]) -> Self {
        Self { rows: BatchRows::Host { values, first_row: 0 }, epoch: 0 }
    }

    /// Rows of an uploaded data set.
    pub fn resident(data: DataId, order: &'a [u32], epoch: u32) -> Self {
        Self { rows: BatchRows::Resident { data, order }, epoch }
    }

    /// Checks lengths and returns the number of rows. Row indices are the executable's to check.
    ///
    /// # Errors
    /// [`RunError::Length`] for a partial row; [`RunError::Rows`] for none or too many.
    pub fn check(&self, width: usize, max_rows: usize) -> Result<usize, RunError> {
        let rows = match self.rows {
            BatchRows::Host { values, .. } => {
                let rows = values.len() / width.max(1);
                if values.len() != rows * width {
                    let expected = (rows + 1) * width;
                    return Err(RunError::Length { what: "the batch", expected, found: values.len() });
                }
                rows
            }
            BatchRows::Resident { order, .. } => order.len(),
        };
        match (1..=max_rows).contains(&rows) {
            true => Ok(rows),
            false => Err(RunError::Rows { rows, max_rows }),
        }
    }
}

/// A function of the trained model. None of them draws noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Rows to codes (the posterior mean of a variational model).
    Encode,
    /// Codes to rows.
    Decode,
    /// Rows to rows.
    Reconstruct,
}

impl Entry {
    /// Every entry.
    pub const ALL: [Self; 3] = [Self::Encode, Self::Decode, Self::Reconstruct];

    /// Elements of one input row and of one output row.
    pub fn widths(self, plan: &Plan) -> (usize, usize) {
        let (width, latent) = (plan.spec.width(), plan.spec.latent());
        match self {
            Self::Encode => (width, latent),
            Self::Decode => (latent, width),
            Self::Reconstruct => (width, width),
        }
    }

    /// Checks the slices of a call and returns its number of rows, which may exceed the plan's `max_rows`.
    ///
    /// # Errors
    /// [`RunError::Length`] when a slice is no whole number of rows or the two disagree.
    pub fn check<T>(self, plan: &Plan, input: &[f32], out: &[T]) -> Result<usize, RunError> {
        let (from, to) = self.widths(plan);
        let rows = input.len() / from;
        if input.len() != rows * from || rows == 0 {
            return Err(RunError::Length { what: "the input", expected: rows.max(1) * from, found: input.len() });
        }
        if out.len() != rows * to {
            return Err(RunError::Length { what: "the output", expected: rows * to, found: out.len() });
        }
        Ok(rows)
    }
}

/// Where the loss first stopped being finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// Step, counted from 1.
    pub step: u64,
    /// The first such term of that step.
    pub term: Term,
}

/// Loss terms gathered since they were last drained. Terms are weighted as in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Losses {
    /// Steps gathered.
    pub steps: u64,
    /// Rows gathered.
    pub rows: u64,
    /// Per term: sum over steps of (mean over rows) × rows.
    pub sums: [f64; Term::COUNT],
    /// Per term: the mean over rows of the last step.
    pub last: [f64; Term::COUNT],
    /// The first step whose loss was not finite.
    pub non_finite: Option<NonFinite>,
}

impl Losses {
    /// Adds one step: `terms` are means over its `rows` rows.
    pub fn push(&mut self, step: u64, rows: usize, terms: [f64; Term::COUNT]) {
        self.steps += 1;
        self.rows += rows as u64;
        for (sum, term) in self.sums.iter_mut().zip(terms) {
            *sum += term * rows as f64;
        }
        self.last = terms;
        if self.non_finite.is_none() {
            let bad = Term::ALL.into_iter().find(|term| !terms[term.index()].is_finite());
            self.non_finite = bad.map(|term| NonFinite { step, term });
        }
    }

    /// Mean of a term over the gathered rows; 0 when nothing was gathered.
    pub fn mean(&self, term: Term) -> f64 {
        self.sums[term.index()] / self.rows.max(1) as f64
    }

    /// Mean of the whole loss over the gathered rows.
    pub fn total(&self) -> f64 {
        Term::ALL.into_iter().map(|term| self.mean(term)).sum()
    }

    /// The whole loss of the last step.
    pub fn last_total(&self) -> f64 {
        self.last.iter().sum()
    }

    /// An error if any gathered loss was not finite.
    ///
    /// # Errors
    /// [`RunError::NonFinite`] with the first such step and term.
    pub fn check(&self) -> Result<(), RunError> {
        match self.non_finite {
            Some(NonFinite { step, term }) => Err(RunError::NonFinite { step, term }),
            None => Ok(()),
        }
    }
}

/// A way to run plans.
pub trait Backend: Send + Sync {
    /// The backend's name.
    fn id(&self) -> BackendId;

    /// What it runs on.
    fn device(&self) -> DeviceInfo;

    /// Whether [`Backend::compile`] will work for `plan` (memory and threads permitting).
    ///
    /// # Errors
    /// The first reason why not.
    fn supports(&self, plan: &Plan) -> Result<(), Unsupported>;

    /// Prepares `plan` for running: allocates everything a step needs. Parameters and moments start at 0.
    ///
    /// # Errors
    /// An unsupported plan, or memory, threads or a device that cannot be had.
    fn compile(&self, plan: Arc<Plan>) -> Result<Box<dyn Executable>, CompileError>;
}

/// A plan made runnable: parameters, optimiser state and everything a step needs.
///
/// No method allocates, locks or starts a thread per step. After a [`RunError::Device`] the state is
/// unspecified; after any other error it is unchanged.
pub trait Executable: Send {
    /// The plan.
    fn plan(&self) -> &Plan;

    /// The kernel each op really runs on.
    fn kernels(&self) -> Vec<KernelChoice>;

    /// Where the time of training steps went, if the backend was asked to measure it; else nothing.
    fn profile(&self) -> Vec<OpProfile> {
        vec![]
    }

    /// Replaces a part of the state. `src` has [`crate::ParamLayout::len`] elements.
    ///
    /// # Errors
    /// A wrong length, or [`RunError::ReadOnly`] for [`State::Grads`].
    fn write(&mut self, state: State, src: &[f32]) -> Result<(), RunError>;

    /// Copies a part of the state out; waits for running work.
    ///
    /// # Errors
    /// A wrong length, or [`State::Grads`] before [`Executable::gradients`].
    fn read(&mut self, state: State, dst: &mut [f32]) -> Result<(), RunError>;

    /// As [`Executable::read`] in the backend's own precision, for comparisons.
    ///
    /// # Errors
    /// As [`Executable::read`].
    fn read_f64(&mut self, state: State, dst: &mut [f64]) -> Result<(), RunError> {
        let mut single = vec![0.0; dst.len()];
        self.read(state, &mut single)?;
        for (wide, narrow) in dst.iter_mut().zip(single) {
            *wide = f64::from(narrow);
        }
        Ok(())
    }

    /// Optimiser steps done.
    fn step(&self) -> u64;

    /// Sets the number of optimiser steps done, on resume.
    fn set_step(&mut self, step: u64);

    /// Makes a data set resident.
    ///
    /// # Errors
    /// A wrong width, no rows, or memory that cannot be had.
    fn upload(&mut self, rows: Rows<'_>) -> Result<DataId, RunError>;

    /// Releases a data set.
    ///
    /// # Errors
    /// [`RunError::UnknownData`].
    fn release(&mut self, data: DataId) -> Result<(), RunError>;

    /// Forward and backward pass: leaves [`State::Grads`] and the loss, updates nothing.
    ///
    /// # Errors
    /// A batch that does not fit the plan.
    fn gradients(&mut self, batch: &Batch<'_>) -> Result<(), RunError>;

    /// One optimiser step from [`State::Grads`], clipping included.
    ///
    /// # Errors
    /// [`RunError::NoGradients`].
    fn apply(&mut self) -> Result<(), RunError>;

    /// One training step, fused as the backend likes; equals `gradients` then `apply` up to rounding.
    ///
    /// # Errors
    /// A batch that does not fit the plan.
    fn train_step(&mut self, batch: &Batch<'_>) -> Result<(), RunError>;

    /// Trains on the rows `order` of `data` in batches of `rows`, the short last one kept.
    ///
    /// # Errors
    /// A batch that does not fit the plan; steps before it have been done.
    fn train_epoch(&mut self, data: DataId, order: &[u32], rows: usize, epoch: u32) -> Result<(), RunError> {
        if rows == 0 {
            return Err(RunError::Rows { rows, max_rows: self.plan().max_rows });
        }
        for batch in order.chunks(rows) {
            self.train_step(&Batch::resident(data, batch, epoch))?;
        }
        Ok(())
    }

    /// Runs an inference entry on any number of rows, row-major in and out.
    ///
    /// # Errors
    /// Slices that do not fit the entry.
    fn infer(&mut self, entry: Entry, input: &[f32], out: &mut [f32]) -> Result<(), RunError>;

    /// As [`Executable::infer`] in the backend's own precision, for comparisons.
    ///
    /// # Errors
    /// As [`Executable::infer`].
    fn infer_f64(&mut self, entry: Entry, input: &[f32], out: &mut [f64]) -> Result<(), RunError> {
        let mut single = vec![0.0; out.len()];
        self.infer(entry, input, &mut single)?;
        for (wide, narrow) in out.iter_mut().zip(single) {
            *wide = f64::from(narrow);
        }
        Ok(())
    }

    /// Drains the losses gathered since the last call; waits for running work.
    ///
    /// # Errors
    /// A failed device.
    fn losses(&mut self) -> Result<Losses, RunError>;

    /// Waits for running work.
    ///
    /// # Errors
    /// A failed device.
    fn synchronize(&mut self) -> Result<(), RunError>;
}
