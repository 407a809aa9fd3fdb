//! Errors are typed and change nothing; values that are not finite are reported.

use std::sync::Arc;

use cvae_core::{
    Activation, Batch, BatchRows, DataId, Entry, Executable, Objective, OptimizerSpec, Plan, Rows, RunError, State,
    Term,
};

use crate::case::{Case, mlp};
use crate::check::Check;
use crate::checks::gradients::shared_case;
use crate::compare::identical;
use crate::failure::{Failure, Score, Verdict, expect};
use crate::probe::{Probe, run};
use crate::target::Target;

/// A call that must fail, and how.
struct Wrong {
    name: &'static str,
    expected: &'static str,
    call: fn(&mut dyn Executable, &Known) -> Result<(), RunError>,
    fails_so: fn(&RunError) -> bool,
}

/// What a wrong call may refer to.
struct Known {
    width: usize,
    params: usize,
    max_rows: usize,
    data: DataId,
    data_rows: usize,
}

/// Adds `error::*`, `finite::*` and `identity::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for wrong in wrong_calls() {
        let name = wrong.name;
        all.push(Check::new(format!("error::typed::{name}"), move |target| fails(target, &wrong)));
    }
    all.push(Check::new("finite::training::nan_row", nan_row));
    all.push(Check::new("finite::training::infinite_parameter", infinite_parameter));
    for activation in Activation::ALL {
        all.push(Check::new(format!("finite::inference::{activation}"), move |t| nan_stays_in_its_row(t, activation)));
    }
    all.push(Check::new("identity::names::id_device_kernels", names));
    all.push(Check::new("identity::start::zero_state", zero_state));
}

fn is_length(error: &RunError) -> bool {
    matches!(error, RunError::Length { .. })
}

fn is_rows(error: &RunError) -> bool {
    matches!(error, RunError::Rows { .. })
}

fn wrong_calls() -> Vec<Wrong> {
    let length = |name, call| Wrong { name, expected: "RunError::Length", call, fails_so: is_length };
    let rows = |name, call| Wrong { name, expected: "RunError::Rows", call, fails_so: is_rows };
    let unknown = |name, call| Wrong {
        name,
        expected: "RunError::UnknownData",
        call,
        fails_so: |error| matches!(error, RunError::UnknownData(_)),
    };
    vec![
        length("write_short", |e, k| e.write(State::Params, &vec![0.0; k.params - 1])),
        length("write_long", |e, k| e.write(State::Moment2, &vec![0.0; k.params + 1])),
        length("read_short", |e, k| e.read(State::Params, &mut vec![0.0; k.params - 1])),
        length("read_f64_long", |e, k| e.read_f64(State::Moment1, &mut vec![0.0; k.params + 1])),
        length("batch_partial_row", |e, k| e.train_step(&Batch::host(&vec![0.0; 2 * k.width - 1]))),
        length("gradients_partial_row", |e, k| e.gradients(&Batch::host(&vec![0.0; k.width + 1]))),
        length("infer_partial_row", |e, k| e.infer(Entry::Encode, &vec![0.0; k.width + 1], &mut [0.0; 5])),
        length("infer_short_output", |e, k| {
            e.infer(Entry::Reconstruct, &vec![0.0; 2 * k.width], &mut vec![0.0; 2 * k.width - 1])
        }),
        length("infer_f64_long_output", |e, k| {
            e.infer_f64(Entry::Reconstruct, &vec![0.0; k.width], &mut vec![0.0; 2 * k.width])
        }),
        length("infer_empty", |e, _| e.infer(Entry::Decode, &[], &mut [])),
        length("upload_wrong_width", |e, k| {
            e.upload(Rows::F32 { values: &vec![0.0; 2 * (k.width + 1)], width: k.width + 1 }).map(drop)
        }),
        length("upload_partial_row", |e, k| {
            e.upload(Rows::U8 { values: &vec![0; 2 * k.width + 1], width: k.width, scale: 1.0 }).map(drop)
        }),
        rows("upload_empty", |e, k| e.upload(Rows::F32 { values: &[], width: k.width }).map(drop)),
        rows("batch_empty", |e, _| e.train_step(&Batch::host(&[]))),
        rows("batch_too_long", |e, k| e.train_step(&Batch::host(&vec![0.0; (k.max_rows + 1) * k.width]))),
        rows("resident_empty", |e, k| e.gradients(&Batch::resident(k.data, &[], 0))),
        rows("epoch_of_no_rows", |e, k| e.train_epoch(k.data, &[0], 0, 0)),
        unknown("train_unknown_data", |e, _| e.train_step(&Batch::resident(DataId(9999), &[0], 0))),
        unknown("release_unknown_data", |e, _| e.release(DataId(9999))),
        unknown("release_twice", |e, k| {
            let data = e.upload(Rows::F32 { values: &vec![0.5; k.width], width: k.width })?;
            e.release(data)?;
            e.release(data)
        }),
        Wrong {
            name: "row_beyond_the_data",
            expected: "RunError::RowIndex",
            call: |e, k| e.train_step(&Batch::resident(k.data, &[0, k.data_rows as u32], 0)),
            fails_so: |error| matches!(error, RunError::RowIndex { .. }),
        },
        Wrong {
            name: "apply_before_gradients",
            expected: "RunError::NoGradients",
            call: |e, _| e.apply(),
            fails_so: |error| matches!(error, RunError::NoGradients),
        },
        Wrong {
            name: "read_before_gradients",
            expected: "RunError::NoGradients",
            call: |e, k| e.read(State::Grads, &mut vec![0.0; k.params]),
            fails_so: |error| matches!(error, RunError::NoGradients),
        },
        Wrong {
            name: "write_gradients",
            expected: "RunError::ReadOnly",
            call: |e, k| e.write(State::Grads, &vec![0.0; k.params]),
            fails_so: |error| matches!(error, RunError::ReadOnly),
        },
    ]
}

