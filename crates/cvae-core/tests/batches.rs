//! The length checks that every backend relies on.

use cvae_core::{
    Activation, Batch, DataId, Entry, Losses, ModelSpec, NonFinite, Objective, OptimizerSpec, Plan, Rows, RunError,
    Term,
};

fn message<T: std::fmt::Debug>(result: Result<T, RunError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn rows() {
    let floats = |values, width| Rows::F32 { values, width };
    let bytes = |values, width| Rows::U8 { values, width, scale: 0.5 };
    assert_eq!(floats(&[0.0; 6], 3).check(3).unwrap(), 2);
    assert_eq!(bytes(&[0; 6], 2).check(2).unwrap(), 3);
    assert_eq!(message(floats(&[0.0; 6], 2).check(3)), "a data row has 2 elements, expected 3");
    assert_eq!(message(floats(&[0.0; 7], 3).check(3)), "the data has 7 elements, expected 6");
    assert!(matches!(bytes(&[], 3).check(3), Err(RunError::Rows { rows: 0, .. })));
    assert!(floats(&[1.0], 0).check(0).is_err(), "a width of 0 is no width");
}

#[test]
fn batches() {
    assert_eq!(Batch::host(&[0.0; 6]).check(3, 2).unwrap(), 2);
    assert_eq!(Batch::resident(DataId(0), &[5, 5, 1], 0).check(3, 3).unwrap(), 3);
    assert_eq!(message(Batch::host(&[0.0; 7]).check(3, 4)), "the batch has 7 elements, expected 9");
    assert_eq!(message(Batch::host(&[]).check(3, 4)), "a batch of 0 rows; this plan takes 1 to 4");
    assert_eq!(message(Batch::host(&[0.0; 6]).check(3, 1)), "a batch of 2 rows; this plan takes 1 to 1");
    assert!(Batch::resident(DataId(0), &[], 0).check(3, 3).is_err());
}

#[test]
fn entries() {
    let spec = ModelSpec::mlp(&[4, 2], Activation::Relu, Activation::Identity).unwrap();
    let plan = Plan::new(spec, Objective::ae(), OptimizerSpec::default(), 0, 1).unwrap();
    for (entry, from, to) in [(Entry::Encode, 4, 2), (Entry::Decode, 2, 4), (Entry::Reconstruct, 4, 4)] {
        assert_eq!(entry.widths(&plan), (from, to));
        assert_eq!(entry.check(&plan, &vec![0.0; 3 * from], &vec![0.0f32; 3 * to]).unwrap(), 3);
        assert_eq!(entry.check(&plan, &vec![0.0; 3 * from], &vec![0.0f64; 3 * to]).unwrap(), 3);
        assert!(entry.check(&plan, &vec![0.0; 3 * from + 1], &vec![0.0f32; 3 * to]).is_err());
        assert!(entry.check(&plan, &vec![0.0; 3 * from], &vec![0.0f32; 3 * to - 1]).is_err());
        assert!(entry.check::<f32>(&plan, &[], &[]).is_err());
    }
}

#[test]
fn losses() {
    let mut losses = Losses::default();
    assert_eq!((losses.total(), losses.last_total()), (0.0, 0.0));
    losses.push(1, 3, [1.0, 2.0, 4.0, 0.0]);
    losses.push(2, 1, [5.0, 6.0, 4.0, 8.0]);
    assert_eq!((losses.steps, losses.rows), (2, 4));
    assert_eq!(Term::ALL.map(|term| losses.mean(term)), [2.0, 3.0, 4.0, 2.0]);
    assert_eq!((losses.total(), losses.last_total()), (11.0, 23.0));
    assert!(losses.check().is_ok());
    losses.push(3, 1, [1.0, f64::INFINITY, f64::NAN, 0.0]);
    losses.push(4, 1, [f64::NAN, 0.0, 0.0, 0.0]);
    assert_eq!(losses.non_finite, Some(NonFinite { step: 3, term: Term::Latent }));
    assert_eq!(message(losses.check()), "the latent term became non-finite at step 3");
}
