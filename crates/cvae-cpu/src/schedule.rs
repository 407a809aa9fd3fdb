//! From a graph of the program to the phases that threads run.
//!
//! Activations alternate between two kinds. A *split* value is divided by features: each thread owns some
//! panels of it and of the weights around it, so that weights never move between cores. A *whole* value is
//! read by every thread. A product that contracts a split value is formed per shard ([`Phase::Partial`]) and
//! summed ([`Phase::Reduce`]), or, for large batches, by each thread for its part of the rows ([`Phase::Contract`]);
//! a product into a split value needs no exchange ([`Phase::Expand`]).
//!
//! Barriers are derived from what each phase reads and writes, never placed by hand: threads arrive right
//! after the last phase that a later one depends on, and wait just before the one that needs it.

use cvae_core::{Graph, Op, ParamId, Term, ValueId};

use crate::arena::Offsets;
use crate::contract;
use crate::elements::Class;
use crate::rounded::RoundedValues;
use crate::spectral;
use crate::team::{self, Member};
use crate::weight_grad::sums_scratch;

/// Most pairs of values that make up a weight's gradient.
pub(crate) const MAX_PAIRS: usize = 32;

/// A value in the arena: batch panels of `[feature][PW]`, features padded to whole panels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    /// Offset in the arena.
    pub(crate) offset: usize,
    /// Features.
    pub(crate) width: usize,
    /// Panels of features.
    pub(crate) panels: usize,
    /// Floats between batch panels.
    pub(crate) stride: usize,
    /// Whether threads own panels of it.
    pub(crate) split: bool,
}

/// An elementwise op; `slots` is where its loss term goes, if it has one.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) losses: Option<usize>,
}

/// One piece of work, shared by all threads, or half a barrier.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Rows into panels.
    Gather { value: ValueId },
    /// Noise, marks or signs into panels.
    Draw { op: Op },
    /// An op on whole rows or the whole batch; its outputs are laid out like `like`, and `losses` is as in
    /// [`Step`].
    Coupled { op: Op, like: ValueId, losses: Option<usize> },
    /// `weight` times a split value, bias, then elementwise ops; each thread has a part of the batch panels.
    Contract { input: ValueId, weight: ParamId, bias: Option<ParamId>, output: ValueId, steps: Vec<Step> },
    /// Shard sums of `weight` times a split value.
    Partial { input: ValueId, weight: ParamId },
    /// Sum of the shards of the `panels`-wide contraction, bias, then elementwise ops.
    Reduce { output: ValueId, contracted: usize, bias: Option<ParamId>, steps: Vec<Step> },
    /// `weight` times a whole value, bias, then elementwise ops.
    Expand { input: ValueId, weight: ParamId, bias: Option<ParamId>, output: ValueId, steps: Vec<Step> },
    /// Elementwise ops alone, on the panels of `like`.
    Elements { like: ValueId, steps: Vec<Step> },
    /// Gradient of `weight` and its bias, and their update. Of each pair the second value is split.
    WeightGrad {
        pairs: Vec<(ValueId, ValueId)>,
        bias_grad: ValueId,
        weight: ParamId,
        bias: Option<ParamId>,
        decay: f64,
        /// First slots of the square sums of the weight and of the bias.
        norms: [Option<usize>; 2],
    },
    /// Panels into rows.
    Scatter { value: ValueId },
    /// This thread's work so far may be used.
    Arrive,
    /// Every thread has arrived.
    Wait,
}

/// Where the loss terms of a step are gathered.
#[derive(Clone, Debug)]
pub(crate) struct LossSlots {
    pub(crate) term: Term,
    /// First slot.
    pub(crate) first: usize,
    /// Panels of features, each with one slot per batch panel.
    pub(crate) panels: usize,
}

/// Slots of the square sums of one parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormSlots {
    pub(crate) param: ParamId,
    pub(crate) first: usize,
    pub(crate) panels: usize,
}

/// A graph made runnable for a number of threads.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) phases: Vec<Phase>,
    pub(crate) values: Vec<Value>,
    /// Offset of the shard sums, and floats between shards.
    pub(crate) partial: usize,
    pub(crate) shard_stride: usize,
    /// Offset of the batch-major input, `[panel][rows][PW]`.
    pub(crate) input_rows: usize,
    /// Offset of each thread's scratch panels, `[pair][rows][PW]`.
    pub(crate) scratch: usize,
    pub(crate) scratch_stride: usize,
    /// Offset of unfinished gradients in a thread's scratch.
    pub(crate) sums: usize,
    /// Floats of the arena.
    pub(crate) arena: usize,
    pub(crate) losses: Vec<LossSlots>,
    pub(crate) norms: Vec<NormSlots>,
    /// λ of the parameter term.
    pub(crate) norm_coefficient: f64,
    /// Number of `f64` slots of a step.
    pub(crate) slots: usize,
    /// Rows padded to whole batch panels.
    pub(crate) padded_rows: usize,
    /// Of a level that rounds the operands of its products.
    pub(crate) rounded: Option<RoundedValues>,
}

