//! Training: what it computes, what stops it, what it refuses.

mod common;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use common::{bits, config, fit, on, sheet, without_times};
use cvae::density::DensitySpec;
use cvae::{
    Autoencoder, CodeBasis, Config, Existing, ModelError, RunFolder, Stop, TrainError, Trainer, evaluate, registry,
};
use cvae_core::{Activation, Entry, Latent, ModelSpec, Objective, OptimizerSpec, Reconstruction, State, Term};
use cvae_data::{Dataset, LoadOptions, Scaling, Values};

#[test]
fn training_is_the_loop_that_the_configuration_describes() {
    // Large enough that an epoch is trained in several chunks.
    let data = {
        let narrow = sheet(150, 1);
        let wide: Vec<f32> = narrow.to_f32().chunks(8).flat_map(|row| row.repeat(32)).collect();
        Dataset::new("wide", Values::F32(wide), 256).unwrap()
    };
    let model = ModelSpec::mlp(&[256, 1024, 1024, 8], Activation::Relu, Activation::Identity).unwrap();
    let config = Config { model, epochs: 2, batch_size: 50, ..config(Objective::vae(0.1)) };
    let config = Config { backend: on("cpu", 2), ..config };
    let trained = fit(&config, &data);

    let backend = registry::select(&config.backend).unwrap().backend;
    let plan = Arc::new(config.plan().unwrap());
    let mut executable = backend.compile(Arc::clone(&plan)).unwrap();
    executable.write(State::Params, &plan.params.initial(config.initializer, config.seed)).unwrap();
    let values = data.to_f32();
    let id = executable.upload(cvae_core::Rows::F32 { values: &values, width: 256 }).unwrap();
    let mut order = vec![0; data.rows()];
    for epoch in 0..2 {
        cvae_core::epoch_order(config.seed, epoch, &mut order);
        executable.train_epoch(id, &order, 50, epoch).unwrap();
        let (losses, record) = (executable.losses().unwrap(), trained.history[epoch as usize]);
        for term in Term::ALL {
            let (expected, found) = (losses.mean(term), record.term(term));
            assert!((expected - found).abs() <= 1e-12 * expected.abs(), "{term}: {expected} {found}");
        }
    }
    let mut params = vec![0.0; plan.params.len()];
    executable.read(State::Params, &mut params).unwrap();
    assert_eq!(bits(&trained.model.parameters().unwrap()), bits(&params));
    assert_eq!((trained.steps, trained.stop), (6, Stop::Epochs));
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let data = sheet(100, 4);
    let mut plain = config(Objective::default());
    plain.data.validation_fraction = 0.2;
    let aligned = Config { codes: CodeBasis::Aligned, ..config(common::moving()) };
    for (name, config) in [("cpu-scalar", &plain), ("cpu", &plain), ("cpu-scalar", &aligned), ("cpu", &aligned)] {
        let runs = [1, 2, 4].map(|threads| fit(&Config { backend: on(name, threads), ..config.clone() }, &data));
        for other in &runs[1..] {
            assert_eq!(without_times(&other.history), without_times(&runs[0].history));
            assert_eq!(bits(&other.model.parameters().unwrap()), bits(&runs[0].model.parameters().unwrap()));
        }
    }
}

