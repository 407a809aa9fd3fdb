//! Contractions of split values: sums of shards, and what adds them.
//!
//! Threads form the sums of their own features for the whole batch ([`Phase::Partial`]), and add them up after a barrier
//! ([`Phase::Reduce`]). Of a large batch such sums would leave the caches before they are added: each thread then has a part of
//! the batch panels, and all of the sum ([`Phase::Contract`]). It adds the same tree, so that the bits are the same, and reads
//! the whole weight for it, which pays once that many batch panels share it.
//!
//! [`Phase::Partial`]: crate::schedule::Phase::Partial
//! [`Phase::Reduce`]: crate::schedule::Phase::Reduce
//! [`Phase::Contract`]: crate::schedule::Phase::Contract

use std::ops::Range;

use cvae_core::{ParamId, ValueId};

use crate::cache;
use crate::kernels::linear::{Partial, Reduce};
use crate::run::{Pass, Worker};
use crate::schedule::{Step, Value};
use crate::team::{self, MAX_SHARDS, Member, Nodes, part};

/// Batch panels of a thread from which on it reads whole weights.
const PANELS: usize = 32;
/// Floats of unfinished sums of one shard, for all batch panels that are taken at a time.
const SUMS: usize = 8 * 1024;
/// Rows of a weight for which a batch panel is read once more.
const ROWS: usize = 128;
/// Floats of scratch that a thread needs.
pub(crate) const SCRATCH: usize = SUMS * MAX_SHARDS;

/// Whether contractions divide a batch of `panels` panels among `threads` threads.
pub(crate) fn divides_batch(panels: usize, threads: usize) -> bool {
    panels >= PANELS * threads
}

/// Rows of a weight, in whole panels of `width`, of which `near` floats hold `depth` columns.
fn rows_near(near: usize, depth: usize, width: usize) -> usize {
    near / depth.max(1) / width * width
}

/// Floats of a second-level cache.
fn second_level() -> usize {
    cache::second_level() / size_of::<f32>()
}

/// What is taken at a time: rows of the weight, in whole panels, and batch panels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Block {
    rows: usize,
    batch_panels: usize,
}

/// The block of a weight of `rows` rows that contracts `depth` features, in panels of `width`, beside a second-level cache of
/// `near` floats: as many rows as it holds for one batch panel, whose sums stay in the first-level cache, or two shards of as
/// many as half of it holds, for many batch panels.
fn block(rows: usize, depth: usize, width: usize, near: usize) -> Block {
    let even = |most: usize| rows.div_ceil(rows.div_ceil(most)).next_multiple_of(width);
    let whole = rows_near(near, depth, width).min(SUMS / width);
    if whole >= rows.min(ROWS) {
        return Block { rows: even(whole), batch_panels: 1 };
    }
    let panels = depth.div_ceil(width);
    let pair = 2 * panels.div_ceil(team::shards(panels)) * width;
    let rows = even(rows_near(near / 2, pair, width).clamp(width, SUMS / width));
    Block { rows, batch_panels: SUMS / (rows * width) }
}

/// One shard, or two whose sum is formed in registers.
struct Shards {
    /// First panel.
    panel: usize,
    last: usize,
    /// Features of either.
    depths: [usize; 2],
    /// How many sums to its left the last one completes.
    merges: usize,
}

/// `shards` of a value, by twos where the two sides of a sum are among them.
fn by_twos(value: Value, shards: Range<usize>, width: usize) -> impl Iterator<Item = Shards> {
    let end = move |shard| (team::shard(value.panels, shard).end * width).min(value.width);
    let mut next = shards.start;
    std::iter::from_fn(move || {
        let first = next;
        let two = first.is_multiple_of(2) && first + 1 < shards.end;
        let last = first + usize::from(two);
        next = last + 1;
        (first < shards.end).then(|| {
            let panel = team::shard(value.panels, first).start;
            let depths = [end(first) - panel * width, end(last) - end(first)];
            Shards { panel, last, depths, merges: team::merges(last, shards.start) }
        })
    })
}

