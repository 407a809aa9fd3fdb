//! Judging rows with a trained model, in the library.

mod common;

use common::sheet;
use cvae::density::DensitySpec;
use cvae::scoring::{ScoreError, Term};
use cvae::{AnomalyDetector, AnomalyError, AnomalyOptions, Config, Trainer};
use cvae_core::{Activation, ModelSpec, OptimizerSpec};

fn options(terms: &[Term], rate: Option<f64>) -> AnomalyOptions {
    let terms = terms.to_vec();
    AnomalyOptions { terms, density: DensitySpec::Gaussian, false_positive_rate: rate, ..AnomalyOptions::default() }
}

#[test]
fn detectors_fit_score_predict_and_explain() {
    let (train, held_out, fresh) = (sheet(300, 1), sheet(400, 2), sheet(300, 3));
    let width = train.width();
    let model = ModelSpec::mlp(&[width, 16, 2], Activation::Tanh, Activation::Identity).unwrap();
    let config = Config { epochs: 60, batch_size: 32, optimizer: OptimizerSpec::adam(5e-3), ..Config::new(model) };
    let model = Trainer::new(config).fit(&train).unwrap().model;
    let rows = fresh.to_f32();
    let mut odd = rows[..width].to_vec();
    odd[3] += 20.0;

    let plain = AnomalyDetector::of_reconstruction(&model);
    let scores = plain.score(&rows).unwrap();
    for (score, expected) in scores.iter().zip(model.score(&rows).unwrap()) {
        assert!((score - f64::from(expected)).abs() <= 1e-6 * score.abs(), "{score} {expected}");
    }
    assert!(plain.score_samples(&rows).unwrap().iter().zip(&scores).all(|(normal, score)| *normal == -score));
    assert!(matches!(plain.predict(&rows), Err(AnomalyError::Score(ScoreError::NoThreshold))));

    for terms in [
        &[Term::Reconstruction][..],
        &[Term::StandardizedResidual],
        &[Term::Mahalanobis],
        &[Term::StandardizedResidual, Term::Density],
        &[Term::StandardizedResidual, Term::Neighbors],
    ] {
        let detector = AnomalyDetector::fit(&model, &train, Some(&held_out), &options(terms, Some(0.1))).unwrap();
        let threshold = detector.threshold().unwrap();
        // Terms that fit held-out rows leave half of them for the threshold.
        let halved = terms != [Term::Reconstruction] && terms != [Term::Mahalanobis];
        assert_eq!(threshold.rows, if halved { 200 } else { 400 }, "{terms:?}");
        let flagged = detector.predict(&rows).unwrap().into_iter().filter(|flag| *flag).count();
        // Ten percent of 300, with the deviation of the quantile of 200 rows and of the fresh ones below 8.
        assert!((6..=62).contains(&flagged), "{terms:?}: {flagged}");
        match detector.explain(&odd, 1) {
            Ok(features) => {
                assert_eq!(features[0][0].feature, 3, "{terms:?}");
                assert_eq!(detector.predict(&odd).unwrap(), [true], "{terms:?}");
            }
            Err(error) => {
                assert_eq!(terms, [Term::Mahalanobis]);
                assert!(matches!(error, AnomalyError::Score(ScoreError::NoResidual)), "{error}");
            }
        }
    }
}

#[test]
fn what_cannot_be_fitted_is_an_error() {
    let train = sheet(60, 1);
    let model = ModelSpec::mlp(&[train.width(), 2], Activation::Tanh, Activation::Identity).unwrap();
    let model = Trainer::new(Config { epochs: 1, ..Config::new(model) }).fit(&train).unwrap().model;
    let fit = |terms: &[Term], rate, held_out| AnomalyDetector::fit(&model, &train, held_out, &options(terms, rate));
    let missing = |result: Result<AnomalyDetector<'_>, AnomalyError>| matches!(result, Err(AnomalyError::NoHeldOut(_)));
    assert!(missing(fit(&[Term::Reconstruction], Some(0.1), None)));
    assert!(missing(fit(&[Term::StandardizedResidual], None, None)));
    assert!(missing(fit(&[Term::Density, Term::Mahalanobis], None, None)));
    assert!(fit(&[Term::Neighbors], None, None).is_ok(), "the same");
    assert!(fit(&[Term::Mahalanobis], None, None).is_ok(), "it is fitted to the training rows alone");
    assert!(matches!(fit(&[], None, Some(&train)), Err(AnomalyError::Score(ScoreError::NoTerm))));
    let few = fit(&[Term::Reconstruction], Some(0.001), Some(&train));
    assert!(matches!(few, Err(AnomalyError::Score(ScoreError::TooFewScores { needed: 999, .. }))));
    let rate = fit(&[Term::Reconstruction], Some(1.0), Some(&train));
    assert!(matches!(rate, Err(AnomalyError::Score(ScoreError::Rate(_)))));
    let other = cvae_data::Dataset::new("other", cvae_data::Values::F32(vec![0.0; 9]), 3).unwrap();
    assert!(matches!(fit(&[Term::Reconstruction], Some(0.5), Some(&other)), Err(AnomalyError::Model(_))));
}
