//! Running programs: by single launches, by recorded graphs of many steps, or by cooperative launches of many steps.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use crate::driver::{Buffer, Device, Driven, Event, Function, Graph, Module, Pinned, Stream};
use crate::program::Program;
use crate::task::Step;

/// How steps are put to the GPU. The results are the same bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaunchPath {
    /// One launch per phase.
    Launches,
    /// A recorded graph of many steps, replayed.
    Graph,
    /// One cooperative launch runs many steps, with barriers of the whole grid between phases.
    Cooperative,
}

impl fmt::Display for LaunchPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Launches => "launches",
            Self::Graph => "graph",
            Self::Cooperative => "cooperative",
        })
    }
}

/// The kernels of one precision.
#[derive(Debug)]
pub(crate) struct Kernels {
    phase: Function,
    steps: Function,
    /// Blocks of a cooperative launch: all that fit on the GPU at a time; 0 where it has none.
    pub(crate) cooperative_blocks: usize,
}

impl Kernels {
    /// Finds `phase_SUFFIX` and `steps_SUFFIX`.
    pub(crate) fn new(device: &Device, module: &Arc<Module>, suffix: &str) -> Driven<Self> {
        let steps = module.function(&format!("steps_{suffix}"))?;
        let resident = steps.resident_blocks()? * device.multiprocessors;
        let cooperative_blocks = if device.cooperative { resident } else { 0 };
        Ok(Self { phase: module.function(&format!("phase_{suffix}"))?, steps, cooperative_blocks })
    }
}

/// A program with its recorded graphs.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) program: Program,
    /// Graphs by number of steps: one, and as many as a launch takes.
    graphs: Vec<(usize, Graph)>,
}

impl Compiled {
    pub(crate) fn new(program: Program) -> Self {
        Self { program, graphs: vec![] }
    }
}

/// Pinned memory for the inputs of one launch, reusable once the copies from it are done.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) steps: Pinned<Step>,
    pub(crate) order: Pinned<u32>,
    pub(crate) rows: Pinned<f32>,
    copied: Event,
}

/// Slots that the host fills in turn while the device works.
const SLOTS: usize = 3;

/// The stream, the steps of the launch under way, and the pinned memory that feeds them.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) stream: Stream,
    kernels: Arc<Kernels>,
    path: LaunchPath,
    slots: Vec<Slot>,
    next: usize,
    /// Steps of the launch, in device memory.
    steps: Buffer<Step>,
    /// Order of a batch of resident rows.
    pub(crate) order: Buffer<u32>,
    /// Rows of a batch given by value.
    pub(crate) rows: Buffer<f32>,
    barrier: Buffer<u32>,
    steps_per_launch: usize,
}

impl Runner {
    /// Allocates for launches of up to `steps_per_launch` steps of `max_rows × width` rows.
    pub(crate) fn new(
        stream: Stream,
        kernels: Arc<Kernels>,
        path: LaunchPath,
        steps_per_launch: usize,
        max_rows: usize,
        width: usize,
    ) -> Driven<Self> {
        let device = &stream.device;
        let slot = || {
            Ok(Slot {
                steps: Pinned::new(device, steps_per_launch, "the steps")?,
                order: Pinned::new(device, max_rows, "the row order")?,
                rows: Pinned::new(device, max_rows * width, "the rows of a batch")?,
                copied: Event::new(device, false)?,
            })
        };
        Ok(Self {
            slots: (0..SLOTS).map(|_| slot()).collect::<Driven<_>>()?,
            next: 0,
            steps: Buffer::new(device, steps_per_launch, "the steps")?,
            order: Buffer::new(device, max_rows, "the row order")?,
            rows: Buffer::new(device, max_rows * width, "the rows of a batch")?,
            barrier: Buffer::zeroed(&stream, 1, "the grid barrier")?,
            stream,
            kernels,
            path,
            steps_per_launch,
        })
    }

    /// Most steps of one launch.
    pub(crate) fn steps_per_launch(&self) -> usize {
        self.steps_per_launch
    }

