//! Ops that depend on whole rows or on the whole batch: permuted columns, sparse codes, mixed columns, a learnt
//! variance, the bounded divergence, the discrepancy of codes from the prior, weights divided by their norm.
//!
//! A thread reads every feature and writes the panels it owns. What several threads need, such as a sum over the
//! batch, each computes for itself in the same order, so that the bits do not depend on their number and no
//! exchange is needed.

use std::ops::Range;

use cvae_core::rng::below;
use cvae_core::{ColumnGroup, ColumnKind, KlBound, Latent, Noise, Op, Reconstruction, Shift, Stream, ValueId};

use crate::kernels::mmd::Pairs;
use crate::run::{Pass, Worker};
use crate::spectral::{self, Outputs};

/// A value as rows and features.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    start: *mut f32,
    stride: usize,
    panel: usize,
}

impl Grid {
    /// Where an element lies.
    ///
    /// # Safety
    /// The row and the feature lie inside the value.
    pub(crate) unsafe fn at(self, row: usize, feature: usize) -> *mut f32 {
        // SAFETY: as promised.
        unsafe { self.start.add(row / self.panel * self.stride + feature * self.panel + row % self.panel) }
    }

    /// # Safety
    /// As [`Grid::at`]; nobody is writing the element.
    pub(crate) unsafe fn get(self, row: usize, feature: usize) -> f64 {
        // SAFETY: as promised.
        f64::from(unsafe { *self.at(row, feature) })
    }

    /// # Safety
    /// As [`Grid::at`]; the element is this thread's.
    pub(crate) unsafe fn set(self, row: usize, feature: usize, x: f64) {
        // SAFETY: as promised.
        unsafe { *self.at(row, feature) = x as f32 };
    }
}

/// The operands of a reconstruction term.
struct Comparison {
    prediction: Grid,
    target: Grid,
    weights: Option<Grid>,
    grad: Grid,
    rows: usize,
    width: usize,
}

impl Comparison {
    /// # Safety
    /// As [`Grid::get`].
    unsafe fn weight(&self, row: usize, feature: usize) -> f64 {
        // SAFETY: as promised.
        self.weights.map_or(1.0, |weights| unsafe { weights.get(row, feature) })
    }
}

/// The features that this thread writes, and where their terms go.
pub(crate) struct Share {
    pub(crate) own: Range<usize>,
    /// First slot of the op's term; null without one. Each panel of features has a run of slots.
    losses: *mut f64,
    /// Slots of a run.
    run: usize,
    /// Features of a panel.
    panel: usize,
}

impl Share {
    /// Adds to the term of the panel that holds `feature`.
    ///
    /// # Safety
    /// The feature is this thread's, and the op has a term.
    unsafe fn add(&self, feature: usize, loss: f64) {
        // SAFETY: the schedule has a run of slots for each panel.
        unsafe { *self.losses.add(feature / self.panel * self.run) += loss };
    }
}