/// What a phase touches.
#[derive(Clone, Copy, PartialEq)]
enum Resource {
    Value(ValueId),
    Param(ParamId),
    ShardSums,
}

/// Which part of a resource a thread touches; two phases with equal kinds touch the same part.
#[derive(Clone, Copy, PartialEq)]
enum Share {
    /// The panels that the thread owns.
    Owned,
    /// An even share of the panels.
    Part,
    /// An even share of the batch panels.
    Rows,
    /// Everything.
    All,
}

#[derive(Clone, Copy)]
struct Access {
    resource: Resource,
    share: Share,
    write: bool,
    /// Serial number of the phase.
    serial: usize,
}

struct Builder<'a> {
    graph: &'a Graph,
    threads: usize,
    values: Vec<Value>,
    /// Phases with their serial numbers; barriers carry the serial of the phase they follow.
    phases: Vec<(usize, Phase)>,
    serial: usize,
    accesses: Vec<Access>,
    losses: Vec<LossSlots>,
    norms: Vec<NormSlots>,
    norm_coefficient: f64,
    slots: usize,
    batch_panels: usize,
    /// Whether contractions divide the batch.
    by_rows: bool,
}

impl Schedule {
    /// Schedules `graph` for `threads` threads and batches of up to `rows` rows; `width` is the panel width,
    /// and `panels(param)` the number of panels of a parameter.
    pub(crate) fn new(
        graph: &Graph,
        split: &[bool],
        panels: &dyn Fn(ParamId) -> usize,
        width: usize,
        threads: usize,
        rows: usize,
    ) -> Self {
        let padded_rows = rows.next_multiple_of(width);
        let mut offsets = Offsets::default();
        let values: Vec<Value> = graph
            .values
            .iter()
            .zip(split)
            .map(|(shape, split)| {
                let panels = shape.size().div_ceil(width);
                let stride = panels * width * width;
                let offset = offsets.take(stride * (padded_rows / width));
                Value { offset, width: shape.size(), panels, stride, split: *split }
            })
            .collect();
        let shard_stride =
            values.iter().filter(|v| !v.split).map(|v| v.panels).max().unwrap_or(0) * width * padded_rows;
        let by_rows = contract::divides_batch(padded_rows / width, threads);
        let partial = offsets.take(if by_rows { 0 } else { shard_stride * team::shards(usize::MAX) });
        let input_rows = offsets.take(values[graph.input.index()].panels * padded_rows * width);
        let pairs = graph.ops.iter().map(|op| match op {
            Op::LinearGradWeight { extra, .. } => 1 + extra.len(),
            _ => 1,
        });
        let sums = padded_rows * width * pairs.max().unwrap_or(1);
        let widest = values.iter().map(|value| value.width).max().unwrap_or(0);
        let gradients = sums + sums_scratch(rows, widest, width);
        let contraction = if by_rows { contract::SCRATCH } else { 0 };
        let scratch_stride = gradients.max(contraction).max(spectral::scratch(graph, width)).next_multiple_of(16);
        let scratch = offsets.take(scratch_stride * threads);
        let mut b = Builder {
            graph,
            threads,
            values,
            phases: vec![],
            serial: 0,
            accesses: vec![],
            losses: vec![],
            norms: vec![],
            norm_coefficient: 0.0,
            slots: 0,
            batch_panels: padded_rows / width,
            by_rows,
        };
        b.build(panels);
        Self {
            phases: b.phases.into_iter().map(|(_, phase)| phase).collect(),
            values: b.values,
            partial,
            shard_stride,
            input_rows,
            scratch,
            scratch_stride,
            sums,
            arena: offsets.len(),
            losses: b.losses,
            norms: b.norms,
            norm_coefficient: b.norm_coefficient,
            slots: b.slots,
            padded_rows,
            rounded: None,
        }
    }
}