    /// The next slot, once its last copies are done.
    pub(crate) fn slot(&mut self) -> Driven<&mut Slot> {
        let slot = &mut self.slots[self.next];
        slot.copied.synchronize()?;
        Ok(slot)
    }

    /// Copies the first `rows` values and `order` indices of the current slot to the device.
    pub(crate) fn upload_batch(&mut self, rows: usize, order: usize) -> Driven<()> {
        let slot = &self.slots[self.next];
        self.stream.upload(&self.rows, 0, &slot.rows.as_slice()[..rows])?;
        self.stream.upload(&self.order, 0, &slot.order.as_slice()[..order])
    }

    /// Runs the program once for each of the first `count` steps of the current slot, and moves to the next slot.
    pub(crate) fn run(&mut self, compiled: &mut Compiled, count: usize) -> Driven<()> {
        let slot = &self.slots[self.next];
        self.stream.upload(&self.steps, 0, &slot.steps.as_slice()[..count])?;
        slot.copied.record(&self.stream)?;
        self.next = (self.next + 1) % SLOTS;
        match self.path {
            LaunchPath::Launches => self.launch_steps(&compiled.program, count),
            LaunchPath::Graph if count == 1 || count == self.steps_per_launch => self.replay(compiled, count),
            LaunchPath::Graph => self.launch_steps(&compiled.program, count),
            LaunchPath::Cooperative => self.launch_cooperative(&compiled.program, count),
        }
    }

    fn launch_steps(&self, program: &Program, count: usize) -> Driven<()> {
        (0..count).try_for_each(|step| self.launch_phases(program, step))
    }

    fn launch_phases(&self, program: &Program, step: usize) -> Driven<()> {
        let (steps, step) = (self.steps.address(0), step as i32);
        for (phase, tiles) in &program.launches {
            let (tasks, count) = (program.tasks.address(phase.first as usize), phase.count as i32);
            let mut arguments = [argument(&tasks), argument(&count), argument(&steps), argument(&step)];
            let blocks = u32::try_from(*tiles).unwrap_or(u32::MAX).clamp(1, i32::MAX as u32);
            // SAFETY: the arguments have the types of `phase_*` in kernels.cu; the tasks' addresses lie in buffers
            // that the executable owns, and every index that a kernel forms is below the extents they were made for.
            unsafe { self.stream.launch(&self.kernels.phase, blocks, false, &mut arguments)? };
        }
        Ok(())
    }

    fn replay(&self, compiled: &mut Compiled, count: usize) -> Driven<()> {
        let recorded = compiled.graphs.iter().position(|(steps, _)| *steps == count);
        let index = match recorded {
            Some(index) => index,
            None => {
                let graph = self.stream.capture(|| self.launch_steps(&compiled.program, count))?;
                compiled.graphs.push((count, graph));
                compiled.graphs.len() - 1
            }
        };
        self.stream.replay(&compiled.graphs[index].1)
    }

    fn launch_cooperative(&self, program: &Program, count: usize) -> Driven<()> {
        self.stream.clear(&self.barrier)?;
        let (tasks, phases, phase_count) =
            (program.tasks.address(0), program.phases.address(0), program.phases.len() as i32);
        let (steps, count, barrier) = (self.steps.address(0), count as i32, self.barrier.address(0));
        let mut arguments = [
            argument(&tasks),
            argument(&phases),
            argument(&phase_count),
            argument(&steps),
            argument(&count),
            argument(&barrier),
        ];
        let most = program.launches.iter().map(|(_, tiles)| *tiles).max().unwrap_or(1);
        let blocks = self.kernels.cooperative_blocks.min(most).max(1) as u32;
        // SAFETY: the arguments have the types of `steps_*` in kernels.cu; for the rest as in `launch_phases`.
        unsafe { self.stream.launch(&self.kernels.steps, blocks, true, &mut arguments) }
    }
}

fn argument<T>(value: &T) -> *mut c_void {
    std::ptr::from_ref(value).cast_mut().cast()
}