impl Worker<'_> {
    /// Runs a coupled op, whose outputs are laid out like `like`.
    ///
    /// # Safety
    /// As for [`Worker::run`]: operands are complete, and this thread's panels of the outputs are its own.
    pub(crate) unsafe fn coupled(&self, pass: &Pass, op: &Op, like: ValueId, losses: Option<usize>) {
        let (value, panel) = (self.value(like), self.width());
        let panels = self.home(value);
        let run = self.schedule.padded_rows / panel;
        let own = panels.start * panel..(panels.end * panel).min(value.width);
        let mut share = Share { own, losses: std::ptr::null_mut(), run, panel };
        // SAFETY: the panels and their slots are this thread's; operands are complete.
        unsafe {
            if let Some(index) = losses {
                share.losses = pass.losses.add(self.schedule.losses[index].first);
                for panel in panels {
                    share.losses.add(panel * run).write_bytes(0, run);
                }
            }
            match *op {
                Op::Permute { input, mask, ref units, output } => {
                    self.permute(
                        pass,
                        &share,
                        units,
                        self.grid(input),
                        self.grid(mask),
                        self.output(pass, &share, output),
                    );
                }
                Op::Shift { input, mask, shift, output } => {
                    let grids = [self.grid(input), self.grid(mask), self.output(pass, &share, output)];
                    self.shift(pass, &share, shift, value.width, grids);
                }
                Op::TopK { k, input, output } => {
                    top_k(pass.rows, value.width, &share, k, self.grid(input), self.output(pass, &share, output));
                }
                Op::SigmaReconstruction { floor, prediction, target, weights, grad } => {
                    let c = self.comparison(pass, &share, (prediction, target, weights, grad));
                    sigma_reconstruction(&share, floor, &c);
                }
                Op::MixedReconstruction { kind, ref columns, prediction, target, weights, grad } => {
                    let c = self.comparison(pass, &share, (prediction, target, weights, grad));
                    mixed_reconstruction(&share, kind, columns, &c);
                }
                Op::MixedOutput { ref columns, input, output } => {
                    mixed_output(pass.rows, &share, columns, self.grid(input), self.output(pass, &share, output));
                }
                Op::KlBounded { bound, mean, logvar, mean_grad, logvar_grad, mean_output, logvar_output } => {
                    let posterior = [self.grid(mean), self.grid(logvar)];
                    let grads = [self.grid(mean_grad), self.grid(logvar_grad)];
                    let outputs = [mean_output, logvar_output].map(|id| self.output(pass, &share, id));
                    kl_bounded(pass.rows, value.width, &share, bound, posterior, grads, outputs);
                }
                Op::Mmd { weight, code, prior, grad, output } => {
                    let grids = [self.grid(code), self.grid(prior), self.grid(grad), self.output(pass, &share, output)];
                    self.mmd(pass.rows, value.width, &share, weight, grids);
                }
                Op::SpectralScale { weight, iterations, scale, left, right } => {
                    self.spectral_scale(pass, weight, iterations, &Outputs { scale, left, right });
                }
                Op::ScaleRows { input, scale, output } => {
                    let output = self.output(pass, &share, output);
                    spectral::scale_rows(pass.rows, &share, self.grid(input), self.grid(scale), output);
                }
                Op::SpectralGrad { grad, input, scale, left, output } => {
                    let output = self.output(pass, &share, output);
                    let operands = [grad, input, scale, left].map(|id| self.grid(id));
                    spectral::grad(pass.rows, self.value(input).width, &share, operands, output);
                }
                _ => unreachable!("{op} is not coupled"),
            }
        }
    }

    pub(crate) fn grid(&self, id: ValueId) -> Grid {
        let value = self.value(id);
        // SAFETY: the start of a value lies inside the arena.
        Grid { start: unsafe { self.at(value, 0, 0) }, stride: value.stride, panel: self.width() }
    }

    /// An output, with zeros in the lanes of this thread's features that lie outside the batch.
    unsafe fn output(&self, pass: &Pass, share: &Share, id: ValueId) -> Grid {
        let grid = self.grid(id);
        for row in pass.rows..pass.rows.next_multiple_of(self.width()) {
            for feature in share.own.clone() {
                // SAFETY: values are padded to whole batch panels.
                unsafe { grid.set(row, feature, 0.0) };
            }
        }
        grid
    }

    unsafe fn comparison(
        &self,
        pass: &Pass,
        share: &Share,
        (prediction, target, weights, grad): (ValueId, ValueId, Option<ValueId>, ValueId),
    ) -> Comparison {
        Comparison {
            prediction: self.grid(prediction),
            target: self.grid(target),
            weights: weights.map(|weights| self.grid(weights)),
            // SAFETY: as promised by the caller.
            grad: unsafe { self.output(pass, share, grad) },
            rows: pass.rows,
            width: self.value(grad).width,
        }
    }

    unsafe fn permute(&self, pass: &Pass, share: &Share, units: &[u32], input: Grid, mask: Grid, output: Grid) {
        let noise = Noise::new(pass.seed, Stream::Permute, pass.epoch);
        for row in 0..pass.rows {
            let position = self.noise_row(pass, row);
            for feature in share.own.clone() {
                // SAFETY: rows and features of the batch.
                unsafe {
                    let donor = match mask.get(row, feature) == 0.0 {
                        true => row,
                        false => below(noise.unit_word(position, units[feature]), pass.rows as u32) as usize,
                    };
                    *output.at(row, feature) = *input.at(donor, feature);
                }
            }
        }
    }

    unsafe fn shift(&self, pass: &Pass, share: &Share, shift: Shift, size: usize, [input, mask, output]: [Grid; 3]) {
        let noise = Noise::new(pass.seed, Stream::Permute, pass.epoch);
        for row in 0..pass.rows {
            let offset = shift.drawn(noise.unit_word(self.noise_row(pass, row), 0));
            for feature in share.own.clone() {
                // SAFETY: rows and features of the batch.
                unsafe {
                    let from = match mask.get(row, feature) == 0.0 {
                        true => Some(feature),
                        false => shift.source(offset, feature, size),
                    };
                    *output.at(row, feature) = from.map_or(0.0, |from| *input.at(row, from));
                }
            }
        }
    }

    unsafe fn mmd(&self, rows: usize, width: usize, share: &Share, weight: f64, grids: [Grid; 4]) {
        let [code, prior, grad, output] = grids;
        // SAFETY: rows and features of the batch; the scratch holds a float for each row.
        unsafe {
            for row in 0..rows {
                for feature in share.own.clone() {
                    *output.at(row, feature) = *grad.at(row, feature);
                }
            }
            if rows < 2 || share.own.is_empty() {
                return;
            }
            let (pairs, cross) = ((rows * (rows - 1)) as f64, (rows * rows) as f64);
            let compare = |row: *const f32, others: Grid, scale: f64, own: (usize, usize), output: *mut f32| {
                let (stride, features, slopes, scale) = (others.stride, width, self.scratch(), scale as f32);
                let others = others.start.cast_const();
                (self.kernels.pairs)(&Pairs { row, others, stride, features, rows, own, scale, output, slopes })
            };
            let own = (share.own.start, share.own.end);
            let mut term = 0.0;
            for row in 0..rows {
                let (z, out) = (code.at(row, 0).cast_const(), output.at(row, 0));
                // A row paired with itself has no distance, so it counts 1 for each scale and has no gradient.
                let itself = Latent::MMD_SCALES.len() as f64;
                term += (compare(z, code, 2.0 * weight / pairs, own, out) - itself) / pairs;
                term -= 2.0 * compare(z, prior, -2.0 * weight / cross, own, out) / cross;
                if own.0 == 0 {
                    let draw = prior.at(row, 0).cast_const();
                    term += (compare(draw, prior, 0.0, (0, 0), out) - itself) / pairs;
                }
            }
            if own.0 == 0 {
                share.add(0, weight * term);
            }
        }
    }
}

