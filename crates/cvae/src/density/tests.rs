//! Densities as a whole: likelihoods, samples, choice of components, the stored form.

use super::*;
use crate::metrics::{Moments, frechet_distance};
use crate::random::normal_rows;

/// Codes on two separated, differently scaled clusters: (0, 100) and (3, 400), correlated.
fn codes(seed: u64, rows: usize) -> Vec<f32> {
    let noise = normal_rows(seed, Purpose::PriorRows, rows, 2);
    noise
        .chunks_exact(2)
        .enumerate()
        .flat_map(|(row, noise)| {
            let shift = (row % 2) as f64;
            let x = 3.0 * shift + 0.3 * noise[0];
            [x as f32, (100.0 + 300.0 * shift + 20.0 * noise[0] + 10.0 * noise[1]) as f32]
        })
        .collect()
}

fn fit(spec: &str, codes: Matrix<'_>) -> Fitted {
    let options = FitOptions { flow_steps: 100, ..FitOptions::default() };
    Density::fit(spec.parse().unwrap(), codes, None, &options).unwrap()
}

#[test]
fn the_gaussian_is_mean_and_covariance_of_the_codes() {
    let values = codes(1, 500);
    let codes = Matrix::new(&values, 2).unwrap();
    let density = fit("gaussian", codes).density;
    // ln N(z; μ, Σ) with the divisor `rows`, written out for two dimensions.
    let mean = |column: usize| codes.iter().map(|row| f64::from(row[column])).sum::<f64>() / 500.0;
    let means = [mean(0), mean(1)];
    let covariance = |a: usize, b: usize| {
        codes.iter().map(|row| (f64::from(row[a]) - means[a]) * (f64::from(row[b]) - means[b])).sum::<f64>() / 500.0
    };
    let (aa, ab, bb) = (covariance(0, 0), covariance(0, 1), covariance(1, 1));
    let determinant = aa * bb - ab * ab;
    for (row, found) in codes.iter().zip(density.log_prob(codes).unwrap()) {
        let (x, y) = (f64::from(row[0]) - means[0], f64::from(row[1]) - means[1]);
        let square = (bb * x * x - 2.0 * ab * x * y + aa * y * y) / determinant;
        let expected = -0.5 * square - 0.5 * ((2.0 * std::f64::consts::PI).powi(2) * determinant).ln();
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }
}

#[test]
fn one_component_equals_the_gaussian() {
    let values = codes(2, 700);
    let codes = Matrix::new(&values, 2).unwrap();
    let (gaussian, mixture) = (fit("gaussian", codes), fit("gmm:1", codes));
    for (a, b) in gaussian.density.log_prob(codes).unwrap().iter().zip(mixture.density.log_prob(codes).unwrap()) {
        assert!((a - b).abs() < 1e-9);
    }
    assert_eq!(gaussian.report.parameters, mixture.report.parameters);
    assert!((gaussian.report.bic - mixture.report.bic).abs() < 1e-6);
}

#[test]
fn the_prior_is_the_standard_normal() {
    let density = Density::prior(3).unwrap();
    let found = density.log_prob(Matrix::new(&[1.0, 2.0, -2.0], 3).unwrap()).unwrap();
    let expected = -4.5 - 1.5 * (2.0 * std::f64::consts::PI).ln();
    assert!((found[0] - expected).abs() < 1e-12);
    let samples = density.sample(20_000, 1, 1.0).unwrap();
    let moments = Moments::fit(Matrix::new(&samples, 3).unwrap()).unwrap();
    assert!(frechet_distance(&moments, &Moments::standard_normal(3)).unwrap() < 2e-3);
}

#[test]
fn densities_integrate_to_one() {
    let values = codes(3, 900);
    let codes = Matrix::new(&values, 2).unwrap();
    for spec in ["gaussian", "gmm:3", "gmm-diag:4"] {
        let density = fit(spec, codes).density;
        let (steps_x, steps_y) = (400, 400);
        let (dx, dy) = (10.0 / steps_x as f32, 1200.0 / steps_y as f32);
        let grid: Vec<f32> = (0..steps_x * steps_y)
            .flat_map(|i| [-3.5 + dx * (i % steps_x) as f32, -350.0 + dy * (i / steps_x) as f32])
            .collect();
        let log_densities = density.log_prob(Matrix::new(&grid, 2).unwrap()).unwrap();
        let integral: f64 = log_densities.iter().map(|value| value.exp()).sum::<f64>() * f64::from(dx * dy);
        assert!((integral - 1.0).abs() < 1e-2, "{spec}: {integral}");
    }
}

