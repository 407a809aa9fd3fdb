//! What one caller needs beside the shared weights, and how a call is divided among threads.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use cvae_core::{CompileError, Entry, OpProfile, RunError, Unsupported};

use super::chunks::{Chunks, NEAR_WEIGHTS};
use super::packed::{Layer, Packed, Weights};
use crate::arena::{Arena, Offsets};
use crate::backend::CpuBackend;
use crate::kernels::dense::Dense;
use crate::kernels::dense_bf16::{DenseBf16, Narrow};
use crate::kernels::dense_i8::{Ahead, DenseI8, Output, Quantize, Quantizer};
use crate::pool::{Barrier, Pool, Turn};
use crate::profile::Clock;
use crate::simd::bf16::Bf16;
use crate::team::{Member, part};

/// Weights of a layer, in bytes, below which one thread reads them faster than several can meet.
const SHARE_BYTES: usize = 16 * 1024;
/// Bytes of a float.
const FLOAT: usize = size_of::<f32>();

/// One caller's buffers and worker threads for a frozen model.
///
/// Calls allocate nothing, lock nothing and start no thread. Every number of threads gives the same bits, and a
/// row's result does not depend on the rows beside it.
pub struct Workspace {
    packed: Arc<Packed>,
    pool: Pool,
    barrier: Barrier,
    /// Buffers of each thread, and after them a set that all share.
    arena: Arena,
    buffers: Buffers,
    pub(super) chunks: Chunks,
    /// Measures every layer, if there is one.
    clock: Option<Clock>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace").field("threads", &self.pool.threads()).field("chunk", &self.chunks.most).finish()
    }
}

/// Offsets, in floats, within one set of buffers.
struct Buffers {
    /// Two activations, written in turn.
    activations: [usize; 2],
    /// Quantised or rounded rows of the caller.
    input: usize,
    /// Sums on their way out of a kernel.
    sums: usize,
    /// Floats of a set.
    len: usize,
}

/// Rows on their way through the layers.
#[derive(Clone, Copy)]
enum Rows {
    /// Floats at a stride.
    Real(*const f32, usize),
    /// Bytes at a stride.
    Bytes(*const u8, usize),
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
    /// The pointers from row `row` on, for rows of `from` and `to` values.
    ///
    /// # Safety
    /// The row exists.
    unsafe fn row(&self, row: usize, (from, to): (usize, usize)) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { input: self.input.add(row * from), out: self.out.add(row * to) } }
    }

    /// First byte and number of bytes of rows of `from` values read, and of as many of `to` values written.
    fn areas(&self, rows: Range<usize>, (from, to): (usize, usize)) -> [(*const u8, usize); 2] {
        let area = |start: *const f32, width: usize| {
            (start.wrapping_add(rows.start * width).cast::<u8>(), rows.len() * width * FLOAT)
        };
        [area(self.input, from), area(self.out, to)]
    }
}

impl Workspace {
    pub(super) fn new(packed: Arc<Packed>, threads: usize) -> Result<Self, CompileError> {
        let (threads, max) = (threads.max(1), CpuBackend::MAX_THREADS);
        if threads > max {
            let backend = packed.level.id().to_string();
            return Err(Unsupported::TooLarge { backend, what: "threads", max, asked: threads }.into());
        }
        let chunks = Chunks::new(&packed);
        let buffers = buffers(&packed, chunks.most);
        Ok(Self {
            arena: Arena::new(buffers.len * (threads + 1), "the inference buffers")?,
            pool: Pool::new(threads)?,
            barrier: Barrier::new(threads),
            packed,
            buffers,
            chunks,
            clock: None,
        })
    }

    /// Whether calls measure the time of every layer: see [`Workspace::profile`]. Off, unless asked for.
    pub fn profiled(self, profiled: bool) -> Self {
        let clock = profiled.then(|| Clock::new(self.pool.threads(), self.packed.layers.len()));
        Self { clock, ..self }
    }

    /// Where the time of calls went, layer by layer, waiting for other threads included; nothing unless it was
    /// asked for.
    pub fn profile(&self) -> Vec<OpProfile> {
        let Some(clock) = &self.clock else { return vec![] };
        let found = |(index, layer): (usize, &Layer)| {
            let (calls, seconds, rows) = clock.read(index);
            let values = (layer.inputs + layer.units) as f64;
            OpProfile {
                op: format!("dense [{}×{}]", layer.units, layer.inputs),
                calls,
                seconds,
                flops: 2.0 * (layer.inputs * layer.units) as f64 * rows,
                bytes: layer.bytes as f64 * calls as f64 + FLOAT as f64 * values * rows,
            }
        };
        self.packed.layers.iter().enumerate().map(found).filter(|entry| entry.seconds > 0.0).collect()
    }

