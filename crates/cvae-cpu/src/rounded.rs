//! Values and weights rounded to bfloat16, beside their floats.
//!
//! A level that multiplies pairs of bfloat16 keeps, of every value that is an operand of a product, the form that the
//! product reads: `[pair of features][PW][2]` where the product contracts features, `[feature][PW]` where it
//! contracts rows of the batch. The thread that writes a panel rounds it right after, so that no further exchange is
//! needed. Of every weight there are both forms, rounded anew whenever its floats change; floats are what is trained.

use cvae_core::{CompileError, ParamId, ValueId};

use crate::arena::{Arena, Offsets};
use crate::kernels::linear::{Expand, Partial};
use crate::kernels::linear_grad::{Pair, WeightGrad};
use crate::kernels::optimizer::Rule;
use crate::kernels::rounding::Rounding;
use crate::kernels::table::{Kernels, RoundedKernels};
use crate::params::{Params, Slot};
use crate::run::{Pass, Worker};
use crate::schedule::{MAX_PAIRS, Phase, Schedule, Step, Value};
use crate::simd::bf16::Bf16;

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
                Phase::Partial { input, .. } | Phase::Expand { input, .. } => forms[input.index()].pairs = true,
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
        Phase::Reduce { output, steps, .. } | Phase::Expand { output, steps, .. } => {
            std::iter::once(*output).chain(of_steps(steps)).collect()
        }
        Phase::Elements { steps, .. } => of_steps(steps),
        Phase::Partial { .. } | Phase::WeightGrad { .. } | Phase::Scatter { .. } | Phase::Arrive | Phase::Wait => {
            vec![]
        }
    }
}

/// The rounded weights.
pub(crate) struct RoundedParams {
    /// `[panel][row][PW]`, with the offsets of the floats.
    columns: Arena,
    /// `[panel][pair of rows][PW][2]`.
    pairs: Arena,
    /// Offset of each parameter's pairs, in halves.
    starts: Vec<usize>,
}

impl RoundedParams {
    fn columns(&self, offset: usize) -> *mut Bf16 {
        self.columns.at(0).cast::<Bf16>().wrapping_add(offset)
    }

    /// The pairs from row `row`, an even one, of a panel.
    fn pairs(&self, id: ParamId, slot: &Slot, panel: usize, row: usize, width: usize) -> *mut Bf16 {
        let offset = self.starts[id.index()] + (panel * slot.rows.next_multiple_of(2) + row) * width;
        self.pairs.at(0).cast::<Bf16>().wrapping_add(offset)
    }
}

impl Params {
    /// Makes room for rounded weights; the floats are 0 still, and so are they.
    pub(crate) fn add_rounded(&mut self) -> Result<(), CompileError> {
        let mut offsets = Offsets::default();
        let elements = |slot: &Slot| slot.panels * slot.rows.next_multiple_of(2) * self.width;
        let starts = self.slots.iter().map(|slot| offsets.take(elements(slot))).collect();
        let what = "the rounded parameters";
        let columns = Arena::new(self.len.div_ceil(2), what)?;
        let pairs = Arena::new(offsets.len().div_ceil(2), what)?;
        self.rounded = Some(RoundedParams { columns, pairs, starts });
        Ok(())
    }

    /// Rounds a panel of a parameter, if this level rounds at all.
    ///
    /// # Safety
    /// Nobody else writes the panel or reads its rounded forms; the kernels' instruction set is available.
    pub(crate) unsafe fn round(&self, kernels: &Kernels, id: ParamId, panel: usize) {
        let (Some(rounded), Some(kernels)) = (&self.rounded, kernels.rounded) else { return };
        let (slot, width) = (self.slot(id), self.width);
        let at = slot.row(panel, 0, width);
        // SAFETY: the panel exists in all three forms, and is the caller's.
        unsafe {
            (kernels.round)(&Rounding {
                from: self.w.at(at),
                rows: slot.rows,
                valid: (slot.columns - panel * width).min(width),
                columns: rounded.columns(at),
                pairs: rounded.pairs(id, slot, panel, 0, width),
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

    /// Rounds what phase `phase` has written of this thread's panels.
    ///
    /// # Safety
    /// As for [`Worker::run`], right after that phase.
    pub(crate) unsafe fn round_values(&self, pass: &Pass, phase: usize) {
        let Some((kernels, values, _)) = self.rounded() else { return };
        for forms in &values.after[phase] {
            let value = self.value(forms.value);
            for panel in self.home(value) {
                let feature = panel * self.width();
                for batch_panel in 0..self.batch_panels(pass) {
                    let form = |wanted: bool, form: usize| match wanted {
                        true => self.rounded_at(form, value, batch_panel, feature),
                        false => std::ptr::null_mut(),
                    };
                    // SAFETY: the panel is this thread's, and its rounded forms are as large.
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

    /// Runs `q`, a product of panel `panel` of `weight`, its rows from `row`, an even one, with `x`.
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
                    let w = params.pairs(weight, self.params.slot(weight), panel, row, self.width());
                    let x = self.rounded_at(values.pairs, value, batch_panel, feature);
                    (kernels.expand)(&q.of(w.cast_const(), x.cast_const()));
                }
            }
        }
    }

    /// Runs `q`, the gradient of panel `panel` of `weight` by `pairs`, and rounds the weights that it changes.
    ///
    /// # Safety
    /// Pointers as [`WeightGrad`] documents, which has the floats of the same pairs.
    pub(crate) unsafe fn weight_grad_product(
        &self,
        q: &WeightGrad<'_>,
        (weight, panel): (ParamId, usize),
        pairs: &[(ValueId, ValueId)],
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
                let a = self.rounded_at(values.columns, self.value(*whole), 0, 0);
                operands[index] = Pair { a: a.cast_const(), a_stride: floats.a_stride, p: p.cast_const() };
            }
            (kernels.weight_grad)(&q.of(&operands[..q.pairs.len()]));
            if !matches!(q.rule, Rule::Store) {
                self.params.round(self.kernels, weight, panel);
            }
        }
    }
}
