//! An interrupted run goes on to the same bits.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use common::{bits, config, sheet, state_bits, without_times};
use cvae::{CheckpointError, CodeBasis, Config, Existing, RunFolder, Stop, TrainError, Trained, Trainer};
use cvae_core::{Objective, OptimizerSpec, Schedule};
use cvae_data::{Dataset, Scaling};

/// Runs that exercise every part of the state: noise, moments, schedule, scaling, validation, early stopping.
fn configurations() -> Vec<Config> {
    let mut plain = config(Objective::default());
    plain.data.scaling = Scaling::Standardize;
    let mut variational = config(Objective::vae(0.1));
    variational.optimizer = OptimizerSpec {
        schedule: Schedule::Cosine { steps: 60, final_factor: 0.1 },
        warmup_steps: 9,
        clip_norm: Some(1.0),
        ..OptimizerSpec::adamw(1e-2, 0.01)
    };
    let mut stopping = config(Objective::ae());
    stopping.optimizer = OptimizerSpec::sgd(0.05, 0.9);
    stopping.data.scaling = Scaling::MinMax;
    stopping.data.validation_fraction = 0.3;
    stopping.patience = Some(3);
    stopping.epochs = 40;
    let aligned = Config { codes: CodeBasis::Aligned, ..config(common::moving()) };
    vec![plain, variational, stopping, aligned]
}

fn train(config: &Config, data: &Dataset, folder: &Path, existing: Existing) -> Result<Trained, TrainError> {
    Trainer::new(config.clone()).run_folder(folder, existing).fit(data)
}

