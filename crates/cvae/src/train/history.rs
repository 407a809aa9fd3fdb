//! What is recorded of each epoch.

use cvae_core::{Losses, Term};
use serde::{Deserialize, Serialize};

/// One epoch of training: one line of `metrics.jsonl`.
///
/// Loss terms are means over the rows of the epoch, each taken at the step that trained on the row, and
/// weighted as in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Optimiser steps done at its end.
    pub step: u64,
    /// The whole loss.
    pub loss: f64,
    /// Its reconstruction term.
    pub reconstruction: f64,
    /// Its latent term.
    pub latent: f64,
    /// Its decoder regulariser.
    pub decoder_l2: f64,
    /// Its penalty on a Jacobian.
    #[serde(default)]
    pub jacobian: f64,
    /// The whole loss on the validation rows after the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Root mean square of the codes' elements: over the epoch for the collapsed objective (its latent term
    /// tells), else over a sample of rows after the epoch.
    pub latent_rms: f64,
    /// Rows trained on a second.
    pub rows_per_second: f64,
    /// Seconds that the epoch took, validation included and checkpoints not.
    pub seconds: f64,
}

impl EpochRecord {
    /// A term of the loss.
    pub fn term(&self, term: Term) -> f64 {
        match term {
            Term::Reconstruction => self.reconstruction,
            Term::Latent => self.latent,
            Term::DecoderL2 => self.decoder_l2,
            Term::Jacobian => self.jacobian,
        }
    }
}

/// Adds the losses `part` of later steps to `whole`.
pub(super) fn merge(whole: &mut Losses, part: &Losses) {
    whole.steps += part.steps;
    whole.rows += part.rows;
    for (sum, part) in whole.sums.iter_mut().zip(part.sums) {
        *sum += part;
    }
    whole.last = part.last;
    whole.non_finite = whole.non_finite.or(part.non_finite);
}
