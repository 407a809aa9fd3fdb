//! Inference: rows in, rows out.
//!
//! Few rows are worked on by all threads together, split by features as in training. Many rows are divided
//! among the threads, each taking whole chunks through the network without a barrier. Both give the same bits.

use cvae_core::{CompileError, Entry, ParamId, Plan};

use crate::arena::Arena;
use crate::cache;
use crate::kernels::gather::Source;
use crate::kernels::optimizer::Rule;
use crate::kernels::table::Kernels;
use crate::params::Params;
use crate::pool::{Barrier, Pool};
use crate::run::{Pass, Worker};
use crate::schedule::Schedule;
use crate::split::assign_split;
use crate::team::{Member, part};

/// The schedules of one entry.
struct Schedules {
    /// All threads together.
    together: Schedule,
    /// One thread by itself.
    alone: Schedule,
}

/// The inference side of an executable.
pub(crate) struct Inference {
    entries: Vec<Schedules>,
    /// Rows of a chunk.
    chunk: usize,
    /// Activations for [`Schedules::together`].
    together: Arena,
    /// Activations for [`Schedules::alone`], one part per thread.
    alone: Arena,
    /// Floats of such a part.
    stride: usize,
    barrier: Barrier,
}

impl Inference {
    pub(crate) fn new(
        plan: &Plan,
        contracts: &[bool],
        params: &Params,
        width: usize,
        threads: usize,
    ) -> Result<Self, CompileError> {
        let widest = plan.program.reconstruct.values.iter().map(|shape| shape.size()).max().unwrap_or(1);
        // The widest activation of a chunk takes half of the second-level cache.
        let chunk = (cache::second_level() / 2 / (widest * size_of::<f32>())).clamp(32, 512).next_multiple_of(width);
        let panels = |id: ParamId| params.slot(id).panels;
        let mut contracts = contracts.to_vec();
        let mut schedule = |entry: Entry, threads: usize| {
            let graph = plan.program.entry(entry);
            let split = assign_split(graph, &mut contracts, true);
            let mut schedule = Schedule::new(graph, &split, &panels, width, threads, chunk);
            if params.rounded.is_some() {
                schedule.round_values(threads);
            }
            schedule
        };
        let entries: Vec<Schedules> = Entry::ALL
            .into_iter()
            .map(|entry| Schedules { together: schedule(entry, threads), alone: schedule(entry, 1) })
            .collect();
        let size = |of: fn(&Schedules) -> &Schedule| {
            entries.iter().map(|schedules| of(schedules).arena).max().unwrap_or(0).next_multiple_of(16)
        };
        let (together, stride) = (size(|s| &s.together), size(|s| &s.alone));
        Ok(Self {
            together: Arena::new(together, "the inference buffers")?,
            alone: Arena::new(stride * threads, "the inference buffers")?,
            stride,
            chunk,
            barrier: Barrier::new(threads),
            entries,
        })
    }

    /// Runs `entry` on `rows` rows; the slices have been checked.
    #[allow(clippy::too_many_arguments, reason = "the executable's parts, borrowed separately")]
    pub(crate) fn run(
        &mut self,
        entry: Entry,
        input: &[f32],
        out: &mut [f32],
        rows: usize,
        kernels: &Kernels,
        params: &Params,
        pool: &mut Pool,
    ) {
        let threads = pool.threads();
        let schedules = &self.entries[entry as usize];
        let (from, to) = (input.len() / rows, out.len() / rows);
        let io = Io { input: input.as_ptr(), out: out.as_mut_ptr() };
        let pass = |io: Io, first: usize, rows: usize| Pass {
            // SAFETY: `first + rows` rows exist on either side.
            source: Source::F32(unsafe { io.input.add(first * from) }),
            order: std::ptr::null(),
            first: 0,
            first_noise: 0,
            rows,
            seed: 0,
            epoch: 0,
            rule: Rule::Store,
            losses: std::ptr::null_mut(),
            // SAFETY: as above.
            output: unsafe { io.out.add(first * to) },
        };
        let chunk = self.chunk;
        let (barrier, stride) = (&self.barrier, self.stride);
        let (together, alone) = (&self.together, &self.alone);
        // Below two panels a thread, dividing rows would leave lanes or threads idle.
        let divide = threads == 1 || rows >= 2 * threads * kernels.panel();
        pool.run(&|thread| {
            let io = io.get();
            if divide {
                let member = Member { thread: 0, threads: 1 };
                let arena = alone.at(thread * stride);
                let worker =
                    Worker { kernels, schedule: &schedules.alone, params, arena, barrier, member, clock: None };
                let share = part(rows.div_ceil(kernels.panel()), Member { thread, threads });
                let mut first = share.start * kernels.panel();
                let end = (share.end * kernels.panel()).min(rows);
                while first < end {
                    let count = chunk.min(end - first);
                    // SAFETY: this thread alone uses its part of the arena and its rows of the output.
                    unsafe { worker.run(&pass(io, first, count), &mut Default::default()) };
                    first += count;
                }
            } else {
                let member = Member { thread, threads };
                let arena = together.at(0);
                let worker =
                    Worker { kernels, schedule: &schedules.together, params, arena, barrier, member, clock: None };
                let mut turn = barrier.turn(thread);
                for first in (0..rows).step_by(chunk) {
                    // SAFETY: every thread runs the same passes over the shared arena.
                    unsafe { worker.run(&pass(io, first, chunk.min(rows - first)), &mut turn) };
                    barrier.arrive(thread, &mut turn);
                    barrier.wait(&mut turn);
                }
            }
        });
    }
}

/// The caller's slices, shared by the threads of a call.
#[derive(Clone, Copy)]
struct Io {
    input: *const f32,
    out: *mut f32,
}

// SAFETY: threads read the input and write disjoint rows or columns of the output.
unsafe impl Sync for Io {}

impl Io {
    fn get(self) -> Self {
        self
    }
}
