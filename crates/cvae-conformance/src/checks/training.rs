//! Training as a whole: epochs, determinism, resumption, noise.

use cvae_core::{Activation, Batch, BatchRows, Latent, Objective, OptimizerSpec, State};
use cvae_reference::ReferenceBackend;

use crate::case::{Case, draw_rows, mlp};
use crate::check::{Check, Requirement};
use crate::checks::gradients::shared_case;
use crate::checks::steps::{compare, training_case};
use crate::compare::identical;
use crate::failure::{Failure, Score, Verdict, expect};
use crate::probe::{Probe, Snapshot, Start};
use crate::target::Target;

/// Thread counts that must agree bit for bit.
const THREADS: [usize; 5] = [1, 2, 3, 4, 7];
/// Rows of the data set of an epoch.
const DATA_ROWS: usize = 83;

/// Adds `epoch::*`, `fused::*`, `bitwise::*`, `resume::*` and `noise::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for rows in [1, 8, 20, 83] {
        all.push(Check::new(format!("epoch::is_its_steps::rows{rows}"), move |target| epoch(target, rows)));
    }
    for rows in [1, 7, 65] {
        all.push(Check::new(format!("fused::is_gradients_then_apply::rows{rows}"), move |target| fused(target, rows)));
    }
    all.push(Check::new("bitwise::two_runs::train", two_runs));
    for threads in THREADS {
        let check =
            Check::new(format!("bitwise::threads::train_{threads}"), move |target| many_threads(target, threads));
        all.push(check.requiring(Requirement::Threads));
    }
    all.push(Check::new("bitwise::zero_weight::collapsed", zero_weight));
    all.push(Check::new("resume::state::mid_training", resume));
    all.push(Check::new("noise::position::epoch_and_row", noise_position));
    all.push(Check::new("noise::rows::differ", noise_rows));
}

/// Fails unless both states hold the same bits.
pub(crate) fn states_identical(what: &str, left: &Snapshot, right: &Snapshot) -> Result<(), Failure> {
    identical(&format!("{what}: parameters"), &left.params, &right.params)?;
    identical(&format!("{what}: first moments"), &left.moment1, &right.moment1)?;
    identical(&format!("{what}: second moments"), &left.moment2, &right.moment2)?;
    expect(left.step == right.step, format!("{what}: {} steps", left.step), || right.step.to_string())
}

/// `train_epoch` equals its `train_step`s bit for bit, the short last batch included; so do the losses.
fn epoch(target: &Target<'_>, rows: usize) -> Verdict {
    let case = training_case(rows)?;
    let values = draw_rows(&case.plan, DATA_ROWS, 5);
    let mut order = vec![0; DATA_ROWS];
    cvae_core::epoch_order(9, 1, &mut order);
    let (mut whole, mut apart) = (case.probe(target.backend)?, case.probe(target.backend)?);
    let (data, other) = (whole.upload(&values)?, apart.upload(&values)?);
    whole.train_epoch(data, &order, rows, 1)?;
    for batch in order.chunks(rows) {
        apart.train_step(&Batch::resident(other, batch, 1))?;
    }
    states_identical("an epoch and its steps", &whole.snapshot()?, &apart.snapshot()?)?;
    let (whole, apart) = (whole.losses()?, apart.losses()?);
    expect(
        whole.steps == DATA_ROWS.div_ceil(rows) as u64 && whole.rows == DATA_ROWS as u64,
        format!("{} steps of {DATA_ROWS} rows", DATA_ROWS.div_ceil(rows)),
        || format!("{whole:?}"),
    )?;
    identical("the losses of an epoch and its steps", &whole.sums, &apart.sums)?;
    // Means are weighted by rows: against the reference, whose last batch is as short.
    let mut reference = case.probe(&ReferenceBackend)?;
    let third = reference.upload(&values)?;
    reference.train_epoch(third, &order, rows, 1)?;
    let expected = reference.losses()?;
    let found = (whole.total() - expected.total()).abs() / expected.total();
    expect(found < 1e-4, "the epoch's mean loss of the reference", || format!("a relative difference of {found:e}"))?;
    Ok(Score::EXACT)
}

/// `train_step` equals `gradients` then `apply`, up to rounding.
fn fused(target: &Target<'_>, rows: usize) -> Verdict {
    let case = training_case(rows)?;
    let start = case.start()?;
    let (mut fused, mut apart) = (case.probe(target.backend)?, case.probe(target.backend)?);
    fused.start(&start)?;
    apart.start(&start)?;
    fused.train_step(&case.batch())?;
    apart.gradients(&case.batch())?;
    apart.apply()?;
    compare(target, &case, &fused.snapshot()?, &apart.snapshot()?)
}

/// Five steps over different batches from one start.
fn train(case: &Case, mut probe: Probe) -> Result<Snapshot, Failure> {
    let values = draw_rows(&case.plan, DATA_ROWS, 5);
    let data = probe.upload(&values)?;
    probe.start(&case.start()?)?;
    for (index, batch) in (0..DATA_ROWS as u32).collect::<Vec<_>>().chunks(65).cycle().take(5).enumerate() {
        probe.train_step(&Batch::resident(data, batch, index as u32))?;
    }
    probe.snapshot()
}