#[test]
fn samples_have_the_moments_of_the_codes() {
    let values = codes(4, 4000);
    let codes = Matrix::new(&values, 2).unwrap();
    for spec in ["gaussian", "gmm:2", "gmm-diag:4"] {
        let density = fit(spec, codes).density;
        let samples = density.sample(40_000, 9, 1.0).unwrap();
        let (of_samples, of_codes) =
            (Moments::fit(Matrix::new(&samples, 2).unwrap()).unwrap(), Moments::fit(codes).unwrap());
        for (found, expected) in of_samples.mean().iter().zip(of_codes.mean()) {
            assert!((found / expected - 1.0).abs() < 0.03, "{spec}: {found} {expected}");
        }
        for (found, expected) in of_samples.covariance().iter().zip(of_codes.covariance()) {
            assert!((found / expected - 1.0).abs() < 0.05, "{spec}: {found} {expected}");
        }
    }
}

#[test]
fn samples_depend_on_seed_and_row_alone() {
    let values = codes(5, 300);
    let density = fit("gmm:2", Matrix::new(&values, 2).unwrap()).density;
    let many = density.sample(1000, 7, 1.0).unwrap();
    assert_eq!(density.sample(10, 7, 1.0).unwrap(), many[..20]);
    assert_ne!(density.sample(10, 8, 1.0).unwrap(), many[..20]);
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(single.install(|| density.sample(1000, 7, 1.0).unwrap()), many);
    assert!(density.sample(0, 7, 1.0).unwrap().is_empty());
}

#[test]
fn temperature_scales_the_deviation_from_the_mean() {
    let values = codes(6, 300);
    let codes = Matrix::new(&values, 2).unwrap();
    let gaussian = fit("gaussian", codes).density;
    let cold = gaussian.sample(3, 1, 0.0).unwrap();
    assert!(cold.chunks(2).all(|row| row == &cold[..2]), "temperature 0 gives the mean");
    let (half, full) = (gaussian.sample(50, 1, 0.5).unwrap(), gaussian.sample(50, 1, 1.0).unwrap());
    for ((half, full), mean) in half.iter().zip(&full).zip(cold[..2].iter().cycle()) {
        assert!((2.0 * (half - mean) - (full - mean)).abs() < 1e-3 * mean.abs());
    }
    for temperature in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(gaussian.sample(1, 0, temperature), Err(DensityError::Temperature(_))));
    }
}

#[test]
fn the_automatic_choice_finds_the_clusters_and_shows_its_candidates() {
    let values = codes(7, 2000);
    let held_out = codes(8, 1000);
    let (codes, held_out) = (Matrix::new(&values, 2).unwrap(), Matrix::new(&held_out, 2).unwrap());
    for held_out in [None, Some(held_out)] {
        let spec = "gmm:auto".parse().unwrap();
        let Fitted { density, report } = Density::fit(spec, codes, held_out, &FitOptions::default()).unwrap();
        assert_eq!(density.gmm().unwrap().components(), 2, "{report:?}");
        assert_eq!(report.candidates[0].components, 1);
        let lowest_bic = report.candidates.iter().min_by(|a, b| a.bic.total_cmp(&b.bic)).unwrap();
        assert_eq!(lowest_bic.components, 2);
        assert_eq!(report.held_out_log_likelihood.is_some(), held_out.is_some());
    }
}

#[test]
fn three_codes_have_one_component() {
    let values = codes(7, 3);
    let fitted =
        Density::fit("gmm:auto".parse().unwrap(), Matrix::new(&values, 2).unwrap(), None, &FitOptions::default());
    let Fitted { density, report } = fitted.unwrap();
    assert!(density.is_automatic() && report.candidates.is_empty());
    assert_eq!(density.gmm().unwrap().components(), 1);
}

#[test]
fn the_report_agrees_with_the_density() {
    let (values, held_out) = (codes(9, 400), codes(10, 200));
    let (codes, held_out) = (Matrix::new(&values, 2).unwrap(), Matrix::new(&held_out, 2).unwrap());
    let fitted = Density::fit("gmm:2".parse().unwrap(), codes, Some(held_out), &FitOptions::default()).unwrap();
    let report = &fitted.report;
    assert_eq!(report.train_log_likelihood, fitted.density.mean_log_prob(codes).unwrap());
    assert_eq!(report.held_out_log_likelihood, Some(fitted.density.mean_log_prob(held_out).unwrap()));
    assert_eq!(report.parameters, 11);
    let expected = 11.0 * 400f64.ln() - 800.0 * report.train_log_likelihood;
    assert!((report.bic - expected).abs() < 1e-9);
    assert!(report.converged && report.candidates.is_empty());
}

