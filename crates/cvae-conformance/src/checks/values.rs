//! Rung 0 for values: inference and losses over the sweep, against the reference.

use cvae_core::{Entry, Term};

use crate::case::Case;
use crate::check::Check;
use crate::compare::{identical, relative};
use crate::failure::{Score, Verdict, expect};
use crate::sweep;
use crate::target::Target;

/// Adds `infer::*` and `loss::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for (entry, name) in [(Entry::Encode, "encode"), (Entry::Decode, "decode"), (Entry::Reconstruct, "reconstruct")] {
        for case in sweep::cases() {
            all.push(Check::new(format!("infer::{name}::{}", case.name), move |target| infer(target, case, entry)));
        }
    }
    for case in sweep::cases() {
        let name = format!("loss::{}::{}", sweep::latent_name(case.plan.objective.latent), case.name);
        all.push(Check::new(name, move |target| loss(target, case)));
    }
}

/// An entry's output equals the reference's, and its `f32` form is the same numbers.
pub(crate) fn infer(target: &Target<'_>, case: &Case, entry: Entry) -> Verdict {
    let expected = &case.expected()?.entries[entry as usize];
    let mut probe = case.probe(target.backend)?;
    let found = probe.infer(entry, case.input(entry))?;
    let narrow = probe.infer_f32(entry, case.input(entry))?;
    let from_wide: Vec<f64> = found.iter().map(|value| f64::from(*value as f32)).collect();
    let from_narrow: Vec<f64> = narrow.into_iter().map(f64::from).collect();
    identical("`infer` and `infer_f64`", &from_narrow, &from_wide)?;
    case.measure(target).whole("the output", &found, expected)
}

/// Every term equals the reference's, and the accumulator counts steps and rows.
pub(crate) fn loss(target: &Target<'_>, case: &Case) -> Verdict {
    let expected = case.expected()?.terms;
    let mut probe = case.probe(target.backend)?;
    probe.gradients(&case.batch())?;
    let losses = probe.losses()?;
    let count = case.count();
    expect(
        losses.steps == 1 && losses.rows == count as u64 && losses.non_finite.is_none(),
        format!("one finite step of {count} rows"),
        || format!("{losses:?}"),
    )?;
    let mut worst = case.measure(target).whole("the terms", &losses.last, &expected)?;
    for term in Term::ALL {
        // The accumulator adds nothing but the weight: one step's mean is its last value.
        let mean = losses.mean(term);
        relative(&format!("the mean of the {term} term"), mean, losses.last[term.index()], 1e-6)?;
        if expected[term.index()] == 0.0 {
            expect(mean == 0.0, format!("no {term} term"), || mean.to_string())?;
        }
    }
    let drained = probe.losses()?;
    expect(drained.steps == 0 && drained.rows == 0, "losses to be drained by reading them", || format!("{drained:?}"))?;
    worst = worst.worse(Score::EXACT);
    Ok(worst)
}
