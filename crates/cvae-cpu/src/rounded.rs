//! Values and weights rounded to bfloat16, beside their floats.
//!
//! A level that multiplies pairs of bfloat16 keeps, of every value that is an operand of a product, the form that the
//! product reads: `[pair of features][PW][2]` where the product contracts features, `[feature][PW]` where it
//! contracts rows of the batch. The thread that writes a panel rounds it right after, so that no further exchange is
//! needed. Of every weight there are the forms that some product reads, rounded anew whenever its floats change; floats
//! are what is trained.

use std::ops::Range;

use cvae_core::{CompileError, ParamId, ValueId};

use crate::arena::{Arena, Offsets};
use crate::kernels::linear::{Expand, Partial};
use crate::kernels::linear_grad::{Pair, WeightGrad};
use crate::kernels::optimizer::Rule;
use crate::kernels::rounding::Rounding;
use crate::kernels::table::{Kernels, RoundedKernels};
use crate::params::Params;
use crate::run::{Pass, Worker};
use crate::schedule::{MAX_PAIRS, Phase, Schedule, Step, Value};
use crate::simd::bf16::Bf16;
use crate::team::part;

/// Rows of a weight that are rounded right after their update, while they are in a near cache. Whole tiles of any level.
const NEAR_ROWS: usize = 128;

/// A value to be rounded, and into which forms.
#[derive(Clone, Copy, Debug)]
struct Forms {
    value: ValueId,
    pairs: bool,
    columns: bool,
}

/// The rounded values of a schedule.
///
/// An element's offset in either form, in halves, is that of the float in the arena.
#[derive(Clone, Debug)]
pub(crate) struct RoundedValues {
    /// What each phase is followed by.
    after: Vec<Vec<Forms>>,
    /// Offset of the pairs, in floats.
    pairs: usize,
    /// Offset of the columns, in floats.
    columns: usize,
    /// Offset of each thread's batch-major pairs, `[pair of operands][rows / 2][PW][2]`, in floats.
    scratch: usize,
    scratch_stride: usize,
}

impl Schedule {
    /// Makes room for rounded values, and decides after which phases they are rounded.
    pub(crate) fn round_values(&mut self, threads: usize) {
        let mut forms: Vec<Forms> = (0..self.values.len())
            .map(|index| Forms { value: ValueId(index as u32), pairs: false, columns: false })
            .collect();
        for phase in &self.phases {
            match phase {
                Phase::Contract { input, .. } | Phase::Partial { input, .. } | Phase::Expand { input, .. } => {
                    forms[input.index()].pairs = true;
                }
                Phase::WeightGrad { pairs, .. } => {
                    pairs.iter().for_each(|(whole, _)| forms[whole.index()].columns = true);
                }
                _ => {}
            }
        }
        let needed = |value: ValueId| Some(forms[value.index()]).filter(|forms| forms.pairs || forms.columns);
        let after = self.phases.iter().map(|phase| written(phase).into_iter().filter_map(needed).collect()).collect();
        // Values come first in the arena.
        let halves = self.partial.div_ceil(2);
        let scratch_stride = self.scratch_stride.div_ceil(2).next_multiple_of(16);
        let mut offsets = Offsets::default();
        offsets.take(self.arena);
        self.rounded = Some(RoundedValues {
            after,
            pairs: offsets.take(halves),
            columns: offsets.take(halves),
            scratch: offsets.take(scratch_stride * threads),
            scratch_stride,
        });
        self.arena = offsets.len();
    }
}

/// The values that a phase writes.
fn written(phase: &Phase) -> Vec<ValueId> {
    let of_steps = |steps: &[Step]| steps.iter().flat_map(|step| step.op.writes()).collect::<Vec<_>>();
    match phase {
        Phase::Gather { value } => vec![*value],
        Phase::Draw { op } | Phase::Coupled { op, .. } => op.writes(),
        Phase::Contract { output, steps, .. }
        | Phase::Reduce { output, steps, .. }
        | Phase::Expand { output, steps, .. } => std::iter::once(*output).chain(of_steps(steps)).collect(),
        Phase::Elements { steps, .. } => of_steps(steps),
        Phase::Partial { .. } | Phase::WeightGrad { .. } | Phase::Scatter { .. } | Phase::Arrive | Phase::Wait => {
            vec![]
        }
    }
}

