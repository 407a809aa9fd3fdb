//! What a backend keeps between calls: poisoned scratch, several executables, buffers of the caller.
//!
//! Guard words stand around every buffer of every check; see `probe.rs`.

use cvae_core::{Batch, BatchRows, Entry};

use crate::check::Check;
use crate::checks::gradients::shared_case;
use crate::checks::steps::training_case;
use crate::compare::identical;
use crate::failure::{Score, Verdict, expect};
use crate::target::Target;

/// Adds `memory::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for rows in [1, 2, 5, 9, 16] {
        all.push(Check::new(format!("memory::poison::rows{rows}"), move |target| poison(target, rows)));
    }
    all.push(Check::new("memory::executables::two_at_once", two_at_once));
    all.push(Check::new("memory::inference::changes_nothing", inference_changes_nothing));
}

/// After a full batch of NaN has gone through every pass, a smaller batch gives the bits of a fresh executable:
/// nothing that an earlier batch left in scratch memory is read.
fn poison(target: &Target<'_>, rows: usize) -> Verdict {
    let case = training_case(20)?;
    let start = case.start()?;
    let (width, latent) = (case.plan.spec.width(), case.plan.spec.latent());
    let nan = vec![f32::NAN; case.plan.max_rows * width];
    let mut poisoned = case.probe(target.backend)?;
    let batch = Batch { rows: BatchRows::Host { values: &nan, first_row: 0 }, epoch: 0 };
    poisoned.gradients(&batch)?;
    poisoned.train_step(&batch)?;
    poisoned.infer(Entry::Reconstruct, &nan)?;
    poisoned.infer(Entry::Encode, &nan)?;
    poisoned.infer(Entry::Decode, &nan[..case.plan.max_rows * latent])?;
    let losses = poisoned.losses()?;
    expect(losses.non_finite.is_some(), "the poison reported", || format!("{losses:?}"))?;

    let mut fresh = case.probe(target.backend)?;
    poisoned.start(&start)?;
    fresh.start(&start)?;
    let values = &case.rows[..rows * width];
    for entry in Entry::ALL {
        let input = &case.input(entry)[..rows * entry.widths(&case.plan).0];
        identical("inference after poison", &poisoned.infer(entry, input)?, &fresh.infer(entry, input)?)?;
    }
    let (left, right) = (poisoned.gradients(&Batch::host(values))?, fresh.gradients(&Batch::host(values))?);
    identical("gradients after poison", &left, &right)?;
    poisoned.train_step(&Batch::host(values))?;
    fresh.train_step(&Batch::host(values))?;
    identical("parameters after poison", &poisoned.snapshot()?.params, &fresh.snapshot()?.params)?;
    identical("losses after poison", &poisoned.losses()?.sums, &fresh.losses()?.sums)?;
    Ok(Score::EXACT)
}

/// Two executables of one backend, of different plans, do not touch each other.
fn two_at_once(target: &Target<'_>) -> Verdict {
    let (small, large) = (shared_case()?, training_case(20)?);
    let mut alone = small.probe(target.backend)?;
    let mut first = small.probe(target.backend)?;
    let mut other = large.probe(target.backend)?;
    for _ in 0..3 {
        alone.train_step(&small.batch())?;
    }
    for _ in 0..3 {
        first.train_step(&small.batch())?;
        other.train_step(&large.batch())?;
        other.infer(Entry::Reconstruct, &large.rows)?;
    }
    identical("parameters beside another executable", &alone.snapshot()?.params, &first.snapshot()?.params)?;
    drop(other);
    first.train_step(&small.batch())?;
    alone.train_step(&small.batch())?;
    identical("parameters after another is dropped", &alone.snapshot()?.params, &first.snapshot()?.params)?;
    Ok(Score::EXACT)
}

/// Inference changes no state and no losses, and gives the same bits between training steps.
fn inference_changes_nothing(target: &Target<'_>) -> Verdict {
    let case = shared_case()?;
    let (mut quiet, mut busy) = (case.probe(target.backend)?, case.probe(target.backend)?);
    for _ in 0..3 {
        quiet.train_step(&case.batch())?;
        for entry in Entry::ALL {
            let first = busy.infer(entry, case.input(entry))?;
            identical("one entry called twice", &first, &busy.infer(entry, case.input(entry))?)?;
        }
        busy.train_step(&case.batch())?;
    }
    let (quiet_state, busy_state) = (quiet.snapshot()?, busy.snapshot()?);
    identical("training with inference in between", &quiet_state.params, &busy_state.params)?;
    identical("losses with inference in between", &quiet.losses()?.sums, &busy.losses()?.sums)?;
    Ok(Score::EXACT)
}
