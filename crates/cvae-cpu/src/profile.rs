//! Where the time of an executable goes, phase by phase.
//!
//! Off, it costs one comparison a phase; on, two readings of the clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cvae_core::{OpProfile, ParamId, ParamLayout};

use crate::params::{Params, Slot};
use crate::schedule::{Phase, Schedule};

/// Counters between the rows of two threads, so that they share no cache line.
const PADDING: usize = 16;
/// Bytes of a float.
const FLOAT: f64 = size_of::<f32>() as f64;
/// Numbers that an update reads and writes for each weight: the weight and its two moments.
const UPDATED: f64 = 6.0;

/// The entry of all barriers.
const WAITING: &str = "waiting for other threads";

/// Nanoseconds of each part of a pass on each thread, and how often it was run.
pub(crate) struct Clock {
    /// `[thread][parts + PADDING]`
    nanos: Vec<AtomicU64>,
    threads: usize,
    stride: usize,
    passes: AtomicU64,
    rows: AtomicU64,
}

impl Clock {
    /// A stopped clock of `parts` parts for `threads` threads.
    pub(crate) fn new(threads: usize, parts: usize) -> Self {
        let stride = parts + PADDING;
        let nanos = std::iter::repeat_with(AtomicU64::default).take(threads * stride).collect();
        Self { nanos, threads, stride, passes: AtomicU64::new(0), rows: AtomicU64::new(0) }
    }

    /// Counts a pass over `rows` rows. Of threads that work on the same rows one counts.
    pub(crate) fn count(&self, rows: usize) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Adds the time since `begin` to a part.
    pub(crate) fn add(&self, thread: usize, part: usize, begin: Instant) {
        let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos[thread * self.stride + part].fetch_add(nanos, Ordering::Relaxed);
    }

    /// Calls, seconds (the mean over the threads) and rows of a part.
    pub(crate) fn read(&self, part: usize) -> (u64, f64, f64) {
        let nanos = (0..self.threads).map(|thread| self.nanos[thread * self.stride + part].load(Ordering::Relaxed));
        let seconds = nanos.sum::<u64>() as f64 / 1e9 / self.threads as f64;
        (self.passes.load(Ordering::Relaxed), seconds, self.rows.load(Ordering::Relaxed) as f64)
    }
}

/// Parts of a training step: its phases, its last barrier, and the update where that is a pass of its own.
pub(crate) fn parts(schedule: &Schedule) -> usize {
    update(schedule) + 1
}

/// The part of the barrier that ends a step.
pub(crate) fn end_of_step(schedule: &Schedule) -> usize {
    schedule.phases.len()
}

/// The part of an update after clipping.
pub(crate) fn update(schedule: &Schedule) -> usize {
    schedule.phases.len() + 1
}

/// What each part of a step took: equal ones together, in the order of the phases; waiting comes last.
pub(crate) fn phases(clock: &Clock, schedule: &Schedule, params: &Params, layout: &ParamLayout) -> Vec<OpProfile> {
    let mut found: Vec<OpProfile> = vec![];
    for (index, phase) in schedule.phases.iter().enumerate() {
        let (calls, seconds, rows) = clock.read(index);
        let name = |verb: &str, weight: ParamId| {
            let param = &layout.params()[weight.index()];
            let shape: Vec<String> = param.shape.iter().map(ToString::to_string).collect();
            format!("{verb} {} [{}]", param.name, shape.join("×"))
        };
        let elements = |slot: &Slot| slot.rows as f64 * slot.columns as f64;
        // Values that a product reads and writes for each row.
        let values = |slot: &Slot| (slot.rows + slot.columns) as f64;
        let (op, per_row, bytes) = match phase {
            Phase::Contract { weight, .. } | Phase::Partial { weight, .. } | Phase::Expand { weight, .. } => {
                let slot = params.slot(*weight);
                let verb = match phase {
                    Phase::Contract { .. } => "contract",
                    Phase::Partial { .. } => "partial",
                    _ => "expand",
                };
                let bytes = elements(slot) * calls as f64 + values(slot) * rows;
                (name(verb, *weight), 2.0 * elements(slot), FLOAT * bytes)
            }
            Phase::WeightGrad { weight, pairs, .. } => {
                let (slot, pairs) = (params.slot(*weight), pairs.len() as f64);
                let bytes = UPDATED * elements(slot) * calls as f64 + pairs * values(slot) * rows;
                (name("weight_grad+update", *weight), 2.0 * pairs * elements(slot), FLOAT * bytes)
            }
            Phase::Gather { .. } => ("gather".to_owned(), 0.0, 0.0),
            Phase::Draw { .. } => ("draw".to_owned(), 0.0, 0.0),
            Phase::Coupled { .. } => ("coupled".to_owned(), 0.0, 0.0),
            Phase::Reduce { .. } => ("reduce".to_owned(), 0.0, 0.0),
            Phase::Elements { .. } => ("elements".to_owned(), 0.0, 0.0),
            Phase::Scatter { .. } => ("scatter".to_owned(), 0.0, 0.0),
            Phase::Arrive | Phase::Wait => (WAITING.to_owned(), 0.0, 0.0),
        };
        add(&mut found, OpProfile { op, calls, seconds, flops: per_row * rows, bytes });
    }
    let rest = [(update(schedule), "clip+apply"), (end_of_step(schedule), WAITING)];
    for (part, op) in rest {
        let (calls, seconds, _) = clock.read(part);
        add(&mut found, OpProfile { op: op.to_owned(), calls, seconds, flops: 0.0, bytes: 0.0 });
    }
    found.retain(|entry| entry.seconds > 0.0);
    found.sort_by_key(|entry| entry.op == WAITING);
    found
}

/// Adds an entry to the one of the same op, or as a new one.
fn add(found: &mut Vec<OpProfile>, entry: OpProfile) {
    match found.iter_mut().find(|other| other.op == entry.op) {
        Some(other) => {
            other.seconds += entry.seconds;
            other.flops += entry.flops;
            other.bytes += entry.bytes;
        }
        None => found.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_means_over_threads() {
        let clock = Clock::new(2, 3);
        let begin = Instant::now() - std::time::Duration::from_millis(500);
        clock.add(1, 2, begin);
        clock.count(32);
        clock.count(8);
        let (calls, seconds, rows) = clock.read(2);
        assert_eq!((calls, rows), (2, 40.0));
        assert!((0.25..0.5).contains(&seconds), "{seconds}");
        assert_eq!(clock.read(1).1, 0.0);
    }
}
