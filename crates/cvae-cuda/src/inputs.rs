//! What a step of the kernels is told: where its rows lie, and the scalars of its update.

use cvae_core::{Plan, Update};

use crate::data::Element;
use crate::task::{Step, UpdateScalars};

/// The source of a batch's rows on the device.
#[derive(Clone, Copy, Default)]
pub(crate) struct Source {
    pub(crate) data: u64,
    pub(crate) order: u64,
    pub(crate) ids: u64,
    pub(crate) first_row: u32,
    pub(crate) bytes: u32,
    pub(crate) scale: f32,
}

impl Source {
    /// With the kind of the rows' elements.
    pub(crate) fn element(mut self, element: Element) -> Self {
        if let Element::U8 { scale } = element {
            (self.bytes, self.scale) = (1, scale);
        }
        self
    }

    /// The inputs of a step on `rows` rows, after `done` finished ones.
    pub(crate) fn step(self, plan: &Plan, done: u64, rows: usize, epoch: u32) -> Step {
        Step {
            data: self.data,
            order: self.order,
            ids: self.ids,
            seed: plan.seed,
            number: done + 1,
            rows: rows as u32,
            first_row: self.first_row,
            epoch,
            bytes: self.bytes,
            scale: self.scale,
            inv_rows: 1.0 / rows as f32,
            update: scalars(plan.optimizer.coefficients(done)),
        }
    }
}

fn scalars(update: Update) -> UpdateScalars {
    match update {
        Update::Adam { beta1, beta2, eps, step_size, inv_sqrt_correction, keep } => UpdateScalars {
            beta1: beta1 as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            eps: eps as f32,
            step_size: step_size as f32,
            inv_sqrt_correction: inv_sqrt_correction as f32,
            keep: keep as f32,
        },
        Update::Sgd { momentum, learning_rate } => {
            UpdateScalars { beta1: momentum as f32, step_size: learning_rate as f32, ..UpdateScalars::default() }
        }
    }
}