/// The rounded weights.
pub(crate) struct RoundedParams {
    /// `[panel][row][PW]`, with the offsets of the floats: what partial products read.
    columns: Arena,
    /// `[panel][pair of rows][PW][2]`, or whatever else the level's expansions read.
    pairs: Arena,
    /// Of each parameter, what products read.
    forms: Vec<ParamForms>,
}

/// The rounded forms of one parameter.
#[derive(Clone, Copy, Default)]
struct ParamForms {
    columns: bool,
    pairs: bool,
    /// Offset of the pairs, in halves, and the number of rows there is room for.
    start: usize,
    rows: usize,
}

impl RoundedParams {
    fn columns(&self, offset: usize) -> *mut Bf16 {
        self.columns.at(0).cast::<Bf16>().wrapping_add(offset)
    }

    /// The pairs from row `row`, a multiple of [`RoundedKernels::expand_rows`], of a panel.
    fn pairs(&self, id: ParamId, panel: usize, row: usize, width: usize) -> *mut Bf16 {
        let forms = &self.forms[id.index()];
        self.pairs.at(0).cast::<Bf16>().wrapping_add(forms.start + (panel * forms.rows + row) * width)
    }
}

impl Params {
    /// Makes room for the rounded weights that the training schedule reads, inference being part of it; the floats are
    /// 0 still, and so are they.
    pub(crate) fn add_rounded(&mut self, schedule: &Schedule, kernels: &RoundedKernels) -> Result<(), CompileError> {
        let mut forms = vec![ParamForms::default(); self.slots.len()];
        for phase in &schedule.phases {
            match phase {
                Phase::Contract { weight, .. } | Phase::Partial { weight, .. } => forms[weight.index()].columns = true,
                Phase::Expand { weight, .. } => forms[weight.index()].pairs = true,
                _ => {}
            }
        }
        let mut offsets = Offsets::default();
        for (forms, slot) in forms.iter_mut().zip(&self.slots).filter(|(forms, _)| forms.pairs) {
            forms.rows = slot.rows.next_multiple_of(kernels.expand_rows);
            forms.start = offsets.take(slot.panels * forms.rows * self.width);
        }
        let what = "the rounded parameters";
        let columns = Arena::new(self.len.div_ceil(2), what)?;
        let pairs = Arena::new(offsets.len().div_ceil(2), what)?;
        self.rounded = Some(RoundedParams { columns, pairs, forms });
        Ok(())
    }

    /// Rounds a panel of a parameter, if this level rounds at all.
    ///
    /// # Safety
    /// Nobody else writes the panel or reads its rounded forms; the kernels' instruction set is available.
    pub(crate) unsafe fn round(&self, kernels: &Kernels, id: ParamId, panel: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.round_rows(kernels, id, panel, 0..self.slot(id).rows) };
    }

    /// Rounds some rows of a panel of a parameter, from a multiple of [`NEAR_ROWS`] on, if this level rounds at all.
    ///
    /// # Safety
    /// As for [`Params::round`]; the rows exist.
    unsafe fn round_rows(&self, kernels: &Kernels, id: ParamId, panel: usize, rows: Range<usize>) {
        let (Some(rounded), Some(kernels)) = (&self.rounded, kernels.rounded) else { return };
        let forms = rounded.forms[id.index()];
        if !forms.columns && !forms.pairs {
            return;
        }
        let (slot, width) = (self.slot(id), self.width);
        let at = slot.row(panel, rows.start, width);
        let form = |wanted: bool, form: *mut Bf16| if wanted { form } else { std::ptr::null_mut() };
        // SAFETY: the rows exist in all forms, and are the caller's.
        unsafe {
            (kernels.round_weights)(&Rounding {
                from: self.w.at(at),
                rows: rows.len(),
                valid: (slot.columns - panel * width).min(width),
                columns: form(forms.columns, rounded.columns(at)),
                pairs: form(forms.pairs, rounded.pairs(id, panel, rows.start, width)),
            });
        }
    }

    /// Rounds every parameter, if this level rounds at all.
    pub(crate) fn round_all(&mut self, kernels: &Kernels) {
        for index in 0..self.slots.len() {
            for panel in 0..self.slots[index].panels {
                // SAFETY: `&mut self` excludes others; an executable has kernels that its processor can run.
                unsafe { self.round(kernels, ParamId(index as u32), panel) };
            }
        }
    }
}

