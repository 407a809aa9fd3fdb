//! Rung 0 for the objective family, and its determinism.

use cvae_core::{Batch, Corruption, Entry, Jacobian, Latent, Objective, Shift};
use cvae_reference::ReferenceBackend;

use crate::case::{Case, draw_rows};
use crate::check::Check;
use crate::checks::training::{equal_runs, states_identical};
use crate::checks::{gradients, steps, values};
use crate::failure::{Failure, Score, Verdict, expect};
use crate::family::{self, Member};
use crate::probe::{Probe, Snapshot};
use crate::target::Target;

/// Thread counts that must agree bit for bit with the backend as given.
const THREADS: [usize; 2] = [1, 3];

/// Adds `family::*`, `bitwise::family` and the further terms of `bitwise::zero_weight`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for Member { objective, case } in family::members() {
        let name = format!("family::{objective}::{}", case.name);
        all.push(Check::new(name, move |target| passes(target, case)));
    }
    // One shape of each objective is enough for what does not depend on widths.
    for Member { objective, case } in family::members().iter().filter(|member| member.case.count() == 9) {
        let resident = move |target: &Target<'_>| resident_rows(target, case);
        all.push(Check::new(format!("family::{objective}::resident_rows"), resident));
        all.push(Check::new(format!("bitwise::family::{objective}"), move |target| same_bits(target, case)));
    }
    for (name, absent, zero) in zero_weights() {
        let zero_weight = move |target: &Target<'_>| equal_runs(target, absent.clone(), zero.clone());
        all.push(Check::new(format!("bitwise::zero_weight::{name}"), zero_weight));
    }
}

/// Inference, the terms, the gradient and one step, against the reference.
fn passes(target: &Target<'_>, case: &Case) -> Verdict {
    let mut worst = values::loss(target, case)?.worse(gradients::gradients(target, case)?);
    for entry in Entry::ALL {
        worst = worst.worse(values::infer(target, case, entry)?);
    }
    let start = case.start()?;
    let (mut probe, mut reference) = (case.probe(target.backend)?, case.probe(&ReferenceBackend)?);
    for probe in [&mut probe, &mut reference] {
        probe.start(&start)?;
        probe.train_step(&case.batch())?;
    }
    Ok(worst.worse(steps::compare(target, case, &probe.snapshot()?, &reference.snapshot()?)?))
}

/// Random numbers are those of the rows' indices where rows are resident, out of order and one twice.
fn resident_rows(target: &Target<'_>, case: &Case) -> Verdict {
    let order = [7, 2, 2, 0, 8];
    let batch = |data| Batch::resident(data, &order, 4);
    let (mut probe, mut reference) = (case.probe(target.backend)?, case.probe(&ReferenceBackend)?);
    let (here, there) = (probe.upload(&case.rows)?, reference.upload(&case.rows)?);
    let (found, expected) = (probe.gradients(&batch(here))?, reference.gradients(&batch(there))?);
    case.measure(target).params("the gradient of", &case.plan.params, &found, &expected)
}

/// Two runs, and any number of threads, end in the same bits.
fn same_bits(target: &Target<'_>, case: &Case) -> Verdict {
    let expected = train(case, case.probe(target.backend)?)?;
    states_identical("two runs", &expected, &train(case, case.probe(target.backend)?)?)?;
    if let Some(make) = target.threads {
        for threads in THREADS {
            let found = train(case, case.probe(make(threads)?.as_ref())?)?;
            states_identical(&format!("{threads} threads"), &expected, &found)?;
        }
    }
    Ok(Score::EXACT)
}

/// Three steps over batches of different sizes.
fn train(case: &Case, mut probe: Probe) -> Result<Snapshot, Failure> {
    let data = probe.upload(&draw_rows(&case.plan, 20, 5))?;
    probe.start(&case.start()?)?;
    for (epoch, batch) in [0..9, 9..18, 18..20].into_iter().enumerate() {
        let order: Vec<u32> = batch.collect();
        probe.train_step(&Batch::resident(data, &order, epoch as u32))?;
    }
    let snapshot = probe.snapshot()?;
    expect(snapshot.params.iter().all(|theta| theta.is_finite()), "finite parameters", || "others".to_owned())?;
    let losses = probe.losses()?;
    expect(losses.non_finite.is_none(), "finite losses", || format!("{losses:?}"))?;
    Ok(snapshot)
}

/// Terms of weight 0, and the objectives that they must equal.
fn zero_weights() -> Vec<(&'static str, Objective, Objective)> {
    let ae = Objective::ae;
    let latent = |latent| Objective { latent, ..ae() };
    let jacobian = |jacobian| Objective { jacobian, ..ae() };
    let corruption = |corruption| Objective { corruption, ..ae() };
    let sampled = || Objective::vae(0.0);
    let shift = Shift { distance: 1, width: 1, channels: 1 };
    vec![
        ("sparse", ae(), latent(Latent::Sparse { weight: 0.0 })),
        ("mmd", ae(), latent(Latent::Mmd { weight: 0.0 })),
        ("capacity", sampled(), latent(Latent::Capacity { gamma: 0.0, capacity: 1.0 })),
        ("free_bits", sampled(), latent(Latent::FreeBits { beta: 0.0, floor: 1.0 })),
        ("gradient_penalty", ae(), jacobian(Jacobian::GradientPenalty { weight: 0.0 })),
        ("contractive", ae(), jacobian(Jacobian::Contractive { weight: 0.0 })),
        ("gaussian", ae(), corruption(Corruption::Gaussian { std: 0.0 })),
        ("masking", ae(), corruption(Corruption::Masking { share: 0.0 })),
        ("permutation", ae(), corruption(Corruption::Permutation { share: 0.0 })),
        ("shift", ae(), corruption(Corruption::Shift { share: 0.0, shift })),
    ]
}
