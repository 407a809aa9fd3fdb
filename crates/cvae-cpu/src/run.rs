//! What one thread does in one pass over a schedule.

use std::time::Instant;

use cvae_core::{ParamId, ValueId};

use crate::cache;
use crate::elements::element;
use crate::kernels::element::Block;
use crate::kernels::gather::{BatchMajor, Gather, Source};
use crate::kernels::linear::Expand;
use crate::kernels::linear_grad::BiasGrad;
use crate::kernels::optimizer::Rule;
use crate::kernels::table::Kernels;
use crate::params::Params;
use crate::pool::{Barrier, Turn};
use crate::profile::Clock;
use crate::schedule::{Phase, Schedule, Step, Value};
use crate::team::{Member, part};
use crate::weight_grad::Term;

/// Rows of the contraction that stay in the first-level cache while batch panels pass by; twice as many halves.
const CONTRACTION_BLOCK: usize = 128;

/// The batch and the outputs of one pass.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) source: Source,
    /// Row indices, or null for consecutive rows from `first`.
    pub(crate) order: *const u32,
    pub(crate) first: usize,
    /// Noise position of row `first` where `order` is null.
    pub(crate) first_noise: u32,
    pub(crate) rows: usize,
    pub(crate) seed: u64,
    pub(crate) epoch: u32,
    pub(crate) rule: Rule,
    /// Slots of the loss terms; may be null in an inference pass.
    pub(crate) losses: *mut f64,
    /// Row-major output of an inference pass; else null.
    pub(crate) output: *mut f32,
}

/// One thread's view of an executable.
#[derive(Clone, Copy)]
pub(crate) struct Worker<'a> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) schedule: &'a Schedule,
    pub(crate) params: &'a Params,
    /// Start of the schedule's arena.
    pub(crate) arena: *mut f32,
    pub(crate) barrier: &'a Barrier,
    pub(crate) member: Member,
    /// Measures every phase, if there is one.
    pub(crate) clock: Option<&'a Clock>,
}