impl Worker<'_> {
    /// The kernels that round, with what they read, where the level has them.
    fn rounded(&self) -> Option<(&RoundedKernels, &RoundedValues, &RoundedParams)> {
        Some((self.kernels.rounded?, self.schedule.rounded.as_ref()?, self.params.rounded.as_ref()?))
    }

    /// A value's element in the form at `form`; for pairs, `feature` is even.
    fn rounded_at(&self, form: usize, value: Value, batch_panel: usize, feature: usize) -> *mut Bf16 {
        let offset = 2 * form + value.offset + batch_panel * value.stride + feature * self.width();
        self.arena.cast::<Bf16>().wrapping_add(offset)
    }

    /// Rounds what this thread has written in phase `phase`.
    ///
    /// # Safety
    /// As for [`Worker::run`], right after that phase.
    pub(crate) unsafe fn round_values(&self, pass: &Pass, phase: usize) {
        let Some((kernels, values, _)) = self.rounded() else { return };
        let all = self.batch_panels(pass);
        for forms in &values.after[phase] {
            let value = self.value(forms.value);
            let (panels, batch_panels) = match self.schedule.phases[phase] {
                Phase::Contract { .. } => (0..value.panels, part(all, self.member)),
                _ => (self.home(value), 0..all),
            };
            for panel in panels {
                let feature = panel * self.width();
                for batch_panel in batch_panels.clone() {
                    let form = |wanted: bool, form: usize| match wanted {
                        true => self.rounded_at(form, value, batch_panel, feature),
                        false => std::ptr::null_mut(),
                    };
                    // SAFETY: this thread wrote the block, and its rounded forms are as large.
                    unsafe {
                        (kernels.round)(&Rounding {
                            from: self.at(value, batch_panel, feature),
                            rows: self.features(value, panel),
                            valid: (pass.rows - batch_panel * self.width()).min(self.width()),
                            columns: form(forms.columns, values.columns),
                            pairs: form(forms.pairs, values.pairs),
                        });
                    }
                }
            }
        }
    }

    /// Runs `q`, a product of the panels of `weight` from `panel`, its rows from `row`, with `x`.
    ///
    /// # Safety
    /// Pointers as [`Partial`] documents; `x` is the value, batch panel and first feature of `q.x`.
    pub(crate) unsafe fn partial_product(
        &self,
        q: &Partial,
        (weight, panel, row): (ParamId, usize, usize),
        (value, batch_panel, feature): (Value, usize, usize),
    ) {
        // SAFETY: the caller's promise; rounded operands have the extent of the floats.
        unsafe {
            match self.rounded() {
                None => (self.kernels.partial)(q),
                Some((kernels, values, params)) => {
                    let w = params.columns(self.params.slot(weight).row(panel, row, self.width()));
                    let x = self.rounded_at(values.pairs, value, batch_panel, feature);
                    (kernels.partial)(&q.of(w.cast_const(), x.cast_const()));
                }
            }
        }
    }

    /// Runs `q`, a product of panel `panel` of `weight`, its rows from `row`, a multiple of
    /// [`RoundedKernels::expand_rows`], with `x`.
    ///
    /// # Safety
    /// Pointers as [`Expand`] documents; `x` is the value, batch panel and first feature of `q.x`.
    pub(crate) unsafe fn expand_product(
        &self,
        q: &Expand,
        (weight, panel, row): (ParamId, usize, usize),
        (value, batch_panel, feature): (Value, usize, usize),
    ) {
        // SAFETY: the caller's promise; rounded operands have the extent of the floats.
        unsafe {
            match self.rounded() {
                None => (self.kernels.expand)(q),
                Some((kernels, values, params)) => {
                    let w = params.pairs(weight, panel, row, self.width());
                    let x = self.rounded_at(values.pairs, value, batch_panel, feature);
                    (kernels.expand)(&q.of(w.cast_const(), x.cast_const()));
                }
            }
        }
    }

    /// Runs `q`, the gradient of panel `panel` of `weight` by `pairs` from batch panel `batch_panel` on, and rounds the weights
    /// that it changes.
    ///
    /// # Safety
    /// Pointers as [`WeightGrad`] documents, which has the floats of the same pairs.
    pub(crate) unsafe fn weight_grad_product(
        &self,
        q: &WeightGrad<'_>,
        (weight, panel): (ParamId, usize),
        pairs: &[(ValueId, ValueId)],
        batch_panel: usize,
    ) {
        // SAFETY: the caller's promise; this thread alone has its scratch and the panel.
        unsafe {
            let Some((kernels, values, _)) = self.rounded() else { return (self.kernels.weight_grad)(q) };
            let mut operands = [Pair { a: std::ptr::null(), a_stride: 0, p: std::ptr::null() }; MAX_PAIRS];
            let scratch = self.arena.add(values.scratch + self.member.thread * values.scratch_stride).cast::<Bf16>();
            for (index, ((whole, _), floats)) in pairs.iter().zip(q.pairs).enumerate() {
                let p = scratch.add(index * self.schedule.padded_rows * self.width());
                (kernels.round)(&Rounding {
                    from: floats.p,
                    rows: q.batch,
                    valid: self.width(),
                    columns: std::ptr::null_mut(),
                    pairs: p,
                });
                let a = self.rounded_at(values.columns, self.value(*whole), batch_panel, 0);
                operands[index] = Pair { a: a.cast_const(), a_stride: floats.a_stride, p: p.cast_const() };
            }
            let operands = &mut operands[..q.pairs.len()];
            if matches!(q.rule, Rule::Store) || !q.sums.ends {
                return (kernels.weight_grad)(&q.of(operands));
            }
            let (width, mut squares) = (self.width(), 0.0);
            for row in (0..q.rows).step_by(NEAR_ROWS) {
                let rows = (q.rows - row).min(NEAR_ROWS);
                let mut part = 0.0;
                let square_sum = if q.square_sum.is_null() { q.square_sum } else { &raw mut part };
                let (w, moments) = (q.w.add(row * width), q.moments.add(row * 2 * width));
                let sums = q.sums.from(row * width);
                (kernels.weight_grad)(&WeightGrad { rows, sums, w, moments, square_sum, ..q.of(operands) });
                self.params.round_rows(self.kernels, weight, panel, row..row + rows);
                squares += part;
                for pair in &mut *operands {
                    pair.a = pair.a.wrapping_add(rows * width);
                }
            }
            if !q.square_sum.is_null() {
                *q.square_sum = squares;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cvae_core::{
        Activation, Batch, Entry, Executable, Initializer, ModelSpec, Noise, Objective, OptimizerSpec, Plan, State,
        Stream,
    };

    use crate::backend::Level;
    use crate::executable::CpuExecutable;
    use crate::kernels::table::{self, Kernels};

    const WIDTHS: [usize; 4] = [139, 70, 33, 5];

    /// Losses, parameters after some steps of up to `batch` rows, and reconstructions of as many rows as are taken apart by
    /// threads.
    fn train(kernels: &'static Kernels, threads: usize, clip: Option<f64>, batch: usize) -> [Vec<f32>; 3] {
        let spec = ModelSpec::mlp(&WIDTHS, Activation::Gelu, Activation::Identity).unwrap();
        let optimizer = OptimizerSpec { clip_norm: clip, ..OptimizerSpec::adam(1e-3) };
        let plan = Arc::new(Plan::new(spec, Objective::collapsed(0.1, 1e-2), optimizer, 5, batch).unwrap());
        let mut model = CpuExecutable::new(Arc::clone(&plan), Level::ScalarBf16, kernels, threads, false).unwrap();
        model.write(State::Params, &plan.params.initial(Initializer::Torch, 3)).unwrap();
        let mut rows = vec![0.0; batch.max(320) * WIDTHS[0]];
        for (row, out) in rows.chunks_mut(WIDTHS[0]).enumerate() {
            Noise::new(7, Stream::Data, 0).uniform(row as u32, out);
        }
        let mut losses = vec![];
        for count in [batch, 16, 3, batch] {
            model.train_step(&Batch::host(&rows[..count * WIDTHS[0]])).unwrap();
            losses.push(model.losses().unwrap().total() as f32);
        }
        let mut params = vec![f32::NAN; plan.params.len()];
        model.read(State::Params, &mut params).unwrap();
        let mut out = vec![f32::NAN; rows.len()];
        model.infer(Entry::Reconstruct, &rows, &mut out).unwrap();
        [losses, params, out]
    }

    #[test]
    fn tiles_train_as_pairs_do() {
        // 1100 rows are more than weight gradients take at a time, and one thread divides them in contractions.
        for (clip, batch) in [(None, 45), (Some(0.1), 45), (None, 1100), (Some(0.1), 1100)] {
            let expected = train(&table::portable_bf16::KERNELS, 1, clip, batch);
            let found = train(&table::emulated_tiles::KERNELS, 1, clip, batch);
            for (what, (found, expected)) in ["losses", "parameters", "rows"].iter().zip(found.iter().zip(&expected)) {
                let squares =
                    |of: &dyn Fn(usize) -> f32| (0..found.len()).map(|i| f64::from(of(i)).powi(2)).sum::<f64>();
                let error = (squares(&|i| found[i] - expected[i]) / squares(&|i| expected[i])).sqrt();
                assert!(error < 1e-3, "{what}: {error:e}");
            }
            for threads in [2, 3, 7] {
                assert!(train(&table::emulated_tiles::KERNELS, threads, clip, batch) == found, "{threads} threads");
            }
        }
    }

    /// The gradients of 600 rows, more than weight gradients take at a time, each unlike the others.
    fn gradients(level: Level, kernels: &'static Kernels) -> Vec<f32> {
        let spec = ModelSpec::mlp(&WIDTHS, Activation::Gelu, Activation::Identity).unwrap();
        let objective = Objective::collapsed(0.1, 1e-2);
        let plan = Arc::new(Plan::new(spec, objective, OptimizerSpec::adam(1e-3), 5, 600).unwrap());
        let mut model = CpuExecutable::new(Arc::clone(&plan), level, kernels, 2, false).unwrap();
        model.write(State::Params, &plan.params.initial(Initializer::Torch, 3)).unwrap();
        let mut rows = vec![0.0; 600 * WIDTHS[0]];
        for (row, out) in rows.chunks_mut(WIDTHS[0]).enumerate() {
            Noise::new(7, Stream::Data, 0).uniform(row as u32, out);
            out.iter_mut().for_each(|value| *value = *value * 2.0 - 1.0);
        }
        model.gradients(&Batch::host(&rows)).unwrap();
        let mut gradients = vec![f32::NAN; plan.params.len()];
        model.read(State::Grads, &mut gradients).unwrap();
        gradients
    }

    #[test]
    fn rounding_leaves_gradients_of_large_batches_near() {
        let expected = gradients(Level::Scalar, &table::portable::KERNELS);
        for (name, kernels) in
            [("pairs", &table::portable_bf16::KERNELS), ("emulated tiles", &table::emulated_tiles::KERNELS)]
        {
            let found = gradients(Level::ScalarBf16, kernels);
            let size = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let error = size(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
            let error = error / size(&mut expected.iter().copied());
            assert!(error < 0.005, "{name}: {error:e}");
        }
    }
}