#[test]
fn the_loss_falls_and_the_records_add_up() {
    let data = sheet(200, 5);
    for objective in [Objective::ae(), Objective::default(), Objective::vae(0.05)] {
        let mut config = Config { epochs: 30, ..config(objective.clone()) };
        config.optimizer = OptimizerSpec::adam(1e-2);
        config.data.scaling = Scaling::Standardize;
        config.data.validation_fraction = 0.25;
        let trained = fit(&config, &data);
        let (first, last) = (trained.history[0], trained.history[29]);
        assert!(last.loss < 0.3 * first.loss, "{objective:?}: {} to {}", first.loss, last.loss);
        assert!(last.validation_loss.unwrap() < 0.4 * first.validation_loss.unwrap());
        for (index, record) in trained.history.iter().enumerate() {
            assert_eq!(
                (record.epoch as usize, record.step as usize),
                (index + 1, (index + 1) * 150_usize.div_ceil(16))
            );
            let sum: f64 = Term::ALL.into_iter().map(|term| record.term(term)).sum();
            assert!((sum - record.loss).abs() < 1e-9 * record.loss);
            assert_eq!(record.latent > 0.0, objective.latent != Latent::None);
            assert_eq!(record.decoder_l2 > 0.0, objective.decoder_l2 > 0.0);
        }
        // The recorded latent scale is that of the codes (an average over the epoch where the loss tells it).
        let codes = trained.model.encode_dataset(&data).unwrap();
        let rms = (codes.iter().map(|z| f64::from(*z).powi(2)).sum::<f64>() / codes.len() as f64).sqrt();
        assert!((last.latent_rms / rms - 1.0).abs() < 0.15, "{} {rms}", last.latent_rms);
    }
}

#[test]
fn the_model_works_in_the_units_of_the_data() {
    let data = sheet(120, 6);
    let mut config = Config { epochs: 60, ..config(Objective::default()) };
    config.optimizer = OptimizerSpec::adam(1e-2);
    config.data.scaling = Scaling::Standardize;
    let model = fit(&config, &data).model;
    let rows = data.to_f32();
    let reconstructed = model.reconstruct(&rows).unwrap();
    let round_trip = model.decode(&model.encode(&rows).unwrap()).unwrap();
    assert_eq!(bits(&reconstructed), bits(&round_trip));
    let scores = model.score(&rows).unwrap();
    for (row, score) in scores.iter().enumerate() {
        let scale = model.scaling().scale();
        let squares = (0..8).map(|j| f64::from((rows[row * 8 + j] - reconstructed[row * 8 + j]) * scale[j]).powi(2));
        let expected = squares.sum::<f64>() / 8.0;
        assert!((f64::from(*score) - expected).abs() <= 1e-3 * expected + 1e-6, "{score} {expected}");
    }
    let mean = scores.iter().sum::<f32>() / scores.len() as f32;
    assert!(mean < 0.2, "standardised features have variance 1, the error is {mean}");
    let strange = model.score(&[-20.0, 30.0, -20.0, 30.0, -20.0, 30.0, -20.0, 30.0]).unwrap()[0];
    assert!(strange > 20.0 * mean, "{strange}");
    assert_eq!(model.score_samples(&rows[..8]).unwrap()[0], -scores[0]);
    // Any number of rows, each independent of the others.
    for count in [1, 7, 33] {
        assert_eq!(bits(&model.reconstruct(&rows[..count * 8]).unwrap()), bits(&reconstructed[..count * 8]));
    }
}

#[test]
fn a_saved_model_is_the_same_model() {
    let data = sheet(90, 7);
    let config = config(Objective::default());
    let folder = tempfile::tempdir().unwrap();
    let trained = Trainer::new(config.clone()).run_folder(folder.path(), Existing::Refuse).fit(&data).unwrap();
    let copy = folder.path().join("copy");
    trained.model.save(&copy, Existing::Refuse).unwrap();
    let backend = registry::select(&config.backend).unwrap().backend;
    let rows = data.to_f32();
    for path in [folder.path(), &copy] {
        let loaded = Autoencoder::load(path, backend.as_ref()).unwrap();
        assert_eq!(loaded.config(), &config);
        assert_eq!(bits(&loaded.encode(&rows).unwrap()), bits(&trained.model.encode(&rows).unwrap()));
        for spec in [DensitySpec::Prior, DensitySpec::Gaussian] {
            let expected = bits(&trained.model.sample(5, 3, spec).unwrap());
            assert_eq!(bits(&loaded.sample(5, 3, spec).unwrap()), expected);
        }
    }
    assert!(matches!(trained.model.save(&copy, Existing::Refuse), Err(ModelError::Checkpoint(_))));
}

