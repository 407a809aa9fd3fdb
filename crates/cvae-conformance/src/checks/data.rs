//! Data sets and batches: bytes, order, release, any number of rows.

use cvae_core::{Batch, Entry};

use crate::case::Case;
use crate::check::Check;
use crate::checks::gradients::shared_case;
use crate::compare::identical;
use crate::failure::{Score, Verdict};
use crate::probe::Probe;
use crate::target::Target;

/// Adds `data::*` and `rows::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for (name, scale) in [("exact_scale", 1.0 / 256.0), ("image_scale", 1.0 / 255.0)] {
        all.push(Check::new(format!("data::bytes::{name}"), move |target| bytes(target, scale)));
    }
    all.push(Check::new("data::resident::order", resident));
    all.push(Check::new("data::resident::two_sets", two_sets));
    for rows in [1, 10, 11, 12, 40, 121] {
        all.push(Check::new(format!("rows::inference::rows{rows}_of_max_11"), move |target| any_rows(target, rows)));
    }
    all.push(Check::new("rows::training::every_count_up_to_max", every_count));
}

/// Bytes train as the `f32` products `b · scale` do, bit for bit.
fn bytes(target: &Target<'_>, scale: f32) -> Verdict {
    let case = shared_case()?;
    let width = case.plan.spec.width();
    let bytes: Vec<u8> = (0..7 * width).map(|i| (i * 37 % 256) as u8).collect();
    let floats: Vec<f32> = bytes.iter().map(|byte| f32::from(*byte) * scale).collect();
    let mut probe = case.probe(target.backend)?;
    let (as_bytes, as_floats) = (probe.upload_u8(&bytes, scale)?, probe.upload(&floats)?);
    let order = [6, 0, 3, 3, 1];
    let left = probe.gradients(&Batch::resident(as_bytes, &order, 0))?;
    let right = probe.gradients(&Batch::resident(as_floats, &order, 0))?;
    identical("gradients on bytes and on floats", &left, &right)?;
    Ok(Score::EXACT)
}

/// A resident batch is the rows of its indices, in that order.
fn resident(target: &Target<'_>) -> Verdict {
    let spec = crate::case::mlp([7, 5, 2, 5], 1, cvae_core::Activation::Elu, cvae_core::Activation::Identity)?;
    let objective = cvae_core::Objective::default();
    let case = Case::new("resident", spec, objective, cvae_core::OptimizerSpec::default(), 9, 21)?;
    let mut probe = case.probe(target.backend)?;
    let data = probe.upload(&case.rows)?;
    let order = [4, 8, 0, 0, 2];
    let gathered: Vec<f32> = order.iter().flat_map(|row| &case.rows[*row as usize * 7..][..7]).copied().collect();
    let left = probe.gradients(&Batch::resident(data, &order, 0))?;
    let right = probe.gradients(&Batch::host(&gathered))?;
    identical("resident rows and the same rows as values", &left, &right)?;
    Ok(Score::EXACT)
}

/// Releasing one data set leaves another as it was, and no id is used twice while it lives.
fn two_sets(target: &Target<'_>) -> Verdict {
    let case = shared_case()?;
    let width = case.plan.spec.width();
    let mut probe = case.probe(target.backend)?;
    let first = probe.upload(&vec![0.25; 2 * width])?;
    let second = probe.upload(&case.rows)?;
    let before = probe.gradients(&Batch::resident(second, &[1, 2], 0))?;
    crate::probe::run("release", probe.raw().release(first))?;
    let third = probe.upload(&vec![0.75; 2 * width])?;
    crate::failure::expect(third != second, "an id of its own", || format!("{third:?} twice"))?;
    let after = probe.gradients(&Batch::resident(second, &[1, 2], 0))?;
    identical("a data set before and after another is released", &before, &after)?;
    Ok(Score::EXACT)
}

/// Inference takes any number of rows, beyond `max_rows` too, and each row's result is that of the row alone.
fn any_rows(target: &Target<'_>, rows: usize) -> Verdict {
    let spec = crate::case::mlp([23, 31, 3, 17], 2, cvae_core::Activation::Tanh, cvae_core::Activation::Sigmoid)?;
    let (objective, optimizer) = (cvae_core::Objective::ae(), cvae_core::OptimizerSpec::default());
    let long = Case::new("rows", spec, objective, optimizer, rows, 51)?;
    // The same model with room for 11 rows.
    let plan = cvae_core::Plan::new(long.plan.spec.clone(), long.plan.objective.clone(), optimizer, 51, 11)?;
    let mut probe = Probe::with_params(target.backend, &std::sync::Arc::new(plan), &long.params)?;
    let mut worst = Score::EXACT;
    for entry in Entry::ALL {
        let found = probe.infer(entry, long.input(entry))?;
        let expected = &long.expected()?.entries[entry as usize];
        worst = worst.worse(long.measure(target).whole("the output", &found, expected)?);
        let (from, to) = entry.widths(&long.plan);
        let last = probe.infer(entry, &long.input(entry)[(rows - 1) * from..])?;
        let score = long.measure(target).whole("the last row alone", &last, &found[(rows - 1) * to..])?;
        worst = worst.worse(score);
    }
    Ok(worst)
}

/// Every batch size from 1 to `max_rows`, on one executable, against the reference.
fn every_count(target: &Target<'_>) -> Verdict {
    let spec = crate::case::mlp([5, 9, 3, 6], 1, cvae_core::Activation::Silu, cvae_core::Activation::Identity)?;
    let objective = cvae_core::Objective { decoder_l2: 0.1, ..cvae_core::Objective::vae(0.5) };
    let case = Case::new("count", spec, objective, cvae_core::OptimizerSpec::default(), 35, 61)?;
    let mut probe = case.probe(target.backend)?;
    let mut reference = case.probe(&cvae_reference::ReferenceBackend)?;
    let mut worst = Score::EXACT;
    // Downwards too, so that what a larger batch left behind would show.
    for rows in (1..=35).chain((1..=35).rev()) {
        let batch = Batch::host(&case.rows[..rows * 5]);
        let (found, expected) = (probe.gradients(&batch)?, reference.gradients(&batch)?);
        let what = format!("{rows} rows, the gradient of");
        worst = worst.worse(case.measure(target).params(&what, &case.plan.params, &found, &expected)?);
    }
    Ok(worst)
}
