//! Contractions of large batches: each thread has a part of the batch panels, and all of the sum.
//!
//! Shard sums of a large batch would leave the caches before they are added. Here they are added while they are near, in the
//! order that [`crate::team`] lays down, so that the bits are those of [`crate::schedule::Phase::Reduce`]. Every thread reads
//! the whole weight for it, which pays once that many batch panels share it.

use std::ops::Range;

use cvae_core::{ParamId, ValueId};

use crate::cache;
use crate::kernels::linear::{Partial, Reduce};
use crate::run::{Pass, Worker};
use crate::schedule::{Step, Value};
use crate::team::{self, MAX_SHARDS, Nodes, part};

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
    let fit = |near: usize, depth: usize| (near / depth / width * width).min(SUMS / width);
    let whole = fit(near, depth);
    if whole >= rows.min(ROWS) {
        return Block { rows: even(whole), batch_panels: 1 };
    }
    let panels = depth.div_ceil(width);
    let pair = 2 * panels.div_ceil(team::shards(panels)) * width;
    let rows = even(fit(near / 2, pair).max(width));
    Block { rows, batch_panels: SUMS / (rows * width) }
}

/// Operands of a contraction.
struct Contraction {
    from: Value,
    weight: ParamId,
    /// Rows of the weight.
    rows: Range<usize>,
    batch_panels: Range<usize>,
}

impl Worker<'_> {
    /// `weight` times a split value, bias, then elementwise ops, for this thread's batch panels.
    ///
    /// # Safety
    /// As for [`Worker::run`]: the input is complete, and nobody writes the parameters.
    pub(crate) unsafe fn contract(
        &self,
        pass: &Pass,
        input: ValueId,
        weight: ParamId,
        bias: Option<ParamId>,
        output: ValueId,
        steps: &[Step],
    ) {
        let (from, to, width) = (self.value(input), self.value(output), self.width());
        let (all_rows, all_panels) = (self.params.slot(weight).rows, part(self.batch_panels(pass), self.member));
        let nodes = Nodes::new(from.panels, 1);
        let block = block(all_rows, from.width, width, cache::second_level() / size_of::<f32>());
        for row in (0..all_rows).step_by(block.rows) {
            let rows = row..(row + block.rows).min(all_rows);
            for first in all_panels.clone().step_by(block.batch_panels) {
                let batch_panels = first..(first + block.batch_panels).min(all_panels.end);
                let contraction = Contraction { from, weight, rows: rows.clone(), batch_panels: batch_panels.clone() };
                // SAFETY: the caller's promise.
                unsafe { self.shard_sums(pass, &contraction) };
                for batch_panel in batch_panels {
                    for panel in rows.start / width..rows.end.div_ceil(width) {
                        let feature = panel * width;
                        // SAFETY: the sums are complete; these rows of the output are this thread's.
                        unsafe {
                            (self.kernels.reduce)(&Reduce {
                                parts: self.sums_at(&contraction, batch_panel, feature),
                                shard_stride: SUMS,
                                nodes: nodes.as_slice(),
                                bias: self.bias(bias, feature),
                                y: self.at(to, batch_panel, feature),
                                features: self.features(to, panel),
                            });
                            self.steps(pass, to, panel, batch_panel, steps);
                        }
                    }
                }
            }
        }
    }

    /// Sums of all shards of a block, in this thread's scratch.
    ///
    /// # Safety
    /// As for [`Worker::contract`].
    unsafe fn shard_sums(&self, pass: &Pass, block: &Contraction) {
        let (from, slot, width) = (block.from, self.params.slot(block.weight), self.width());
        let end = |shard| (team::shard(from.panels, shard).end * width).min(from.width);
        let shards = team::shards(from.panels);
        for first in (0..shards).step_by(2) {
            // The second of a pair is missing if there is an odd number of them.
            let last = (first + 1).min(shards - 1);
            let panel = team::shard(from.panels, first).start;
            let feature = panel * width;
            for batch_panel in block.batch_panels.clone() {
                // SAFETY: the scratch has room for the sums of a block; the rest is the caller's promise.
                unsafe {
                    let product = Partial {
                        w: self.params.w.at(slot.row(panel, block.rows.start, width)),
                        panel_stride: slot.rows * width,
                        depths: [end(first) - feature, end(last) - end(first)],
                        x: self.at(from, batch_panel, feature),
                        y: self.sums_at(block, batch_panel, block.rows.start),
                        shard_stride: SUMS,
                        shard: last,
                        merges: team::merges(last, 0),
                        rows: block.rows.len(),
                        half: self.half(pass, batch_panel),
                    };
                    let rows = (block.weight, panel, block.rows.start);
                    self.partial_product(&product, rows, (from, batch_panel, feature));
                }
            }
        }
    }

    /// The first shard's sums from row `row` on.
    fn sums_at(&self, block: &Contraction, batch_panel: usize, row: usize) -> *mut f32 {
        let rows = (batch_panel - block.batch_panels.start) * block.rows.len() + row - block.rows.start;
        self.scratch().wrapping_add(rows * self.width())
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