    /// Threads of a call, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `entry` on row-major rows and writes one row of results for each. An int8 model takes NaN for the
    /// smallest value it knows.
    ///
    /// # Errors
    /// [`RunError::Length`] when the input is no whole number of rows, at least one, or `out` has not as many.
    pub fn infer(&mut self, entry: Entry, input: &[f32], out: &mut [f32]) -> Result<(), RunError> {
        let widths = self.packed.widths(entry);
        let rows = input.len() / widths.0;
        if input.len() != rows * widths.0 || rows == 0 {
            return Err(RunError::Length { what: "the input", expected: rows.max(1) * widths.0, found: input.len() });
        }
        if out.len() != rows * widths.1 {
            return Err(RunError::Length { what: "the output", expected: rows * widths.1, found: out.len() });
        }
        let io = Io { input: input.as_ptr(), out: out.as_mut_ptr() };
        self.run(self.packed.entry(entry), widths, rows, io);
        Ok(())
    }

    fn run(&mut self, layers: Range<usize>, widths: (usize, usize), rows: usize, io: Io) {
        let packed = &*self.packed;
        let first_layer = layers.start;
        let layers = &packed.layers[layers];
        let clock = self.clock.as_ref();
        let threads = self.pool.threads();
        let (arena, buffers, barrier, chunks) = (&self.arena, &self.buffers, &self.barrier, self.chunks);
        let together = Set { arena, buffers, first: threads };
        let tile = packed.kernels.tile;
        let bytes: usize = layers.iter().map(|layer| layer.bytes).sum();
        // Each weight that comes from memory is read by one thread alone until every thread has a whole chunk.
        let few = rows < threads * if bytes > NEAR_WEIGHTS { chunks.most } else { tile };
        let watch = |thread: usize| clock.map(|clock| Watch { clock, thread, first_layer });
        if threads == 1 || few && bytes * rows < SHARE_BYTES * layers.len() {
            let own = Set { arena, buffers, first: 0 };
            // SAFETY: the rows exist, and this thread alone uses its buffers.
            unsafe { alone(packed, layers, widths, 0..rows, chunks, io, &own, watch(0)) };
            return;
        }
        let io = &io;
        self.pool.run(&|thread| {
            let own = Set { arena, buffers, first: thread };
            let member = Member { thread, threads };
            if few {
                let mut turn = barrier.turn(thread);
                for (first, count) in chunks.of(rows) {
                    let pass = Pass { packed, layers, member, own: &own, shared: &together, watch: watch(thread) };
                    // SAFETY: the rows exist, and every thread makes the same passes.
                    unsafe {
                        pass.forward(io.row(first, widths), count, Ahead::NOTHING, || meet(barrier, thread, &mut turn));
                    }
                    meet(barrier, thread, &mut turn);
                }
            } else {
                // SAFETY: the rows exist, and this thread alone has them and its buffers.
                unsafe { alone(packed, layers, widths, part(rows, member), chunks, *io, &own, watch(thread)) };
            }
        });
    }
}

/// Waits for all threads.
fn meet(barrier: &Barrier, thread: usize, turn: &mut Turn) {
    barrier.arrive(thread, turn);
    barrier.wait(turn);
}

/// A clock in one thread's hand.
#[derive(Clone, Copy)]
struct Watch<'a> {
    clock: &'a Clock,
    thread: usize,
    /// First layer of the entry.
    first_layer: usize,
}

/// One thread takes some rows through the layers, chunk by chunk.
///
/// # Safety
/// The rows exist; nobody else uses them or the buffers.
#[allow(clippy::too_many_arguments, reason = "the parts of a call, borrowed separately")]
unsafe fn alone(
    packed: &Packed,
    layers: &[Layer],
    widths: (usize, usize),
    rows: Range<usize>,
    chunks: Chunks,
    io: Io,
    own: &Set<'_>,
    watch: Option<Watch<'_>>,
) {
    let member = Member { thread: 0, threads: 1 };
    let pass = Pass { packed, layers, member, own, shared: own, watch };
    for (first, count) in chunks.of(rows.len()) {
        let next = rows.start + first + count;
        let areas = io.areas(next..(next + count).min(rows.end), widths);
        // SAFETY: the caller's promise.
        unsafe { pass.forward(io.row(rows.start + first, widths), count, Ahead { areas }, || ()) };
    }
}

