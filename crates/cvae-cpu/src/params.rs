//! Parameters and moments in the layout that kernels want.
//!
//! A weight is a row of panels along its split dimension, `[panel][row][PW]`: along its inputs if the layer
//! contracts the split activation, along its outputs if it expands into one. Moments lie interleaved
//! beside it, `[panel][row][2][PW]`, so that one pass streams both.

use cvae_core::{CompileError, ParamId, ParamLayout, ParamRole, State};

use crate::arena::{Arena, Offsets};
use crate::rounded::RoundedParams;

/// Where one parameter lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Rows of a panel: the width of the dimension that is not split (1 for a bias).
    pub(crate) rows: usize,
    /// Width of the split dimension.
    pub(crate) columns: usize,
    /// Panels along the split dimension.
    pub(crate) panels: usize,
    /// Whether the split dimension is the inputs, so that element `[out][in]` is at row `out`, column `in`.
    pub(crate) contracts: bool,
    /// Offset of the parameters; gradients have the same offset in their own arena.
    pub(crate) w: usize,
    /// Offset of the moments.
    pub(crate) moments: usize,
    /// First element in the flat buffer of [`ParamLayout`].
    flat: usize,
}

impl Slot {
    /// Offset of row `row` of panel `panel` in the parameters.
    pub(crate) fn row(&self, panel: usize, row: usize, width: usize) -> usize {
        self.w + (panel * self.rows + row) * width
    }

    /// Offset of row `row` of panel `panel` in the moments.
    pub(crate) fn moment_row(&self, panel: usize, row: usize, width: usize) -> usize {
        self.moments + (panel * self.rows + row) * 2 * width
    }

    /// Position in the flat buffer of the element at (row, column).
    fn flat_index(&self, row: usize, column: usize) -> usize {
        let (inputs, out, input) = if self.contracts { (self.columns, row, column) } else { (self.rows, column, row) };
        self.flat + out * inputs + input
    }
}

/// All parameters, their moments and, once asked for, their gradients.
pub(crate) struct Params {
    pub(crate) slots: Vec<Slot>,
    /// Width of a panel.
    pub(crate) width: usize,
    pub(crate) w: Arena,
    pub(crate) moments: Arena,
    /// Laid out like `w`.
    pub(crate) grads: Option<Arena>,
    /// Of a level that rounds the operands of its products.
    pub(crate) rounded: Option<RoundedParams>,
    /// Floats of `w`.
    pub(crate) len: usize,
    flat_len: usize,
}

impl Params {
    /// Zeroed parameters; `contracts[id]` tells how the weight `id` is split.
    pub(crate) fn new(layout: &ParamLayout, contracts: &[bool], width: usize) -> Result<Self, CompileError> {
        let (mut offsets, mut moment_offsets) = (Offsets::default(), Offsets::default());
        let mut slots = Vec::with_capacity(layout.params().len());
        for (param, contracts) in layout.params().iter().zip(contracts) {
            let (out, inputs) = match param.role {
                ParamRole::Weight => (param.shape[0], param.shape[1]),
                ParamRole::Bias => (1, param.shape[0]),
            };
            let contracts = *contracts || param.role == ParamRole::Bias;
            let (rows, columns) = if contracts { (out, inputs) } else { (inputs, out) };
            let panels = columns.div_ceil(width);
            slots.push(Slot {
                rows,
                columns,
                panels,
                contracts,
                w: offsets.take(panels * rows * width),
                moments: moment_offsets.take(panels * rows * 2 * width),
                flat: param.offset,
            });
        }
        Ok(Self {
            slots,
            width,
            w: Arena::new(offsets.len(), "the parameters")?,
            moments: Arena::new(moment_offsets.len(), "the optimiser moments")?,
            grads: None,
            rounded: None,
            len: offsets.len(),
            flat_len: layout.len(),
        })
    }

    /// The slot of a parameter.
    pub(crate) fn slot(&self, id: ParamId) -> &Slot {
        &self.slots[id.index()]
    }

    /// Makes room for gradients, once.
    pub(crate) fn ensure_grads(&mut self) -> Result<(), CompileError> {
        if self.grads.is_none() {
            self.grads = Some(Arena::new(self.len, "the gradients")?);
        }
        Ok(())
    }

    /// Elements of the flat buffer.
    pub(crate) fn flat_len(&self) -> usize {
        self.flat_len
    }

    /// Zeroes the parameters or one of the moments, the unused lanes of the last panels included: what a
    /// diverged run left there would otherwise reach the global norm of the gradients.
    pub(crate) fn clear(&mut self, state: State) {
        let width = self.width;
        for slot in &self.slots {
            for panel in 0..slot.panels {
                for row in 0..slot.rows {
                    let start = match state {
                        State::Params => self.w.at(slot.row(panel, row, width)),
                        State::Moment1 => self.moments.at(slot.moment_row(panel, row, width)),
                        State::Moment2 => self.moments.at(slot.moment_row(panel, row, width) + width),
                        State::Grads => return,
                    };
                    // SAFETY: the slot reserves `width` floats per row, and `&mut self` excludes others.
                    unsafe { std::slice::from_raw_parts_mut(start, width) }.fill(0.0);
                }
            }
        }
    }

    /// Calls `f(flat index, element)` for every element of a state; false if the state does not exist.
    pub(crate) fn for_each(&mut self, state: State, mut f: impl FnMut(usize, &mut f32)) -> bool {
        let width = self.width;
        let grads = self.grads.as_ref();
        for slot in &self.slots {
            for panel in 0..slot.panels {
                for row in 0..slot.rows {
                    let start = match state {
                        State::Params => self.w.at(slot.row(panel, row, width)),
                        State::Moment1 => self.moments.at(slot.moment_row(panel, row, width)),
                        State::Moment2 => self.moments.at(slot.moment_row(panel, row, width) + width),
                        State::Grads => match grads {
                            Some(grads) => grads.at(slot.row(panel, row, width)),
                            None => return false,
                        },
                    };
                    for column in panel * width..((panel + 1) * width).min(slot.columns) {
                        // SAFETY: the slot reserves `width` floats per row, and `&mut self` excludes others.
                        let element = unsafe { &mut *start.add(column - panel * width) };
                        f(slot.flat_index(row, column), element);
                    }
                }
            }
        }
        true
    }
}
