//! Weights divided by their largest singular value. Formulas: docs/MATH.md, "Spectral norm".
//!
//! Every thread runs the whole power iteration for itself, in one order, and writes the panels it owns: the bits do
//! not depend on the number of threads.

use cvae_core::{Graph, Noise, Op, ParamId, Stream, ValueId};

use crate::coupled::{Grid, Share};
use crate::run::{Pass, Worker};

/// The outputs of an op, `1/σ`, `u` and `v`.
pub(crate) struct Outputs {
    pub(crate) scale: ValueId,
    pub(crate) left: Option<ValueId>,
    pub(crate) right: Option<ValueId>,
}

/// Floats of scratch that the search for a singular value needs: its two vectors, in whole panels, and a panel.
pub(crate) fn scratch(graph: &Graph, width: usize) -> usize {
    if !graph.ops.iter().any(|op| matches!(op, Op::SpectralScale { .. })) {
        return 0;
    }
    let vectors = graph.ops.iter().map(|op| match *op {
        Op::Linear { input, output, .. } => {
            [input, output].map(|id| graph.size(id).next_multiple_of(width)).iter().sum()
        }
        _ => 0,
    });
    vectors.max().unwrap_or(0) + width
}

/// A weight as panels, `[panel][row][lane]`.
struct Panels<'a> {
    weight: &'a [f32],
    rows: usize,
    width: usize,
}

impl Panels<'_> {
    /// `rows[r] = Σ_c W[r, c]·lanes[c]`; `sums` is a panel wide.
    fn to_rows(&self, lanes: &[f32], sums: &mut [f32], rows: &mut [f32]) {
        for (r, out) in rows.iter_mut().enumerate() {
            sums.fill(0.0);
            for (panel, lanes) in lanes.chunks_exact(self.width).enumerate() {
                let weight = &self.weight[(panel * self.rows + r) * self.width..][..self.width];
                for ((sum, w), x) in sums.iter_mut().zip(weight).zip(lanes) {
                    *sum += w * x;
                }
            }
            *out = sums.iter().sum();
        }
    }

    /// `lanes[c] = Σ_r W[r, c]·rows[r]`.
    fn to_lanes(&self, rows: &[f32], lanes: &mut [f32]) {
        lanes.fill(0.0);
        for (panel, lanes) in lanes.chunks_exact_mut(self.width).enumerate() {
            for (r, x) in rows.iter().enumerate() {
                let weight = &self.weight[(panel * self.rows + r) * self.width..][..self.width];
                for (out, w) in lanes.iter_mut().zip(weight) {
                    *out += w * x;
                }
            }
        }
    }
}

/// Divides a vector by its norm, unless that is 0; returns the norm.
fn normalize(vector: &mut [f32]) -> f64 {
    let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if norm != 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
    norm
}

impl Worker<'_> {
    /// The largest singular value of a weight and its vectors, into values whose rows are all equal.
    ///
    /// # Safety
    /// As for [`Worker::run`]: the weight is complete, and this thread's panels of the outputs are its own.
    pub(crate) unsafe fn spectral_scale(&self, pass: &Pass, weight: ParamId, iterations: u32, outputs: &Outputs) {
        let (slot, width) = (self.params.slot(weight), self.width());
        let (rows, lanes) = (slot.rows, slot.panels * width);
        // SAFETY: the weight's panels lie in the parameters, and nobody writes them during this phase; the schedule
        // makes each thread's scratch long enough for both vectors and a panel.
        let (weight_panels, scratch) = unsafe {
            let start = self.params.w.at(slot.w).cast_const();
            (
                std::slice::from_raw_parts(start, slot.panels * rows * width),
                std::slice::from_raw_parts_mut(self.scratch(), rows + lanes + width),
            )
        };
        let panels = Panels { weight: weight_panels, rows, width };
        let (sums, vectors) = scratch.split_at_mut(width);
        let (by_rows, by_lanes) = vectors.split_at_mut(rows);
        let inputs = if slot.contracts { slot.columns } else { rows };
        {
            let right = if slot.contracts { &mut *by_lanes } else { &mut *by_rows };
            right.fill(0.0);
            Noise::new(0, Stream::Spectral, 0).signs(weight.0, &mut right[..inputs]);
            normalize(right);
        }
        let mut sigma = 0.0;
        for step in 0..=2 * iterations {
            // Even steps find u from v, odd ones v from u.
            let by_row = slot.contracts == (step % 2 == 0);
            sigma = match by_row {
                true => {
                    panels.to_rows(by_lanes, sums, by_rows);
                    normalize(by_rows)
                }
                false => {
                    panels.to_lanes(by_rows, by_lanes);
                    normalize(by_lanes)
                }
            };
            if sigma == 0.0 {
                by_rows.fill(0.0);
                by_lanes.fill(0.0);
                break;
            }
        }
        let scale = [if sigma == 0.0 { 1.0 } else { (1.0 / sigma) as f32 }];
        let (left, right) = if slot.contracts { (&*by_rows, &*by_lanes) } else { (&*by_lanes, &*by_rows) };
        // SAFETY: as promised by the caller; the vectors are as long as the values are wide.
        unsafe {
            self.repeat(pass, outputs.scale, &scale);
            if let Some(id) = outputs.left {
                self.repeat(pass, id, left);
            }
            if let Some(id) = outputs.right {
                self.repeat(pass, id, right);
            }
        }
    }

    /// Writes `row` into every row of this thread's panels of a value.
    ///
    /// # Safety
    /// `row` is at least as long as the value is wide, and the panels are this thread's.
    unsafe fn repeat(&self, pass: &Pass, id: ValueId, row: &[f32]) {
        let (value, grid) = (self.value(id), self.grid(id));
        for panel in self.home(value) {
            let first = panel * self.width();
            for (offset, x) in row[first..][..self.features(value, panel)].iter().enumerate() {
                for index in 0..pass.rows.next_multiple_of(self.width()) {
                    // SAFETY: values are padded to whole batch panels; lanes outside the batch are 0.
                    unsafe { *grid.at(index, first + offset) = if index < pass.rows { *x } else { 0.0 } };
                }
            }
        }
    }
}

/// `output = input·scale`, with one scale a row.
///
/// # Safety
/// Operands of the batch's rows; the features of `share` are this thread's.
pub(crate) unsafe fn scale_rows(rows: usize, share: &Share, input: Grid, scale: Grid, output: Grid) {
    for feature in share.own.clone() {
        for row in 0..rows {
            // SAFETY: rows and features of the batch.
            unsafe { *output.at(row, feature) = *input.at(row, feature) * *scale.at(row, 0) };
        }
    }
}

/// `output = −scale·(Σ grad ⊙ input)·left`, row by row; `width` is that of `grad` and `input`.
///
/// # Safety
/// As [`scale_rows`].
pub(crate) unsafe fn grad(
    rows: usize,
    width: usize,
    share: &Share,
    [grad, input, scale, left]: [Grid; 4],
    output: Grid,
) {
    for row in 0..rows {
        // SAFETY: rows and features of the batch.
        unsafe {
            let along: f64 = (0..width).map(|feature| grad.get(row, feature) * input.get(row, feature)).sum();
            for feature in share.own.clone() {
                output.set(row, feature, -scale.get(row, 0) * along * left.get(row, feature));
            }
        }
    }
}