/// A set of buffers.
struct Set<'a> {
    arena: &'a Arena,
    buffers: &'a Buffers,
    /// Position among the sets.
    first: usize,
}

impl Set<'_> {
    fn at(&self, offset: usize) -> *mut f32 {
        self.arena.at(self.first * self.buffers.len + offset)
    }
}

/// One thread's share of some rows' way through some layers.
struct Pass<'a> {
    packed: &'a Packed,
    layers: &'a [Layer],
    /// Which outputs of every layer are this thread's.
    member: Member,
    /// Buffers of this thread.
    own: &'a Set<'a>,
    /// Activations of all threads of the pass.
    shared: &'a Set<'a>,
    watch: Option<Watch<'a>>,
}

impl Pass<'_> {
    /// Takes `rows` rows from `io.input` to `io.out`; meanwhile `ahead` is fetched. Between layers, `meet` waits for the
    /// other threads.
    ///
    /// # Safety
    /// The rows exist and are no more than a chunk; the threads of the pass call this together.
    unsafe fn forward(&self, io: Io, rows: usize, ahead: Ahead, mut meet: impl FnMut()) {
        let width = self.packed.kernels.panel();
        let mut x = Rows::Real(io.input, self.layers[0].inputs);
        if let Some(watch) = self.watch.filter(|_| self.member.thread == 0) {
            watch.clock.count(rows);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let begin = self.watch.map(|_| Instant::now());
            if index > 0 {
                meet();
            }
            let buffer = self.shared.at(self.shared.buffers.activations[index % 2]);
            let next = self.layers.get(index + 1);
            let output = match (layer.weights, next.map(|next| next.weights)) {
                (_, None) => Output::Real { y: io.out, stride: layer.units },
                (Weights::Int8 { .. }, Some(Weights::Int8 { quantizer, .. })) => {
                    Output::Bytes { y: buffer.cast(), stride: byte_stride(layer.units, width), quantizer }
                }
                (_, Some(_)) => Output::Real { y: buffer, stride: float_stride(layer.units, width) },
            };
            let ahead = if next.is_none() { ahead } else { Ahead::NOTHING };
            // SAFETY: the buffers hold a chunk of any layer's activations, and the last one goes to the
            // caller; the layers before are complete, and the panels are this thread's.
            unsafe { self.layer(layer, x, rows, output, ahead) };
            if let (Some(watch), Some(begin)) = (self.watch, begin) {
                watch.clock.add(watch.thread, watch.first_layer + index, begin);
            }
            x = match output {
                Output::Real { y, stride } => Rows::Real(y, stride),
                Output::Bytes { y, stride, .. } => Rows::Bytes(y, stride),
            };
        }
    }

    /// This thread's panels of a layer.
    ///
    /// # Safety
    /// As [`Pass::forward`] says of its buffers.
    unsafe fn layer(&self, layer: &Layer, x: Rows, rows: usize, output: Output, ahead: Ahead) {
        let Packed { kernels, arena, .. } = self.packed;
        let panels = part(layer.panels, self.member);
        let panels = (panels.start, panels.end);
        match (layer.weights, x, output) {
            (Weights::F32, Rows::Real(x, x_stride), Output::Real { y, stride: y_stride }) => {
                let query = Dense {
                    x,
                    x_stride,
                    rows,
                    inputs: layer.inputs,
                    w: arena.at(layer.w),
                    bias: arena.at(layer.bias),
                    activation: layer.activation,
                    panels,
                    units: layer.units,
                    y,
                    y_stride,
                    sums: self.own.at(self.own.buffers.sums),
                };
                // SAFETY: the packed layer has these parts, and the processor the instruction set.
                unsafe { kernels.dense_layer(&query) };
            }
            (Weights::Bf16, Rows::Real(x, x_stride), Output::Real { y, stride: y_stride }) => {
                let query = DenseBf16 {
                    x,
                    x_stride,
                    rows,
                    inputs: layer.inputs,
                    w: arena.at(layer.w).cast(),
                    bias: arena.at(layer.bias),
                    activation: layer.activation,
                    panels,
                    units: layer.units,
                    y,
                    y_stride,
                    sums: self.own.at(self.own.buffers.sums),
                };
                // SAFETY: the packed layer has these parts, and the processor the instruction set; the own buffer holds
                // a chunk of rounded rows.
                unsafe {
                    match kernels.rounded {
                        None => (kernels.dense_bf16)(&query),
                        Some(rounded) => {
                            let y: *mut Bf16 = self.own.at(self.own.buffers.input).cast();
                            let (width, stride) = (layer.inputs, half_stride(layer.inputs));
                            (rounded.narrow)(&Narrow { x, x_stride, width, rows, y, stride });
                            (rounded.dense)(&query.of(y.cast_const(), stride));
                        }
                    }
                }
            }
            (Weights::Int8 { start, scale, quantizer, panel_groups, joint }, x, output) => {
                let (x, x_stride) = match x {
                    Rows::Bytes(x, stride) => (x, stride),
                    // SAFETY: the own buffer holds a chunk of quantised rows.
                    Rows::Real(x, stride) => unsafe { self.quantize(x, stride, layer.inputs, rows, quantizer) },
                };
                let query = DenseI8 {
                    x,
                    x_stride,
                    rows,
                    groups: layer.groups(),
                    panel_groups,
                    w: arena.at(layer.w).cast(),
                    start: arena.at(start).cast(),
                    scale: arena.at(scale),
                    bias: arena.at(layer.bias),
                    activation: layer.activation,
                    joint,
                    panels,
                    units: layer.units,
                    output,
                    sums: self.own.at(self.own.buffers.sums).cast(),
                    ahead,
                };
                // SAFETY: as above; bytes come from a quantizer, weights were checked.
                unsafe { (kernels.dense_i8)(&query) };
            }
            (Weights::F32 | Weights::Bf16, _, _) => unreachable!("bytes pass between two int8 layers alone"),
        }
    }

    /// Quantises rows into this thread's buffer.
    ///
    /// # Safety
    /// The rows exist and are no more than a chunk.
    unsafe fn quantize(
        &self,
        x: *const f32,
        x_stride: usize,
        inputs: usize,
        rows: usize,
        quantizer: Quantizer,
    ) -> (*const u8, usize) {
        let kernels = self.packed.kernels;
        let y: *mut u8 = self.own.at(self.own.buffers.input).cast();
        let stride = byte_stride(inputs, kernels.panel());
        // SAFETY: the caller's promise.
        unsafe { (kernels.quantize)(&Quantize { x, x_stride, width: inputs, rows, y, stride, quantizer }) };
        (y, stride)
    }
}