/// What shards are sums of.
struct Factors {
    from: Value,
    weight: ParamId,
    /// Rows of the weight.
    rows: Range<usize>,
    /// Floats between the sums of shards.
    shard_stride: usize,
}

/// What becomes of the sums of shards.
struct Total<'a> {
    to: Value,
    nodes: Nodes,
    /// Floats between the sums of shards.
    shard_stride: usize,
    bias: Option<ParamId>,
    steps: &'a [Step],
}

impl Worker<'_> {
    /// Sums of this thread's shards of `weight` times a split value.
    ///
    /// # Safety
    /// As for [`Worker::run`]: the thread's shards of the input are complete, and nobody writes those of the weight.
    pub(crate) unsafe fn partial(&self, pass: &Pass, input: ValueId, weight: ParamId) {
        let (from, slot, width) = (self.value(input), self.params.slot(weight), self.width());
        let share = self.member.shards(from.panels);
        let all_rows = part(slot.rows, Member { thread: share.sub, threads: share.subs });
        let result_stride = slot.rows.div_ceil(width) * width * width;
        for shards in by_twos(from, share.shards, width) {
            // As many rows of the weight at a time for all batch panels as half of the second-level cache holds.
            let near = rows_near(second_level() / 2, shards.depths.iter().sum(), width).max(width);
            for row in all_rows.clone().step_by(near) {
                let rows = row..(row + near).min(all_rows.end);
                let factors = Factors { from, weight, rows, shard_stride: self.schedule.shard_stride };
                for batch_panel in 0..self.batch_panels(pass) {
                    // SAFETY: the shard's panels of the value and of the weight, and its own sums.
                    unsafe {
                        let at = self.schedule.partial + batch_panel * result_stride + row * width;
                        self.shard_sums(pass, &factors, &shards, batch_panel, self.arena.add(at));
                    }
                }
            }
        }
    }

    /// Sum of the shards of a contraction of `contracted` panels, bias, then elementwise ops, for this thread's panels.
    ///
    /// # Safety
    /// As for [`Worker::run`]: every shard has been summed.
    pub(crate) unsafe fn reduce(
        &self,
        pass: &Pass,
        output: ValueId,
        contracted: usize,
        bias: Option<ParamId>,
        steps: &[Step],
    ) {
        let to = self.value(output);
        let nodes = Nodes::new(contracted, self.member.threads);
        let total = Total { to, nodes, shard_stride: self.schedule.shard_stride, bias, steps };
        for batch_panel in 0..self.batch_panels(pass) {
            for panel in self.home(to) {
                let at = self.schedule.partial + batch_panel * to.stride + panel * self.width() * self.width();
                // SAFETY: every shard has been summed for these features; the output panel is this thread's.
                unsafe { self.total(pass, &total, panel, batch_panel, self.arena.add(at)) };
            }
        }
    }

    /// `weight` times a split value, bias, then elementwise ops, for this thread's batch panels.
    ///
    /// # Safety
    /// As for [`Worker::run`]: the input is complete, and nobody writes the parameters.
    pub(crate) unsafe fn contract(
        &self,
        pass: &Pass,
        (input, output): (ValueId, ValueId),
        (weight, bias): (ParamId, Option<ParamId>),
        steps: &[Step],
    ) {
        let (from, to, width) = (self.value(input), self.value(output), self.width());
        let (all_rows, all_panels) = (self.params.slot(weight).rows, part(self.batch_panels(pass), self.member));
        let block = block(all_rows, from.width, width, second_level());
        let total = Total { to, nodes: Nodes::new(from.panels, 1), shard_stride: SUMS, bias, steps };
        for row in (0..all_rows).step_by(block.rows) {
            let rows = row..(row + block.rows).min(all_rows);
            let factors = Factors { from, weight, rows: rows.clone(), shard_stride: SUMS };
            for first in all_panels.clone().step_by(block.batch_panels) {
                let batch_panels = first..(first + block.batch_panels).min(all_panels.end);
                let sums = |batch_panel: usize, panel: usize| {
                    let rows = (batch_panel - first) * rows.len() + panel * width - row;
                    self.scratch().wrapping_add(rows * width)
                };
                for shards in by_twos(from, 0..team::shards(from.panels), width) {
                    for batch_panel in batch_panels.clone() {
                        // SAFETY: the caller's promise; the scratch has room for the sums of a block.
                        unsafe {
                            self.shard_sums(pass, &factors, &shards, batch_panel, sums(batch_panel, row / width))
                        };
                    }
                }
                for batch_panel in batch_panels {
                    for panel in row / width..rows.end.div_ceil(width) {
                        // SAFETY: the sums are complete; these rows of the output are this thread's.
                        unsafe { self.total(pass, &total, panel, batch_panel, sums(batch_panel, panel)) };
                    }
                }
            }
        }
    }

    /// Sums of one or two shards for a batch panel; `sums` is where those of the first shard of all go.
    ///
    /// # Safety
    /// The operands are complete, and the sums of all shards this thread's.
    unsafe fn shard_sums(&self, pass: &Pass, factors: &Factors, shards: &Shards, batch_panel: usize, sums: *mut f32) {
        let Factors { from, weight, rows, shard_stride } = factors;
        let (slot, width) = (self.params.slot(*weight), self.width());
        let feature = shards.panel * width;
        // SAFETY: the caller's promise.
        unsafe {
            let product = Partial {
                w: self.params.w.at(slot.row(shards.panel, rows.start, width)),
                panel_stride: slot.rows * width,
                depths: shards.depths,
                x: self.at(*from, batch_panel, feature),
                y: sums,
                shard_stride: *shard_stride,
                shard: shards.last,
                merges: shards.merges,
                rows: rows.len(),
                half: self.half(pass, batch_panel),
            };
            self.partial_product(&product, (*weight, shards.panel, rows.start), (*from, batch_panel, feature));
        }
    }

    /// Adds up shards, from `sums` on, for a panel of features in a batch panel, and goes on with the result.
    ///
    /// # Safety
    /// Every shard has been summed for the panel, which is this thread's.
    unsafe fn total(&self, pass: &Pass, total: &Total<'_>, panel: usize, batch_panel: usize, sums: *const f32) {
        let &Total { to, ref nodes, shard_stride, bias, steps } = total;
        let feature = panel * self.width();
        // SAFETY: the caller's promise.
        unsafe {
            (self.kernels.reduce)(&Reduce {
                parts: sums,
                shard_stride,
                nodes,
                bias: self.bias(bias, feature),
                y: self.at(to, batch_panel, feature),
                features: self.features(to, panel),
            });
            self.steps(pass, to, panel, batch_panel, steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_any_weight_and_their_sums_fit() {
        for width in [8, 16, 32] {
            for near in [0, 1 << 10, 1 << 16, 1 << 20] {
                for rows in [1, 15, 16, 100, 512, 4097] {
                    for depth in [1, 31, 784, 4096, 100_000] {
                        let block = block(rows, depth, width, near);
                        let context = format!("{rows}×{depth} in panels of {width}, {near} near: {block:?}");
                        assert!(block.rows > 0 && block.rows.is_multiple_of(width), "{context}");
                        assert!(block.batch_panels > 0 && block.rows * block.batch_panels * width <= SUMS, "{context}");
                    }
                }
            }
        }
        // Weights that fit are taken as they are, others in parts of a size rather than large ones and a small one.
        assert_eq!(block(100, 784, 16, 1 << 17), Block { rows: 112, batch_panels: 1 });
        assert_eq!(block(512, 784, 16, 1 << 17), Block { rows: 128, batch_panels: 1 });
        assert_eq!(block(100, 784, 16, 1 << 16), Block { rows: 112, batch_panels: 4 });
        assert_eq!(block(4096, 4096, 16, 1 << 17), Block { rows: 64, batch_panels: 8 });
    }
}