/// Two runs end in the same bits.
fn two_runs(target: &Target<'_>) -> Verdict {
    let case = training_case(65)?;
    let first = train(&case, case.probe(target.backend)?)?;
    let second = train(&case, case.probe(target.backend)?)?;
    states_identical("two runs", &first, &second)?;
    Ok(Score::EXACT)
}

/// Any number of threads ends in the same bits as the backend as given.
fn many_threads(target: &Target<'_>, threads: usize) -> Verdict {
    let make = target.threads.ok_or_else(|| Failure::skipped("no choice of threads"))?;
    let case = training_case(65)?;
    let expected = train(&case, case.probe(target.backend)?)?;
    let backend = make(threads)?;
    let found = train(&case, case.probe(backend.as_ref())?)?;
    states_identical(&format!("{threads} threads"), &expected, &found)?;
    Ok(Score::EXACT)
}

/// A term of weight 0 equals its absence bit for bit.
fn zero_weight(target: &Target<'_>) -> Verdict {
    let zero = Objective { latent: Latent::Collapsed { beta: 0.0 }, ..Objective::ae() };
    equal_runs(target, Objective::ae(), zero)
}

/// Two objectives give the same gradients, step and loss bit for bit.
pub(crate) fn equal_runs(target: &Target<'_>, left: Objective, right: Objective) -> Verdict {
    let run = |objective: Objective| -> Result<(Vec<f64>, Snapshot, f64), Failure> {
        let spec = mlp([19, 8, 3, 8], 1, Activation::Gelu, Activation::Identity)?;
        let case = Case::new("zero", spec, objective, OptimizerSpec::default(), 10, 3)?;
        let mut probe = case.probe(target.backend)?;
        let gradients = probe.gradients(&case.batch())?;
        probe.train_step(&case.batch())?;
        Ok((gradients, probe.snapshot()?, probe.losses()?.total()))
    };
    let (left, right) = (run(left)?, run(right)?);
    identical("gradients", &left.0, &right.0)?;
    states_identical("a step", &left.1, &right.1)?;
    identical("the loss", &[left.2], &[right.2])?;
    Ok(Score::EXACT)
}

/// State written into a second executable goes on as the first would have.
fn resume(target: &Target<'_>) -> Verdict {
    let case = training_case(20)?;
    let mut whole = case.probe(target.backend)?;
    for _ in 0..3 {
        whole.train_step(&case.batch())?;
    }
    let saved = Start {
        params: whole.read_f32(State::Params)?,
        moment1: whole.read_f32(State::Moment1)?,
        moment2: whole.read_f32(State::Moment2)?,
        step: whole.raw().step(),
    };
    let mut resumed = Probe::new(target.backend, &case.plan)?;
    resumed.start(&saved)?;
    // A backend in double precision goes on from what a checkpoint holds.
    whole.start(&saved)?;
    for _ in 0..3 {
        whole.train_step(&case.batch())?;
        resumed.train_step(&case.batch())?;
    }
    states_identical("a resumed run", &whole.snapshot()?, &resumed.snapshot()?)?;
    Ok(Score::EXACT)
}

/// Noise is a function of epoch and row: resident rows draw that of their index, host rows that of their
/// position, and another epoch draws other noise.
fn noise_position(target: &Target<'_>) -> Verdict {
    let case = shared_case()?;
    let (width, count) = (case.plan.spec.width(), case.count() as u32);
    let mut probe = case.probe(target.backend)?;
    let data = probe.upload(&[vec![0.5; 3 * width], case.rows.clone()].concat())?;
    let order: Vec<u32> = (3..3 + count).collect();
    let host = Batch { rows: BatchRows::Host { values: &case.rows, first_row: 3 }, epoch: 4 };
    let from_host = probe.gradients(&host)?;
    let resident = probe.gradients(&Batch::resident(data, &order, 4))?;
    identical("host rows and the same rows resident", &from_host, &resident)?;
    let other = probe.gradients(&Batch::resident(data, &order, 5))?;
    expect(other != resident, "other noise in another epoch", || "the same gradients".to_owned())?;

    // Against the reference, with rows out of order and one twice.
    let order = [9, 3, 3, 12, 5];
    let mut reference = case.probe(&ReferenceBackend)?;
    let there = reference.upload(&[vec![0.5; 3 * width], case.rows.clone()].concat())?;
    let expected = reference.gradients(&Batch::resident(there, &order, 6))?;
    let found = probe.gradients(&Batch::resident(data, &order, 6))?;
    case.measure(target).params("the gradient of", &case.plan.params, &found, &expected)
}

/// Equal rows of one batch draw different noise.
fn noise_rows(target: &Target<'_>) -> Verdict {
    let case = shared_case()?;
    let width = case.plan.spec.width();
    let mut probe = case.probe(target.backend)?;
    let row = &case.rows[..width];
    let at = |first_row: u32| Batch { rows: BatchRows::Host { values: row, first_row }, epoch: 1 };
    let (first, second) = (probe.gradients(&at(0))?, probe.gradients(&at(1))?);
    expect(first != second, "rows with noise of their own", || "the same gradients".to_owned())?;
    let twice = [row, row].concat();
    let both = Batch { rows: BatchRows::Host { values: &twice, first_row: 0 }, epoch: 1 };
    let found = probe.gradients(&both)?;
    let mean: Vec<f64> = first.iter().zip(&second).map(|(a, b)| 0.5 * (a + b)).collect();
    case.measure(target).params("the mean over two rows of", &case.plan.params, &found, &mean)
}