#[test]
fn samples_follow_the_density_asked_for() {
    let data = sheet(300, 8);
    let mut config = config(Objective::ae());
    config.data.scaling = Scaling::Standardize;
    config.epochs = 20;
    let mut model = fit(&config, &data).model;
    assert_eq!(model.sample(0, 1, DensitySpec::Prior).unwrap_err().to_string(), "there are no rows");
    let gmm: DensitySpec = "gmm:2".parse().unwrap();
    assert!(matches!(model.sample(1, 1, gmm), Err(ModelError::NoDensity { .. })));
    assert!(matches!(model.sample(usize::MAX / 2, 1, DensitySpec::Prior), Err(ModelError::TooLarge { .. })));
    model.fit_density(gmm, &model.encode_dataset(&data).unwrap()).unwrap();
    assert_eq!(model.sample(4, 1, gmm).unwrap().len(), 4 * 8);
    // The Gaussian has the codes' mean and variance.
    let samples = model.densities()[0].sample(4000, 1, 1.0).unwrap();
    let codes = model.encode_dataset(&data).unwrap();
    let moments = |codes: &[f32], j: usize| {
        let column: Vec<f64> = codes.iter().skip(j).step_by(3).map(|z| f64::from(*z)).collect();
        let mean = column.iter().sum::<f64>() / column.len() as f64;
        (mean, column.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / column.len() as f64)
    };
    for j in 0..3 {
        let ((mean, variance), (expected_mean, expected)) = (moments(&samples, j), moments(&codes, j));
        assert!((mean - expected_mean).abs() < 0.1 * expected.sqrt(), "{mean} {expected_mean}");
        assert!((variance / expected - 1.0).abs() < 0.15, "{variance} {expected}");
    }
}

#[test]
fn aligned_codes_reconstruct_the_same_and_move_more_evenly() {
    let data = sheet(300, 6);
    let folder = tempfile::tempdir().unwrap();
    let trained = fit(&config(common::moving()), &data).model;
    let config = Config { codes: CodeBasis::Aligned, ..config(common::moving()) };
    let aligned = Trainer::new(config).run_folder(folder.path(), Existing::Refuse).fit(&data).unwrap().model;
    let rows = data.to_f32();
    let (a, b) = (trained.reconstruct(&rows).unwrap(), aligned.reconstruct(&rows).unwrap());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + a.abs())));

    // Rows of 2×4 pixels, moved down, up, right and left.
    let from = |source: fn(usize) -> Option<usize>| -> Vec<f32> {
        rows.chunks(8).flat_map(|row| (0..8).map(move |at| source(at).map_or(0.0, |at| row[at]))).collect()
    };
    let moves = [
        from(|at| at.checked_sub(4)),
        from(|at| Some(at + 4).filter(|at| *at < 8)),
        from(|at| Some(at).filter(|at| at % 4 > 0).map(|at| at - 1)),
        from(|at| Some(at + 1).filter(|at| at % 4 > 0)),
    ];
    // Mean and mean square of the codes, and how unequal the directions are that moves change them along: the sum of
    // the squared eigenvalues of the moves' scatter over the square of their sum.
    let measure = |model: &Autoencoder| {
        let codes = model.encode(&rows).unwrap();
        let mean = |at: usize| codes[at..].iter().step_by(3).map(|v| f64::from(*v)).sum::<f64>() / 300.0;
        let means = [mean(0), mean(1), mean(2)];
        let square = codes.iter().enumerate().map(|(at, v)| (f64::from(*v) - means[at % 3]).powi(2)).sum::<f64>();
        let mut scatter = [[0.0; 3]; 3];
        for moved in &moves {
            for (to, from) in model.encode(moved).unwrap().chunks(3).zip(codes.chunks(3)) {
                let step = [0, 1, 2].map(|at| f64::from(to[at] - from[at]));
                (0..9).for_each(|at| scatter[at / 3][at % 3] += step[at / 3] * step[at % 3]);
            }
        }
        let trace = (0..3).map(|at| scatter[at][at]).sum::<f64>();
        let squares = scatter.as_flattened().iter().map(|v| v * v).sum::<f64>();
        (means, square / codes.len() as f64, squares / (trace * trace))
    };
    let ((_, free, before), (means, unit, after)) = (measure(&trained), measure(&aligned));
    assert!(means.iter().all(|mean| mean.abs() < 1e-4) && (unit - 1.0).abs() < 1e-4, "{means:?} {unit}");
    assert!((free - 1.0).abs() > 0.1, "training ends with other coordinates: {free}");
    assert!(before > 1.1 / 3.0 && after - 1.0 / 3.0 < 0.6 * (before - 1.0 / 3.0), "{before} {after}");

    // The folder has the model in the new coordinates, the state the parameters of the old ones.
    let folder = RunFolder::new(folder.path());
    assert_eq!(bits(&folder.read_model().unwrap().params), bits(&aligned.parameters().unwrap()));
    let state = folder.read_state().unwrap().training.unwrap();
    assert_eq!(bits(&state.params), bits(&trained.parameters().unwrap()));
    // The density is one of the new codes.
    assert_eq!(folder.read_densities(3).unwrap(), aligned.densities());
    let codes = aligned.encode(&rows).unwrap();
    let fitted = cvae::density::Density::fit(
        DensitySpec::Gaussian,
        cvae::Matrix::new(&codes, 3).unwrap(),
        None,
        &Default::default(),
    );
    assert_eq!(aligned.densities(), [fitted.unwrap().density]);
}