impl Builder<'_> {
    fn build(&mut self, panels: &dyn Fn(ParamId) -> usize) {
        let input = self.graph.input;
        self.push(Phase::Gather { value: input }, &[(Resource::Value(input), self.home(input), true)]);
        // A reduction is put off behind the weight gradients that follow it, which need no exchange.
        let mut pending: Option<(ValueId, usize)> = None;
        // Behind another product they are put off themselves, so that elementwise ops join the product's phase.
        let mut held: Vec<&Op> = vec![];
        for op in &self.graph.ops {
            if !matches!(op, Op::LinearGradWeight { .. }) && Class::of(op) != Class::Elementwise {
                held.drain(..).for_each(|op| self.weight_grad(op));
            }
            let waits = |(output, _): &(ValueId, usize)| {
                !matches!(op, Op::LinearGradWeight { .. }) || op.reads().contains(output)
            };
            if let Some((output, contracted)) = pending.take_if(|pending| waits(pending)) {
                self.reduce(output, contracted, None);
            }
            match *op {
                Op::Linear { input, weight, bias, output } => {
                    if let Some((output, contracted)) = self.product(input, weight, bias, output) {
                        self.reduce(output, contracted, bias);
                    }
                }
                Op::LinearGradInput { grad, weight, output } => pending = self.product(grad, weight, None, output),
                Op::LinearGradWeight { .. } if pending.is_some() => self.weight_grad(op),
                Op::LinearGradWeight { .. } => held.push(op),
                Op::ParamNorm { coefficient, ref params } => {
                    self.norm_coefficient = coefficient;
                    for param in params {
                        let count = panels(*param);
                        self.norms.push(NormSlots { param: *param, first: self.slots, panels: count });
                        self.slots += count;
                    }
                }
                Op::Update => {}
                _ => match Class::of(op) {
                    Class::Drawn => self.draw(op),
                    Class::Coupled => self.coupled(op),
                    Class::Elementwise => self.element(op),
                    Class::Structural => unreachable!("{op} has a phase of its own"),
                },
            }
        }
        held.drain(..).for_each(|op| self.weight_grad(op));
        if let Some(value) = self.graph.output {
            self.push(Phase::Scatter { value }, &[(Resource::Value(value), self.home(value), false)]);
        }
    }

    fn value(&self, value: ValueId) -> Value {
        self.values[value.index()]
    }

    /// The share of a value that its producer writes.
    fn home(&self, value: ValueId) -> Share {
        if self.value(value).split { Share::Owned } else { Share::Part }
    }

    /// The share of a split value that a contraction over it reads.
    fn shards_of(&self, value: ValueId) -> Share {
        if Member::owns_shards(self.threads, self.value(value).panels) { Share::Owned } else { Share::All }
    }

    /// `weight` times `input`. Returns the value and the panels of a reduction that is left to do.
    fn product(
        &mut self,
        input: ValueId,
        weight: ParamId,
        bias: Option<ParamId>,
        output: ValueId,
    ) -> Option<(ValueId, usize)> {
        match (self.value(input).split, self.by_rows) {
            (false, _) => self.expand(input, weight, bias, output),
            (true, true) => self.contract(input, weight, bias, output),
            (true, false) => {
                self.partial(input, weight);
                return Some((output, self.value(input).panels));
            }
        }
        None
    }

    fn partial(&mut self, input: ValueId, weight: ParamId) {
        let share = self.shards_of(input);
        self.push(
            Phase::Partial { input, weight },
            &[
                (Resource::Value(input), share, false),
                (Resource::Param(weight), share, false),
                (Resource::ShardSums, Share::Owned, true),
            ],
        );
    }

    fn contract(&mut self, input: ValueId, weight: ParamId, bias: Option<ParamId>, output: ValueId) {
        let mut accesses = vec![
            (Resource::Value(input), Share::All, false),
            (Resource::Param(weight), Share::All, false),
            (Resource::Value(output), Share::Rows, true),
        ];
        accesses.extend(bias.map(|bias| (Resource::Param(bias), Share::All, false)));
        self.push(Phase::Contract { input, weight, bias, output, steps: vec![] }, &accesses);
    }

    fn reduce(&mut self, output: ValueId, contracted: usize, bias: Option<ParamId>) {
        let mut accesses = vec![(Resource::ShardSums, Share::All, false), (Resource::Value(output), Share::Part, true)];
        accesses.extend(bias.map(|bias| (Resource::Param(bias), Share::Part, false)));
        self.push(Phase::Reduce { output, contracted, bias, steps: vec![] }, &accesses);
    }

    fn expand(&mut self, input: ValueId, weight: ParamId, bias: Option<ParamId>, output: ValueId) {
        let mut accesses = vec![
            (Resource::Value(input), Share::All, false),
            (Resource::Param(weight), Share::Owned, false),
            (Resource::Value(output), Share::Owned, true),
        ];
        accesses.extend(bias.map(|bias| (Resource::Param(bias), Share::Owned, false)));
        self.push(Phase::Expand { input, weight, bias, output, steps: vec![] }, &accesses);
    }

    fn weight_grad(&mut self, op: &Op) {
        let Op::LinearGradWeight { input, grad, weight, bias, decay, ref extra } = *op else { return };
        let order = |&(input, grad): &(ValueId, ValueId)| match self.value(input).split {
            true => (grad, input),
            false => (input, grad),
        };
        let pairs: Vec<_> = std::iter::once(&(input, grad)).chain(extra).map(order).collect();
        let mut accesses = vec![(Resource::Param(weight), Share::Owned, true)];
        for (whole, split) in &pairs {
            accesses.push((Resource::Value(*whole), Share::All, false));
            accesses.push((Resource::Value(*split), Share::Owned, false));
        }
        accesses.extend(bias.map(|bias| (Resource::Param(bias), self.home(grad), true)));
        let norm = |param: ParamId| self.norms.iter().find(|norm| norm.param == param).map(|norm| norm.first);
        let norms = [norm(weight), bias.and_then(norm)];
        self.push(Phase::WeightGrad { pairs, bias_grad: grad, weight, bias, decay, norms }, &accesses);
    }

    fn draw(&mut self, op: &Op) {
        let accesses: Vec<_> =
            op.writes().into_iter().map(|value| (Resource::Value(value), self.home(value), true)).collect();
        self.push(Phase::Draw { op: op.clone() }, &accesses);
    }

    fn coupled(&mut self, op: &Op) {
        let Some(like) = op.writes().first().copied() else { return };
        let reads = op.reads().into_iter().map(|value| (Resource::Value(value), Share::All, false));
        let writes = op.writes().into_iter().map(|value| (Resource::Value(value), self.home(value), true));
        let mut accesses: Vec<_> = reads.chain(writes).collect();
        if let Op::SpectralScale { weight, .. } = *op {
            accesses.push((Resource::Param(weight), Share::All, false));
        }
        let losses = self.loss_slots(op, like);
        self.push(Phase::Coupled { op: op.clone(), like, losses }, &accesses);
    }

    /// Slots for the term of `op`, if it has one.
    fn loss_slots(&mut self, op: &Op, like: ValueId) -> Option<usize> {
        let term = op.term()?;
        let panels = self.value(like).panels;
        self.losses.push(LossSlots { term, first: self.slots, panels });
        self.slots += panels * self.batch_panels;
        Some(self.losses.len() - 1)
    }

    /// Adds an elementwise op to the last phase if that works on the same panels, else as a phase of its own.
    fn element(&mut self, op: &Op) {
        let Some(like) = op.writes().first().copied() else { return };
        let accesses = |share| -> Vec<_> {
            let reads = op.reads().into_iter().map(move |value| (Resource::Value(value), share, false));
            let writes = op.writes().into_iter().map(move |value| (Resource::Value(value), share, true));
            reads.chain(writes).collect()
        };
        let share = match self.phases.last() {
            Some((_, Phase::Contract { .. })) => Share::Rows,
            _ => self.home(like),
        };
        let losses = self.loss_slots(op, like);
        let step = Step { op: op.clone(), losses };
        let clear = accesses(share).iter().all(|access| self.conflict(access).is_none());
        let serial = self.serial;
        match self.phases.last_mut() {
            Some((
                last,
                Phase::Contract { output: host, steps, .. }
                | Phase::Reduce { output: host, steps, .. }
                | Phase::Expand { output: host, steps, .. }
                | Phase::Elements { like: host, steps },
            )) if clear && *last == serial && same_kind(&self.values, host, &like) => {
                steps.push(step);
                for (resource, share, write) in accesses(share) {
                    self.accesses.push(Access { resource, share, write, serial });
                }
            }
            _ => {
                // An operand may be divided otherwise: its share then differs, and `push` puts a barrier before.
                debug_assert!(op.reads().iter().all(|value| self.value(*value).width == self.value(like).width));
                self.push(Phase::Elements { like, steps: vec![step] }, &accesses(self.home(like)));
            }
        }
    }

    /// Serial of the latest phase that must be finished everywhere before `access` may happen.
    fn conflict(&self, &(resource, share, write): &(Resource, Share, bool)) -> Option<usize> {
        if self.threads == 1 {
            return None;
        }
        let clash = |old: &&Access| {
            old.resource == resource && (old.write || write) && !(old.share == share && share != Share::All)
        };
        self.accesses.iter().filter(clash).map(|old| old.serial).max()
    }

    /// Appends a phase, with a barrier if it depends on what other threads did.
    fn push(&mut self, phase: Phase, accesses: &[(Resource, Share, bool)]) {
        if let Some(serial) = accesses.iter().filter_map(|access| self.conflict(access)).max() {
            let after = self.phases.iter().rposition(|(s, _)| *s <= serial).map_or(0, |position| position + 1);
            self.phases.insert(after, (serial, Phase::Arrive));
            self.phases.push((self.serial, Phase::Wait));
            self.accesses.retain(|old| old.serial > serial);
        }
        self.serial += 1;
        let serial = self.serial;
        for &(resource, share, write) in accesses {
            self.accesses.push(Access { resource, share, write, serial });
        }
        self.phases.push((serial, phase));
    }
}

fn same_kind(values: &[Value], a: &ValueId, b: &ValueId) -> bool {
    let (a, b) = (values[a.index()], values[b.index()]);
    a.split == b.split && a.width == b.width
}