/// Trains until `epochs` epochs are done, then breaks off.
fn train_until(config: &Config, data: &Dataset, folder: &Path, existing: Existing, epochs: u32) -> Trained {
    Trainer::new(config.clone())
        .run_folder(folder, existing)
        .on_progress(|progress| match progress.record {
            Some(record) if record.epoch >= epochs => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .fit(data)
        .unwrap()
}

#[test]
fn a_run_interrupted_after_any_epoch_ends_in_the_same_bits() {
    let data = sheet(100, 1);
    for config in configurations() {
        let whole = tempfile::tempdir().unwrap();
        let uninterrupted = train(&config, &data, whole.path(), Existing::Refuse).unwrap();
        let whole = RunFolder::new(whole.path());
        let epochs = uninterrupted.history.len() as u32;
        for after in 1..epochs {
            let parts = tempfile::tempdir().unwrap();
            let first = train_until(&config, &data, parts.path(), Existing::Refuse, after);
            assert_eq!((first.stop, first.history.len() as u32), (Stop::Interrupted, after));
            let second = train(&config, &data, parts.path(), Existing::Resume).unwrap();
            assert_eq!(second.resumed_epochs, after);
            assert_eq!((second.stop, second.steps), (uninterrupted.stop, uninterrupted.steps));
            assert_eq!(without_times(&second.history), without_times(&uninterrupted.history));
            let parts = RunFolder::new(parts.path());
            assert_eq!(state_bits(&parts), state_bits(&whole), "interrupted after {after}");
            let (a, b) = (parts.read_model().unwrap(), whole.read_model().unwrap());
            assert_eq!(bits(&a.params), bits(&b.params));
            assert_eq!(parts.read_densities(3).unwrap(), whole.read_densities(3).unwrap());
        }
    }
}

#[test]
fn early_stopping_restores_the_best_epoch_and_a_resumed_run_stays_stopped() {
    let data = sheet(100, 1);
    let config = configurations().remove(2);
    let folder = tempfile::tempdir().unwrap();
    let trained = train(&config, &data, folder.path(), Existing::Refuse).unwrap();
    let Stop::EarlyStopping { best_epoch } = trained.stop else { panic!("{:?}", trained.stop) };
    let losses: Vec<f64> = trained.history.iter().map(|record| record.validation_loss.unwrap()).collect();
    assert_eq!(losses.len() as u32, best_epoch + 3);
    assert!(losses.iter().all(|loss| *loss >= losses[best_epoch as usize - 1]));

    // The same run, broken off at the best epoch, has its parameters.
    let at_best = tempfile::tempdir().unwrap();
    train_until(&config, &data, at_best.path(), Existing::Refuse, best_epoch);
    let best = RunFolder::new(at_best.path()).read_state().unwrap().training.unwrap().params;
    assert_eq!(bits(&trained.model.parameters().unwrap()), bits(&best));
    let run = RunFolder::new(folder.path());
    assert_eq!(bits(&run.read_model().unwrap().params), bits(&best));
    assert_ne!(bits(&run.read_state().unwrap().training.unwrap().params), bits(&best));

    let again = train(&config, &data, folder.path(), Existing::Resume).unwrap();
    assert_eq!((again.stop, again.history.len()), (trained.stop, trained.history.len()));
    assert_eq!(bits(&again.model.parameters().unwrap()), bits(&best));

    // More patience lets the run go on.
    let patient = Config { patience: Some(4), ..config };
    let longer = train(&patient, &data, folder.path(), Existing::Resume).unwrap();
    assert!(longer.history.len() > trained.history.len());
}

#[test]
fn a_longer_run_goes_on_from_a_finished_one() {
    let data = sheet(60, 2);
    let short = config(Objective::default());
    let long = Config { epochs: 15, ..short.clone() };
    let (resumed, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(&short, &data, resumed.path(), Existing::Refuse).unwrap();
    train(&long, &data, resumed.path(), Existing::Resume).unwrap();
    train(&long, &data, whole.path(), Existing::Refuse).unwrap();
    let (resumed, whole) = (RunFolder::new(resumed.path()), RunFolder::new(whole.path()));
    assert_eq!(state_bits(&resumed), state_bits(&whole));
    assert_eq!(resumed.config().unwrap().epochs, 15);
}

/// A process killed between two renames leaves files of different epochs, or some missing, and temporary
/// files. The state alone decides.
#[test]
fn whatever_a_killed_process_leaves_is_recovered_from() {
    let data = sheet(100, 3);
    let config = Config { epochs: 4, ..config(Objective::vae(0.1)) };
    let (whole, snapshots) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = [RunFolder::CONFIG, RunFolder::STATE, RunFolder::MODEL, RunFolder::METRICS];
    // At the end of epoch e the folder still has the checkpoint of epoch e − 1.
    Trainer::new(config.clone())
        .run_folder(whole.path(), Existing::Refuse)
        .checkpoint_every(Duration::ZERO)
        .on_progress(|progress| {
            if progress.record.is_some() {
                let to = snapshots.path().join((progress.epoch - 1).to_string());
                fs::create_dir(&to).unwrap();
                files.iter().for_each(|name| {
                    fs::copy(whole.path().join(name), to.join(name)).unwrap();
                });
            }
            ControlFlow::Continue(())
        })
        .fit(&data)
        .unwrap();
    let expected = state_bits(&RunFolder::new(whole.path()));
    // Which epoch's file is there, for config, state, model and metrics; none when `None`.
    let leftovers = [
        [Some(0), None, None, None],
        [Some(0), Some(0), None, None],
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(2), Some(1), Some(1)],
        [Some(1), Some(2), Some(2), Some(1)],
        [Some(1), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for leftover in leftovers {
        let folder = tempfile::tempdir().unwrap();
        for (name, epoch) in files.iter().zip(leftover) {
            let Some(epoch) = epoch else { continue };
            fs::copy(snapshots.path().join(epoch.to_string()).join(name), folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join(".cvae-abc.tmp"), b"half a fi").unwrap();
        train(&config, &data, folder.path(), Existing::Resume).unwrap();
        let run = RunFolder::new(folder.path());
        assert_eq!(state_bits(&run), expected, "{leftover:?}");
        let training = run.read_state().unwrap().training.unwrap();
        assert_eq!(bits(&run.read_model().unwrap().params), bits(&training.params));
        let metrics = fs::read_to_string(run.file(RunFolder::METRICS)).unwrap();
        let epochs: Vec<u64> = metrics
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["epoch"].as_u64().unwrap())
            .collect();
        assert_eq!(epochs, [1, 2, 3, 4]);
        assert!(!folder.path().join(".cvae-abc.tmp").exists());
    }
    // Nothing at all but a temporary file: the run begins.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".cvae-abc.tmp"), b"half a fi").unwrap();
    train(&config, &data, folder.path(), Existing::Resume).unwrap();
    assert_eq!(state_bits(&RunFolder::new(folder.path())), expected);
}

#[test]
fn a_run_does_not_go_on_with_anything_else() {
    let data = sheet(60, 2);
    let config = Config { epochs: 2, ..config(Objective::default()) };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    train(&config, &data, path, Existing::Refuse).unwrap();
    let before = fs::read(path.join(RunFolder::STATE)).unwrap();

    let refused = train(&config, &data, path, Existing::Refuse).unwrap_err();
    assert!(matches!(refused, TrainError::Checkpoint(CheckpointError::NotEmpty { .. })), "{refused}");

    let other = train(&config, &sheet(60, 3), path, Existing::Resume).unwrap_err();
    assert!(matches!(other, TrainError::Checkpoint(CheckpointError::OtherData { .. })), "{other}");

    let changed = Config { seed: 8, ..config.clone() };
    let error = train(&changed, &data, path, Existing::Resume).unwrap_err().to_string();
    assert!(error.ends_with("`seed` differs from the configuration the run was begun with"), "{error}");
    assert!(error.starts_with(&path.join(RunFolder::CONFIG).display().to_string()), "{error}");
    assert_eq!(fs::read(path.join(RunFolder::STATE)).unwrap(), before);

    // A model saved by itself cannot be trained on.
    let saved = tempfile::tempdir().unwrap();
    let model = Trainer::new(config.clone()).fit(&data).unwrap().model;
    model.save(saved.path(), Existing::Refuse).unwrap();
    let error = train(&config, &data, saved.path(), Existing::Resume).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint(CheckpointError::NotResumable { .. })), "{error}");

    // Replacing keeps what is not the run's, and refuses a folder that is no run's.
    fs::write(path.join("notes.txt"), "mine").unwrap();
    fs::write(path.join(RunFolder::REPORT), "old").unwrap();
    train(&changed, &data, path, Existing::Replace).unwrap();
    assert_eq!(fs::read_to_string(path.join("notes.txt")).unwrap(), "mine");
    assert!(!path.join(RunFolder::REPORT).exists());
    assert_eq!(RunFolder::new(path).config().unwrap().seed, 8);
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("notes.txt"), "mine").unwrap();
    for existing in [Existing::Replace, Existing::Resume] {
        let error = train(&config, &data, foreign.path(), existing).unwrap_err();
        assert!(matches!(error, TrainError::Checkpoint(CheckpointError::NotARun { .. })), "{error}");
    }
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1);
}