/// Floats between rows of an activation: whole panels, and no power of two that would crowd a cache's sets.
fn float_stride(units: usize, width: usize) -> usize {
    let floats = units.next_multiple_of(width);
    if floats.is_multiple_of(256) { floats + 16 } else { floats }
}

/// Bytes between rows of a quantised activation: whole panels and whole cache lines.
fn byte_stride(units: usize, width: usize) -> usize {
    line_stride(units.next_multiple_of(width))
}

/// Halves between rows of a rounded activation: whole cache lines.
fn half_stride(units: usize) -> usize {
    line_stride(units * size_of::<Bf16>()) / size_of::<Bf16>()
}

/// Whole cache lines for `bytes`, and one more where rows would meet in the same sets of a cache.
fn line_stride(bytes: usize) -> usize {
    let bytes = bytes.next_multiple_of(64);
    if bytes.is_multiple_of(1024) { bytes + 64 } else { bytes }
}

/// Places the buffers of a chunk.
fn buffers(packed: &Packed, chunk: usize) -> Buffers {
    let width = packed.kernels.panel();
    let (mut activations, mut input) = (0, 0);
    for (index, layer) in packed.layers.iter().enumerate() {
        input = input.max(match layer.weights {
            Weights::Int8 { .. } => byte_stride(layer.inputs, width) / FLOAT,
            Weights::Bf16 if packed.kernels.rounded.is_some() => half_stride(layer.inputs) * size_of::<Bf16>() / FLOAT,
            Weights::Bf16 | Weights::F32 => 0,
        });
        let floats = match (layer.weights, packed.layers.get(index + 1).map(|next| next.weights)) {
            (_, None) => 0,
            (Weights::Int8 { .. }, Some(Weights::Int8 { .. })) => byte_stride(layer.units, width) / FLOAT,
            (_, Some(_)) => float_stride(layer.units, width),
        };
        activations = activations.max(floats);
    }
    let mut offsets = Offsets::default();
    let activations = [offsets.take(chunk * activations), offsets.take(chunk * activations)];
    let (input, sums) = (offsets.take(chunk * input), offsets.take(chunk * width));
    Buffers { activations, input, sums, len: offsets.len() }
}