/// The call fails as it must, and state and losses are as before.
fn fails(target: &Target<'_>, wrong: &Wrong) -> Verdict {
    let case = shared_case()?;
    let mut probe = case.probe(target.backend)?;
    probe.start(&case.start()?)?;
    let data = probe.upload(&case.rows)?;
    let known = Known {
        width: case.plan.spec.width(),
        params: case.plan.params.len(),
        max_rows: case.plan.max_rows,
        data,
        data_rows: case.count(),
    };
    let before = probe.snapshot()?;
    let found = match (wrong.call)(probe.raw(), &known) {
        Err(error) if (wrong.fails_so)(&error) => None,
        Err(error) => Some(error.to_string()),
        Ok(()) => Some("success".to_owned()),
    };
    if let Some(found) = found {
        return Err(Failure::WrongError { call: wrong.name, expected: wrong.expected, found });
    }
    expect(probe.snapshot()? == before, "an unchanged state after the error", || "a changed state".to_owned())?;
    let losses = probe.losses()?;
    expect(losses.steps == 0, "no loss gathered by the failed call", || format!("{losses:?}"))?;
    // The executable still works, as one that never failed.
    let mut fresh = case.probe(target.backend)?;
    fresh.start(&case.start()?)?;
    identical("gradients after the error", &probe.gradients(&case.batch())?, &fresh.gradients(&case.batch())?)?;
    Ok(Score::EXACT)
}

/// A NaN in a row makes the step's loss non-finite, which the losses report with its step.
fn nan_row(target: &Target<'_>) -> Verdict {
    let case = shared_case()?;
    let mut probe = case.probe(target.backend)?;
    probe.train_step(&case.batch())?;
    probe.train_step(&case.batch())?;
    let mut rows = case.rows.clone();
    rows[case.plan.spec.width() + 2] = f32::NAN;
    probe.train_step(&Batch { rows: BatchRows::Host { values: &rows, first_row: 0 }, epoch: 0 })?;
    probe.train_step(&case.batch())?;
    let losses = probe.losses()?;
    let reported = losses.non_finite.is_some_and(|found| found.step == 3 && found.term == Term::Reconstruction);
    expect(reported, "the reconstruction term of step 3 reported", || format!("{:?}", losses.non_finite))?;
    Ok(Score::EXACT)
}

/// An infinite parameter of the regularised decoder shows in a term.
fn infinite_parameter(target: &Target<'_>) -> Verdict {
    let case = shared_case()?;
    let mut params = case.params.clone();
    if let Some(last) = params.last_mut() {
        *last = f32::INFINITY;
    }
    let mut probe = Probe::with_params(target.backend, &case.plan, &params)?;
    probe.train_step(&case.batch())?;
    let losses = probe.losses()?;
    expect(losses.non_finite.is_some_and(|found| found.step == 1), "a term of step 1 reported", || {
        format!("{:?}", losses.non_finite)
    })?;
    Ok(Score::EXACT)
}

/// A NaN in one row of an inference call makes that row's result NaN, and no other's.
fn nan_stays_in_its_row(target: &Target<'_>, activation: Activation) -> Verdict {
    let spec = mlp([9, 10, 4, 10], 1, activation, activation)?;
    let case = Case::new("nan", spec, Objective::ae(), OptimizerSpec::default(), 13, 71)?;
    let mut probe = case.probe(target.backend)?;
    let clean = probe.infer(Entry::Reconstruct, &case.rows)?;
    let mut rows = case.rows.clone();
    rows[6 * 9 + 4] = f32::NAN;
    let found = probe.infer(Entry::Reconstruct, &rows)?;
    expect(found[6 * 9..7 * 9].iter().all(|value| value.is_nan()), "NaN in the row's result", || {
        format!("{:?}", &found[6 * 9..7 * 9])
    })?;
    identical("rows before", &clean[..6 * 9], &found[..6 * 9])?;
    identical("rows after", &clean[7 * 9..], &found[7 * 9..])?;
    Ok(Score::EXACT)
}

/// A backend says what it is and what each op runs on; a plan of any size is answered.
fn names(target: &Target<'_>) -> Verdict {
    let case = shared_case()?;
    let mut probe = case.probe(target.backend)?;
    let device = target.backend.device();
    expect(!device.name.is_empty(), "a device name", || format!("{device:?}"))?;
    let kernels = probe.raw().kernels();
    let named = !kernels.is_empty() && kernels.iter().all(|choice| !choice.op.is_empty() && !choice.kernel.is_empty());
    expect(named, "a kernel for every op", || format!("{kernels:?}"))?;
    let same = probe.raw().plan().params == case.plan.params;
    expect(same, "the plan that was compiled", || "another plan".to_owned())?;
    Ok(Score::EXACT)
}

/// A fresh executable starts from zeros, at step 0, without losses.
fn zero_state(target: &Target<'_>) -> Verdict {
    let case = shared_case()?;
    let plan: &Arc<Plan> = &case.plan;
    let mut probe = Probe::new(target.backend, plan)?;
    let state = probe.snapshot()?;
    let zero =
        [&state.params, &state.moment1, &state.moment2].iter().all(|part| part.iter().all(|value| *value == 0.0));
    expect(zero && state.step == 0, "zeros at step 0", || format!("step {}", state.step))?;
    let losses = probe.losses()?;
    expect(losses == cvae_core::Losses::default(), "no losses", || format!("{losses:?}"))?;
    run("synchronize", probe.raw().synchronize())?;
    Ok(Score::EXACT)
}