#[test]
fn constant_and_duplicate_dimensions_are_allowed() {
    // Column 1 is constant, column 2 a copy of column 0: the floor keeps the covariance regular.
    let values: Vec<f32> = (0..200).flat_map(|i| [i as f32, 5.0, i as f32]).collect();
    let codes = Matrix::new(&values, 3).unwrap();
    for spec in ["gaussian", "gmm:2", "gmm:auto", "gmm-diag:2", "flow"] {
        let density = fit(spec, codes).density;
        assert!(density.log_prob(codes).unwrap().iter().all(|value| value.is_finite()), "{spec}");
        let samples = density.sample(100, 0, 1.0).unwrap();
        assert!(samples.iter().all(|value| value.is_finite()), "{spec}");
        // A flow of a few steps has not yet shrunk its standard normal start to a constant.
        if spec != "flow" {
            assert!(samples.chunks(3).all(|row| (row[1] - 5.0).abs() < 0.02), "{spec}");
        }
    }
}

#[test]
fn one_latent_dimension_works() {
    let values: Vec<f32> = codes(11, 500).chunks(2).map(|row| row[0]).collect();
    let codes = Matrix::new(&values, 1).unwrap();
    for spec in ["prior", "gaussian", "gmm:2", "gmm-diag:2", "gmm:auto", "flow"] {
        let density = fit(spec, codes).density;
        assert_eq!(density.latent(), 1);
        assert!(density.mean_log_prob(codes).unwrap().is_finite());
    }
    let two = fit("gmm:2", codes).report.train_log_likelihood;
    assert!(two > fit("gaussian", codes).report.train_log_likelihood + 0.5);
}

#[test]
fn stored_densities_return_bit_by_bit() {
    let values = codes(12, 300);
    let codes = Matrix::new(&values, 2).unwrap();
    for spec in ["prior", "gaussian", "gmm:3", "gmm-diag:2", "flow"] {
        let density = fit(spec, codes).density;
        let json = serde_json::to_string(&density).unwrap();
        let back: Density = serde_json::from_str(&json).unwrap();
        assert_eq!(back, density);
        assert_eq!(back.spec().to_string(), spec);
        assert_eq!(back.log_prob(codes).unwrap(), density.log_prob(codes).unwrap());
    }
}

#[test]
fn an_automatic_choice_is_found_again() {
    let codes = codes(5, 400);
    let codes = Matrix::new(&codes, 2).unwrap();
    let spec = |text: &str| text.parse::<DensitySpec>().unwrap();
    let chosen = fit("gmm:auto", codes).density;
    assert!(chosen.is_automatic() && chosen.answers(spec("gmm:auto")) && chosen.answers(chosen.spec()));
    assert!(!chosen.answers(spec("gmm-diag:auto")) && !chosen.answers(spec("gmm:30")));
    let back: Density = serde_json::from_str(&serde_json::to_string(&chosen).unwrap()).unwrap();
    assert_eq!(back, chosen);
    let DensitySpec::Gmm { components, covariance } = chosen.spec() else { panic!("{}", chosen.spec()) };
    let named = fit(&DensitySpec::Gmm { components, covariance }.to_string(), codes).density;
    assert!(named.answers(chosen.spec()) && !named.answers(spec("gmm:auto")), "nobody chose its size");
    assert!(fit("gaussian", codes).density.answers(DensitySpec::Gaussian));
}