unsafe fn top_k(rows: usize, width: usize, share: &Share, k: usize, input: Grid, output: Grid) {
    for row in 0..rows {
        for feature in share.own.clone() {
            // SAFETY: rows and features of the batch.
            unsafe {
                let z = input.get(row, feature);
                let before = |other: usize| {
                    let size = input.get(row, other).abs();
                    size > z.abs() || (size == z.abs() && other < feature)
                };
                let kept = (0..width).filter(|other| before(*other)).count() < k;
                output.set(row, feature, if kept { z } else { 0.0 });
            }
        }
    }
}

unsafe fn sigma_reconstruction(share: &Share, floor: f64, c: &Comparison) {
    // SAFETY: rows and features of the batch.
    unsafe {
        let (mut count, mut squares) = (0.0, 0.0);
        for feature in 0..c.width {
            for row in 0..c.rows {
                let (weight, e) = (c.weight(row, feature), c.prediction.get(row, feature) - c.target.get(row, feature));
                count += weight;
                squares += weight * e * e;
            }
        }
        let variance = if count > 0.0 { squares / count + floor } else { 1.0 };
        let scale = 1.0 / (c.rows as f64 * variance);
        for feature in share.own.clone() {
            for row in 0..c.rows {
                let e = c.prediction.get(row, feature) - c.target.get(row, feature);
                c.grad.set(row, feature, scale * c.weight(row, feature) * e);
            }
        }
        if share.own.start == 0 && !share.own.is_empty() {
            share.add(0, 0.5 * count / c.rows as f64 * variance.ln());
        }
    }
}

unsafe fn mixed_reconstruction(share: &Share, kind: Reconstruction, columns: &[ColumnGroup], c: &Comparison) {
    let rows = c.rows as f64;
    for (group, range) in ColumnGroup::ranges(columns) {
        let own = range.start.max(share.own.start)..range.end.min(share.own.end);
        if own.is_empty() {
            continue;
        }
        let scale = group.weight / rows;
        for row in 0..c.rows {
            // SAFETY: rows and features of the batch.
            unsafe {
                let kind = match group.kind {
                    ColumnKind::Numeric => kind,
                    ColumnKind::Binary => Reconstruction::Bce,
                    ColumnKind::Categorical => {
                        categorical(share, c, row, &range, &own, scale);
                        continue;
                    }
                };
                for feature in own.clone() {
                    let (p, t) = (c.prediction.get(row, feature), c.target.get(row, feature));
                    let (loss, slope) = compare(kind, p, t, c.width as f64);
                    let scale = scale * c.weight(row, feature);
                    share.add(feature, scale * loss);
                    c.grad.set(row, feature, scale * slope);
                }
            }
        }
    }
}

/// One row of a categorical group: its loss goes to the group's first column.
unsafe fn categorical(share: &Share, c: &Comparison, row: usize, group: &Range<usize>, own: &Range<usize>, scale: f64) {
    // SAFETY: rows and features of the batch.
    unsafe {
        let observed = group.clone().map(|feature| c.weight(row, feature)).product::<f64>();
        let (largest, sum) = softmax(c.prediction, row, group);
        let total: f64 = group.clone().map(|feature| c.target.get(row, feature)).sum();
        for feature in own.clone() {
            let share = (c.prediction.get(row, feature) - largest).exp() / sum;
            c.grad.set(row, feature, scale * observed * (total * share - c.target.get(row, feature)));
        }
        if own.start == group.start {
            let log_sum = largest + sum.ln();
            let loss = |feature| c.target.get(row, feature) * (log_sum - c.prediction.get(row, feature));
            share.add(group.start, scale * observed * group.clone().map(loss).sum::<f64>());
        }
    }
}