#[test]
fn a_diverging_loss_stops_with_step_and_term_and_keeps_the_last_checkpoint() {
    let data = sheet(100, 9);
    let mut config = config(Objective::ae());
    config.optimizer = OptimizerSpec::sgd(1e8, 0.0);
    let folder = tempfile::tempdir().unwrap();
    let error = Trainer::new(config.clone()).run_folder(folder.path(), Existing::Refuse).fit(&data).unwrap_err();
    let TrainError::Diverged { step, epoch, term } = error else { panic!("{error}") };
    assert_eq!((epoch, term), (1, Term::Reconstruction));
    assert!((2..=7).contains(&step), "{step}");
    assert!(error.to_string().contains(&format!("diverged at step {step} (epoch 1): the reconstruction term")));
    let initial = config.plan().unwrap().params.initial(config.initializer, config.seed);
    let run = RunFolder::new(folder.path());
    assert_eq!(bits(&run.read_model().unwrap().params), bits(&initial));
    assert_eq!(run.read_state().unwrap().training.unwrap().step, 0);

    // The loss of the only step is finite, the parameters after it are not.
    config.optimizer = OptimizerSpec::sgd(1e300, 0.0);
    config.batch_size = 100;
    config.epochs = 1;
    for objective in [Objective::ae(), Objective::default()] {
        let error = fit_error(&Config { objective, ..config.clone() }, &data);
        assert!(matches!(error, TrainError::DivergedParameter { step: 1, epoch: 1, .. }), "{error}");
        assert!(error.to_string().contains("parameter `encoder.0.weight` is not finite"), "{error}");
    }
}

fn fit_error(config: &Config, data: &Dataset) -> TrainError {
    Trainer::new(config.clone()).fit(data).unwrap_err()
}

#[test]
fn bad_data_is_refused_before_the_folder_is_touched() {
    let rows = |values: Vec<f32>| Dataset::new("rows", Values::F32(values), 8).unwrap();
    let mut spoilt = vec![0.5; 80];
    spoilt[19] = f32::NAN;
    let mut split = config(Objective::ae());
    split.data.validation_fraction = 0.01;
    let mut bce = config(Objective { reconstruction: Reconstruction::Bce, ..Objective::ae() });
    bce.model = ModelSpec::mlp(&[8, 3], Activation::Relu, Activation::Sigmoid).unwrap();
    let mut outside = vec![0.5; 80];
    outside[41] = 1.5;
    let narrow = Dataset::new("narrow", Values::F32(vec![0.5; 70]), 7).unwrap();
    let bytes = Dataset::new("bytes", Values::U8 { values: vec![16; 80], scale: 1.0 / 8.0 }, 8).unwrap();
    let table = [
        (config(Objective::ae()), rows(spoilt), "rows: the value at row 2, column 3 (counted from 0) is not finite"),
        (config(Objective::ae()), narrow, "narrow: rows of width 7 where 8 are needed"),
        (split, rows(vec![0.5; 80]), "rows"),
        (bce.clone(), rows(outside), "row 5, column 1 (counted from 0) is 1.5"),
        (bce, bytes, "row 0, column 0 (counted from 0) is 2"),
    ];
    for (config, data, expected) in table {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let error = Trainer::new(config).run_folder(&path, Existing::Refuse).fit(&data).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n') && !path.exists());
    }
}

