//! Weight gradients, by blocks of the batch.
//!
//! A panel of a weight's gradient contracts one panel of the split value with all of the other value, over the whole batch. A
//! large batch is taken block by block, and every block by several panels: the split value's panel then comes from the
//! first-level cache, and the other value's block from the second, not both from memory for every panel.

use std::ops::Range;

use cvae_core::{ParamId, ValueId};

use crate::kernels::gather::BatchMajor;
use crate::kernels::linear_grad::{Pair, Sums, WeightGrad};
use crate::run::{Pass, Worker, norm_slot};
use crate::schedule::{MAX_PAIRS, Phase};

/// Rows of a block.
const BLOCK: usize = 256;
/// Floats of unfinished gradients that stay in a second-level cache beside a block.
const NEAR_SUMS: usize = 32 * 1024;

/// Floats that the unfinished gradients of a thread take, for batches of up to `rows` rows, values of up to `widest` features
/// and panels `width` wide.
pub(crate) fn sums_scratch(rows: usize, widest: usize, width: usize) -> usize {
    if rows > BLOCK { NEAR_SUMS.max(widest * width) } else { 0 }
}

/// A weight whose gradient is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Term {
    pub(crate) weight: ParamId,
    /// λ of the parameter regulariser.
    pub(crate) decay: f64,
    /// First slot of the square sums, if they are wanted.
    pub(crate) norm: Option<usize>,
}

impl Worker<'_> {
    /// Gradients of this thread's panels of a weight by `pairs` of a whole value and a split one, and the update.
    ///
    /// # Safety
    /// As for [`Worker::run`]: the whole values are complete.
    pub(crate) unsafe fn weight_grad(&self, pass: &Pass, pairs: &[(ValueId, ValueId)], term: &Term) {
        let Some((_, split)) = pairs.first() else { return };
        let panels = self.home(self.value(*split));
        if pass.rows <= BLOCK {
            for panel in panels {
                // SAFETY: the caller's promise; the panel is this thread's.
                unsafe { self.weight_grad_block(pass, pairs, term, panel, 0..pass.rows, Sums::WHOLE) };
            }
            return;
        }
        let floats = self.params.slot(term.weight).rows * self.width();
        let group = (NEAR_SUMS / floats).max(1);
        for first in panels.clone().step_by(group) {
            for (index, pair) in pairs.iter().enumerate() {
                for row in (0..pass.rows).step_by(BLOCK) {
                    let rows = row..(row + BLOCK).min(pass.rows);
                    let ends = index + 1 == pairs.len() && rows.end == pass.rows;
                    for panel in first..(first + group).min(panels.end) {
                        // SAFETY: the caller's promise; the panel is this thread's, and so is the scratch, which has room
                        // for the sums of a group.
                        unsafe {
                            let at = self.scratch().add(self.schedule.sums + (panel - first) * floats);
                            let sums = Sums { at, begun: index > 0 || row > 0, ends };
                            self.weight_grad_block(pass, std::slice::from_ref(pair), term, panel, rows.clone(), sums);
                        }
                    }
                }
            }
        }
    }

    /// A panel's gradient over `rows` of the batch, the first of which is a multiple of the panel's width.
    ///
    /// # Safety
    /// As for [`Worker::weight_grad`]; the panel and the sums are this thread's.
    unsafe fn weight_grad_block(
        &self,
        pass: &Pass,
        pairs: &[(ValueId, ValueId)],
        &Term { weight, decay, norm }: &Term,
        panel: usize,
        rows: Range<usize>,
        sums: Sums,
    ) {
        let (slot, width) = (self.params.slot(weight), self.width());
        let mut operands = [Pair { a: std::ptr::null(), a_stride: 0, p: std::ptr::null() }; MAX_PAIRS];
        // SAFETY: the panels of the split values and of the weight are this thread's; the other operands are complete. The
        // scratch has a panel for every pair.
        unsafe {
            for (index, (whole, split)) in pairs.iter().enumerate() {
                let whole = self.value(*whole);
                let p = self.batch_major(*split, panel, index, rows.clone());
                operands[index] = Pair { a: self.at(whole, rows.start / width, 0), a_stride: whole.stride, p };
            }
            let row = slot.row(panel, 0, width);
            let product = WeightGrad {
                pairs: &operands[..pairs.len()],
                batch: rows.len(),
                sums,
                w: self.params.w.at(row),
                moments: self.params.moments.at(slot.moment_row(panel, 0, width)),
                grad: self.params.grads.as_ref().map_or(std::ptr::null_mut(), |grads| grads.at(row)),
                rows: slot.rows,
                decay: decay as f32,
                square_sum: norm_slot(pass, norm, panel),
                rule: pass.rule,
            };
            self.weight_grad_product(&product, (weight, panel), pairs, rows.start / width);
        }
    }

    /// Rows of a panel of a split value, `[rows][PW]`: the input has them already, others go to scratch panel `index`.
    ///
    /// # Safety
    /// As for [`Worker::weight_grad_block`].
    unsafe fn batch_major(&self, id: ValueId, panel: usize, index: usize, rows: Range<usize>) -> *const f32 {
        let (value, width) = (self.value(id), self.width());
        let floats = self.schedule.padded_rows * width;
        if matches!(self.schedule.phases.first(), Some(Phase::Gather { value }) if *value == id) {
            // SAFETY: the gathered input has a batch-major panel for each of its panels.
            return unsafe { self.arena.add(self.schedule.input_rows + panel * floats + rows.start * width) };
        }
        // SAFETY: the schedule reserves a scratch panel for every pair.
        unsafe {
            let batch_major = self.scratch().add(index * floats);
            (self.kernels.batch_major)(&BatchMajor {
                feature_major: self.at(value, rows.start / width, panel * width),
                stride: value.stride,
                batch: rows.len(),
                batch_major,
            });
            batch_major
        }
    }
}