#[test]
fn inconsistent_stored_densities_are_errors() {
    let values = codes(13, 300);
    let codes = Matrix::new(&values, 2).unwrap();
    let json = serde_json::to_value(fit("gaussian", codes).density).unwrap();
    assert!(serde_json::from_value::<Density>(json.clone()).is_ok());
    let breaks: [fn(&mut serde_json::Value); 5] = [
        |json| json["kind"] = "kde".into(),
        |json| json["standardizer"]["scale"][0] = 0.0.into(),
        |json| json["standardizer"]["mean"] = serde_json::json!([1.0]),
        |json| json["standardizer"] = serde_json::json!({"mean": [0.0], "scale": [1.0]}),
        |json| json["model"]["weights"] = serde_json::json!([0.5, 0.5]),
    ];
    for break_it in breaks {
        let mut json = json.clone();
        break_it(&mut json);
        assert!(serde_json::from_value::<Density>(json.clone()).is_err(), "{json}");
    }
    assert!(serde_json::from_str::<Density>(r#"{"kind":"prior","latent":0}"#).is_err());
}

#[test]
fn bad_input_is_an_error() {
    let values = codes(14, 20);
    let codes = Matrix::new(&values, 2).unwrap();
    let narrow = Matrix::new(&values, 1).unwrap();
    let options = FitOptions::default();
    let spec = |text: &str| text.parse::<DensitySpec>().unwrap();
    assert!(matches!(
        Density::fit(spec("gmm:21"), codes, None, &options),
        Err(DensityError::TooFewRows { needed: 21, rows: 20 })
    ));
    let single = Matrix::new(&values[..2], 2).unwrap();
    for text in ["gaussian", "gmm:1", "gmm:auto", "flow"] {
        assert!(matches!(Density::fit(spec(text), single, None, &options), Err(DensityError::TooFewRows { .. })));
    }
    assert!(matches!(
        Density::fit(spec("gaussian"), codes, Some(narrow), &options),
        Err(DensityError::WidthMismatch { expected: 2, found: 1 })
    ));
    let density = Density::fit(spec("gaussian"), codes, None, &options).unwrap().density;
    assert!(matches!(density.log_prob(narrow), Err(DensityError::WidthMismatch { .. })));
    assert!(matches!(Density::prior(0), Err(DensityError::Matrix(_))));
    for options in [
        FitOptions { restarts: 0, ..options.clone() },
        FitOptions { tolerance: f64::NAN, ..options.clone() },
        FitOptions { covariance_floor: 0.0, ..options.clone() },
        FitOptions { held_out_share: 1.0, ..options.clone() },
        FitOptions { flow_steps: 0, ..options.clone() },
    ] {
        assert!(matches!(Density::fit(spec("gmm:2"), codes, None, &options), Err(DensityError::Option { .. })));
    }
}

/// A ring of radius 3, which no Gaussian describes.
fn ring(seed: u64, rows: usize) -> Vec<f32> {
    normal_rows(seed, Purpose::PriorRows, rows, 3)
        .chunks_exact(3)
        .flat_map(|noise| {
            let angle = noise[1].atan2(noise[2]);
            let radius = 3.0 + 0.2 * noise[0];
            [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
        })
        .collect()
}

#[test]
fn a_flow_learns_a_ring() {
    let (values, fresh) = (ring(1, 2000), ring(2, 1000));
    let (codes, fresh) = (Matrix::new(&values, 2).unwrap(), Matrix::new(&fresh, 2).unwrap());
    let options = FitOptions { flow_steps: 400, ..FitOptions::default() };
    let fitted = Density::fit(DensitySpec::Flow, codes, None, &options).unwrap();
    let gaussian = fit("gaussian", codes).density.mean_log_prob(fresh).unwrap();
    let found = fitted.density.mean_log_prob(fresh).unwrap();
    // The ring's own mean log-density is −ln(2π·3) − ½·ln(2πe·0.04), about −2.75.
    assert!(found > gaussian + 0.6, "{found} {gaussian}");
    assert!(found < -2.7, "{found} is more than the ring's own");
    let samples = fitted.density.sample(2000, 3, 1.0).unwrap();
    let near = samples.chunks(2).filter(|row| (row[0].hypot(row[1]) - 3.0).abs() < 1.0).count();
    assert!(near > 1700, "{near}");
}

#[test]
fn a_flow_learns_two_modes_in_one_dimension() {
    let values: Vec<f32> = codes(20, 2000).chunks(2).map(|row| row[0]).collect();
    let codes = Matrix::new(&values, 1).unwrap();
    let options = FitOptions { flow_steps: 1000, ..FitOptions::default() };
    let flow = Density::fit(DensitySpec::Flow, codes, None, &options).unwrap().report.train_log_likelihood;
    let (gaussian, two) = (fit("gaussian", codes).report, fit("gmm:2", codes).report);
    let gained = (flow - gaussian.train_log_likelihood) / (two.train_log_likelihood - gaussian.train_log_likelihood);
    assert!(gained > 0.8, "{gained}");
}

#[test]
fn threads_do_not_change_a_flow() {
    let values = ring(5, 700);
    let codes = Matrix::new(&values, 2).unwrap();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fit("flow", codes))
    };
    assert_eq!(on(1), on(3));
}