/// The largest logit `m` of a group and `Σ e^(u − m)`.
unsafe fn softmax(logits: Grid, row: usize, group: &Range<usize>) -> (f64, f64) {
    // SAFETY: rows and features of the batch.
    let logit = |feature| unsafe { logits.get(row, feature) };
    let largest = group.clone().map(logit).fold(f64::NEG_INFINITY, f64::max);
    (largest, group.clone().map(|feature| (logit(feature) - largest).exp()).sum())
}

unsafe fn mixed_output(rows: usize, share: &Share, columns: &[ColumnGroup], input: Grid, output: Grid) {
    for (group, range) in ColumnGroup::ranges(columns) {
        let own = range.start.max(share.own.start)..range.end.min(share.own.end);
        if own.is_empty() {
            continue;
        }
        for row in 0..rows {
            // SAFETY: rows and features of the batch.
            unsafe {
                let (largest, sum) = match group.kind {
                    ColumnKind::Categorical => softmax(input, row, &range),
                    ColumnKind::Numeric | ColumnKind::Binary => (0.0, 1.0),
                };
                for feature in own.clone() {
                    let u = input.get(row, feature);
                    let out = match group.kind {
                        ColumnKind::Numeric => u,
                        ColumnKind::Binary => sigmoid(u),
                        ColumnKind::Categorical => (u - largest).exp() / sum,
                    };
                    output.set(row, feature, out);
                }
            }
        }
    }
}

unsafe fn kl_bounded(
    rows: usize,
    width: usize,
    share: &Share,
    bound: KlBound,
    [mean, logvar]: [Grid; 2],
    [mean_grad, logvar_grad]: [Grid; 2],
    [mean_output, logvar_output]: [Grid; 2],
) {
    // SAFETY: rows and features of the batch.
    unsafe {
        let divergence = |feature: usize| {
            let element = |row| {
                let (mu, (s, _)) = (mean.get(row, feature), clamp(logvar.get(row, feature)));
                0.5 * (mu * mu + (s.exp_m1() - s))
            };
            (0..rows).map(element).sum::<f64>() / rows as f64
        };
        let (term, slope): (f64, f64) = match bound {
            KlBound::Capacity { gamma, capacity } => {
                let excess = (0..width).map(divergence).sum::<f64>() - capacity;
                (gamma * excess.abs(), if excess == 0.0 { 0.0 } else { gamma * excess.signum() })
            }
            KlBound::FreeBits { beta, floor } => {
                (beta * (0..width).map(|feature| divergence(feature).max(floor)).sum::<f64>(), beta)
            }
        };
        for feature in share.own.clone() {
            let free = matches!(bound, KlBound::FreeBits { floor, .. } if divergence(feature) <= floor);
            let slope = if free { 0.0 } else { slope / rows as f64 };
            for row in 0..rows {
                let (s, inside) = clamp(logvar.get(row, feature));
                mean_output.set(row, feature, mean_grad.get(row, feature) + slope * mean.get(row, feature));
                let growth = inside * slope * 0.5 * s.exp_m1();
                logvar_output.set(row, feature, logvar_grad.get(row, feature) + growth);
            }
        }
        if share.own.start == 0 && !share.own.is_empty() {
            share.add(0, term);
        }
    }
}

/// A log-variance within its bounds, and 1 if it was inside, else 0.
fn clamp(logvar: f64) -> (f64, f64) {
    let (low, high) = Latent::LOG_VARIANCE;
    (logvar.clamp(low, high), if (low..=high).contains(&logvar) { 1.0 } else { 0.0 })
}

/// One element's loss and its derivative by the prediction.
fn compare(kind: Reconstruction, p: f64, t: f64, width: f64) -> (f64, f64) {
    let e = p - t;
    let sign = if e == 0.0 { 0.0 } else { e.signum() };
    match kind {
        Reconstruction::MseSum => (0.5 * e * e, e),
        Reconstruction::MseMean => (e * e / width, 2.0 * e / width),
        Reconstruction::Bce => (p.max(0.0) - p * t + (-p.abs()).exp().ln_1p(), sigmoid(p) - t),
        Reconstruction::L1 => (e.abs(), sign),
        Reconstruction::Huber { delta } if e.abs() <= delta => (0.5 * e * e, e),
        Reconstruction::Huber { delta } => (delta * (e.abs() - 0.5 * delta), delta * sign),
    }
}

fn sigmoid(u: f64) -> f64 {
    1.0 / (1.0 + (-u).exp())
}