impl Worker<'_> {
    /// Runs every phase.
    ///
    /// # Safety
    /// Every thread of the barrier runs the same pass over the same schedule at the same time. `pass` holds
    /// valid row indices below the source's rows, 1 to `padded_rows` rows, and slots or outputs large enough
    /// for the schedule; the arena has the schedule's size; the kernels' instruction set is available.
    pub(crate) unsafe fn run(&self, pass: &Pass, turn: &mut Turn) {
        if let Some(rounded) = self.kernels.rounded {
            // SAFETY: the instruction set, by promise.
            unsafe { (rounded.enter)() };
        }
        for (index, phase) in self.schedule.phases.iter().enumerate() {
            let begin = self.clock.map(|_| Instant::now());
            // SAFETY: the barriers of the schedule order every access to shared memory; the rest is the
            // caller's promise.
            unsafe {
                match phase {
                    Phase::Gather { value } => self.gather(pass, *value),
                    Phase::Draw { op } => self.draw(pass, op),
                    Phase::Coupled { op, like, losses } => self.coupled(pass, op, *like, *losses),
                    Phase::Contract { input, weight, bias, output, steps } => {
                        self.contract(pass, (*input, *output), (*weight, *bias), steps);
                    }
                    Phase::Partial { input, weight } => self.partial(pass, *input, *weight),
                    Phase::Reduce { output, contracted, bias, steps } => {
                        self.reduce(pass, *output, *contracted, *bias, steps);
                    }
                    Phase::Expand { input, weight, bias, output, steps } => {
                        self.expand(pass, *input, *weight, *bias, *output, steps);
                    }
                    Phase::Elements { like, steps } => self.elements(pass, *like, steps),
                    Phase::WeightGrad { pairs, bias_grad, weight, bias, decay, norms: [weight_norm, bias_norm] } => {
                        self.weight_grad(pass, pairs, &Term { weight: *weight, decay: *decay, norm: *weight_norm });
                        if let Some(bias) = bias {
                            self.bias_grad(pass, *bias_grad, *bias, *decay, *bias_norm);
                        }
                    }
                    Phase::Scatter { value } => self.scatter(pass, *value),
                    Phase::Arrive => self.barrier.arrive(self.member.thread, turn),
                    Phase::Wait => self.barrier.wait(turn),
                }
                self.round_values(pass, index);
            }
            self.measured(index, begin);
        }
        if let Some(rounded) = self.kernels.rounded {
            // SAFETY: entered above.
            unsafe { (rounded.leave)() };
        }
    }

    /// Adds the time since `begin` to a part of the clock.
    pub(crate) fn measured(&self, part: usize, begin: Option<Instant>) {
        if let (Some(clock), Some(begin)) = (self.clock, begin) {
            clock.add(self.member.thread, part, begin);
        }
    }

    pub(crate) fn width(&self) -> usize {
        self.kernels.panel()
    }

    pub(crate) fn value(&self, id: ValueId) -> Value {
        self.schedule.values[id.index()]
    }

    /// Start of feature `feature` in batch panel `panel` of a value.
    pub(crate) unsafe fn at(&self, value: Value, batch_panel: usize, feature: usize) -> *mut f32 {
        // SAFETY: inside the arena by construction of the schedule.
        unsafe { self.arena.add(value.offset + batch_panel * value.stride + feature * self.width()) }
    }

    pub(crate) fn scratch(&self) -> *mut f32 {
        // SAFETY: the schedule reserves a scratch panel per thread.
        unsafe { self.arena.add(self.schedule.scratch + self.member.thread * self.schedule.scratch_stride) }
    }

    pub(crate) fn batch_panels(&self, pass: &Pass) -> usize {
        pass.rows.div_ceil(self.width())
    }

    /// Whether only the first half of a batch panel's lanes is in use.
    pub(crate) fn half(&self, pass: &Pass, batch_panel: usize) -> bool {
        pass.rows - batch_panel * self.width() <= self.kernels.lanes
    }

    /// The panels of a value that this thread produces.
    pub(crate) fn home(&self, value: Value) -> std::ops::Range<usize> {
        if value.split { self.member.panels(value.panels) } else { part(value.panels, self.member) }
    }

    /// A bias from `feature` on, or null.
    pub(crate) fn bias(&self, bias: Option<ParamId>, feature: usize) -> *const f32 {
        bias.map_or(std::ptr::null(), |id| self.params.w.at(self.params.slot(id).w + feature))
    }

    /// Features of one panel.
    pub(crate) fn features(&self, value: Value, panel: usize) -> usize {
        (value.width - panel * self.width()).min(self.width())
    }

    unsafe fn gather(&self, pass: &Pass, id: ValueId) {
        let value = self.value(id);
        for panel in self.home(value) {
            let feature = panel * self.width();
            let rows = self.schedule.padded_rows * self.width();
            // SAFETY: as promised to `run`; the panel is this thread's.
            unsafe {
                (self.kernels.gather)(&Gather {
                    source: pass.source,
                    width: value.width,
                    order: pass.order,
                    first: pass.first,
                    batch: pass.rows,
                    feature,
                    batch_major: self.arena.add(self.schedule.input_rows + panel * rows),
                    feature_major: self.at(value, 0, feature),
                    stride: value.stride,
                });
            }
        }
    }

    unsafe fn expand(
        &self,
        pass: &Pass,
        input: ValueId,
        weight: ParamId,
        bias: Option<ParamId>,
        output: ValueId,
        steps: &[Step],
    ) {
        let (from, to, slot, width) = (self.value(input), self.value(output), self.params.slot(weight), self.width());
        // The input's batch panels are read once for every panel of the output: as many at a time as half of the
        // second-level cache holds.
        let near = (cache::second_level() / 2 / (from.width * width * size_of::<f32>())).max(1);
        let block = if self.kernels.rounded.is_some() { 2 * CONTRACTION_BLOCK } else { CONTRACTION_BLOCK };
        for first in (0..self.batch_panels(pass)).step_by(near) {
            let batch_panels = first..self.batch_panels(pass).min(first + near);
            for panel in self.home(to) {
                let feature = panel * width;
                let bias = self.bias(bias, feature);
                for start in (0..from.width).step_by(block) {
                    let depth = (from.width - start).min(block);
                    for batch_panel in batch_panels.clone() {
                        // SAFETY: the weight's panel and the output's are this thread's; the input is complete.
                        unsafe {
                            let product = Expand {
                                w: self.params.w.at(slot.row(panel, start, width)),
                                depth,
                                x: self.at(from, batch_panel, start),
                                y: self.at(to, batch_panel, feature),
                                columns: self.features(to, panel),
                                accumulate: start > 0,
                                bias,
                                half: self.half(pass, batch_panel),
                            };
                            self.expand_product(&product, (weight, panel, start), (from, batch_panel, start));
                            if start + depth == from.width {
                                self.steps(pass, to, panel, batch_panel, steps);
                            }
                        }
                    }
                }
            }
        }
    }

    unsafe fn elements(&self, pass: &Pass, like: ValueId, steps: &[Step]) {
        let value = self.value(like);
        for panel in self.home(value) {
            for batch_panel in 0..self.batch_panels(pass) {
                // SAFETY: the panel is this thread's.
                unsafe { self.steps(pass, value, panel, batch_panel, steps) };
            }
        }
    }

    /// Runs elementwise ops on one panel of features in one batch panel.
    pub(crate) unsafe fn steps(&self, pass: &Pass, like: Value, panel: usize, batch_panel: usize, steps: &[Step]) {
        let width = self.width();
        let valid = (pass.rows - batch_panel * width).min(width);
        let block = Block { features: self.features(like, panel), valid };
        for step in steps {
            // SAFETY: operands have the panels of `like`, all of them this thread's.
            unsafe {
                let at = |value: ValueId| self.at(self.value(value), batch_panel, panel * width);
                let element = element(pass, &step.op, like.width, at);
                let loss = (self.kernels.element)(&block, &element);
                if let Some(index) = step.losses {
                    let slots = self.schedule.losses[index].first;
                    let batch_panels = self.schedule.padded_rows / width;
                    *pass.losses.add(slots + panel * batch_panels + batch_panel) = loss;
                }
            }
        }
    }

    unsafe fn bias_grad(&self, pass: &Pass, grad: ValueId, bias: ParamId, decay: f64, norm: Option<usize>) {
        let (value, slot, width) = (self.value(grad), self.params.slot(bias), self.width());
        for panel in self.home(value) {
            let at = slot.row(panel, 0, width);
            // SAFETY: the panel of the bias is this thread's; the gradient is complete.
            unsafe {
                (self.kernels.bias_grad)(&BiasGrad {
                    d: self.at(value, 0, panel * width),
                    stride: value.stride,
                    vectors: pass.rows.div_ceil(self.kernels.lanes),
                    features: self.features(value, panel),
                    w: self.params.w.at(at),
                    moments: self.params.moments.at(slot.moment_row(panel, 0, width)),
                    grad: self.params.grads.as_ref().map_or(std::ptr::null_mut(), |grads| grads.at(at)),
                    decay: decay as f32,
                    square_sum: norm_slot(pass, norm, panel),
                    rule: pass.rule,
                });
            }
        }
    }

    unsafe fn scatter(&self, pass: &Pass, id: ValueId) {
        let (value, width) = (self.value(id), self.width());
        for panel in self.home(value) {
            let features = self.features(value, panel);
            // SAFETY: the panel is this thread's, and so are its columns of the output.
            unsafe {
                let rows = self.scratch();
                (self.kernels.batch_major)(&BatchMajor {
                    feature_major: self.at(value, 0, panel * width),
                    stride: value.stride,
                    batch: pass.rows,
                    batch_major: rows,
                });
                for b in 0..pass.rows {
                    let to = pass.output.add(b * value.width + panel * width);
                    to.copy_from_nonoverlapping(rows.add(b * width), features);
                }
            }
        }
    }
}

/// Where the square sum of one panel of a parameter goes; null if the objective has no such term.
pub(crate) fn norm_slot(pass: &Pass, first: Option<usize>, panel: usize) -> *mut f64 {
    // SAFETY: the schedule counts a slot per panel.
    first.map_or(std::ptr::null_mut(), |first| unsafe { pass.losses.add(first + panel) })
}