#[test]
fn bad_rows_are_refused_by_a_model() {
    let model = fit(&Config { epochs: 1, ..config(Objective::ae()) }, &sheet(40, 1)).model;
    assert_eq!(model.encode(&[]).unwrap_err().to_string(), "there are no rows");
    let partial = model.encode(&[0.0; 9]).unwrap_err().to_string();
    assert_eq!(partial, "9 values are not a whole number of rows of width 8");
    let mut rows = [0.0; 16];
    rows[13] = f32::INFINITY;
    for result in [model.encode(&rows), model.reconstruct(&rows), model.score(&rows)] {
        assert_eq!(result.unwrap_err().to_string(), "the value at row 1, column 5 (counted from 0) is not finite");
    }
    assert!(matches!(model.decode(&[0.0; 4]), Err(ModelError::Rows { values: 4, width: 3 })));
}

#[test]
fn callbacks_see_progress_and_can_stop_training() {
    let data = sheet(100, 2);
    let mut seen = vec![];
    let trained = Trainer::new(config(Objective::ae()))
        .on_progress(|progress| {
            assert_eq!((progress.epochs, progress.steps), (10, 70));
            if let Some(record) = progress.record {
                assert_eq!((record.epoch, record.step), (progress.epoch, progress.step));
                seen.push(record.epoch);
            }
            if progress.epoch == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .fit(&data)
        .unwrap();
    assert_eq!((trained.stop, trained.steps), (Stop::Interrupted, 28));
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn the_degenerate_objective_warns_once() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for (objective, expected) in
        [(Objective::collapsed(0.1, 0.0), 1), (Objective::collapsed(0.1, 1e-4), 0), (Objective::ae(), 0)]
    {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || fit(&config(objective), &sheet(40, 1)));
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("degenerate").count(), expected, "{text}");
    }
}

#[test]
fn digits_are_reconstructed_far_better_than_by_principal_components() {
    let config = Config { epochs: 40, ..Config::digits() };
    let rows = config.load_rows(&LoadOptions::default()).unwrap();
    let test = rows.test.unwrap();
    assert_eq!((rows.train.rows(), test.rows()), (1438, 359));
    let trained = fit(&config, &rows.train);
    let figures = evaluate(&trained.model, &rows.train, &test).unwrap();
    assert!(figures.mse < 0.75 * figures.pca_mse, "{figures:?}");
    assert!(figures.knn5.unwrap() > 0.9 && figures.linear_probe.unwrap() > 0.8, "{figures:?}");
    assert!(figures.r2.unwrap() > 0.6 && figures.effective_rank > 3.0, "{figures:?}");
    assert_eq!((figures.rows, figures.peak, figures.ssim), (359, 1.0, None));
    let psnr = -10.0 * figures.mse.log10();
    assert!((figures.psnr.unwrap() - psnr).abs() < 1e-9);
    // The mean squared error is that of the public path.
    let values = test.to_f32();
    let reconstructed = trained.model.reconstruct(&values).unwrap();
    let squares: f64 = values.iter().zip(&reconstructed).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    assert!((squares / values.len() as f64 / figures.mse - 1.0).abs() < 1e-5);
    let widths = Entry::Reconstruct.widths(trained.model.plan());
    assert_eq!(widths, (64, 64));
}
