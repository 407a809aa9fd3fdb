//! From a trained model to what its page shows.

use std::path::Path;

use anyhow::Result;
use cvae::density::{Density, DensitySpec};
use cvae::metrics::{self, Pca};
use cvae::{Autoencoder, Config, Evaluation, LoadedRows, Matrix, Trained};
use cvae_core::{Algorithm, ModelSpec, Schedule};
use cvae_data::{Dataset, Source};

use super::{Codes, Curve, Figure, Form, Histogram, Reconstructions, Report, Samples, judge};
use crate::output;

/// Rows shown of each kind.
const SHOWN_IMAGES: usize = 16;
const SHOWN_PROFILES: usize = 6;
/// Points of the scatter.
const POINTS: usize = 2000;
/// Training rows at most that the pictured PCA is fitted to; the figures use all.
const PCA_ROWS: usize = 5000;
/// Samples shown of each density.
const SAMPLED_IMAGES: usize = 32;
const SAMPLED_PROFILES: usize = 8;
/// Key of the samples shown.
const SAMPLE_SEED: u64 = 0;

/// A trained model applied to the rows it is tested on.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// `test`, or `train` where no rows are held out.
    pub(crate) tested_on: &'static str,
    /// The figures on those rows.
    pub(crate) figures: Evaluation,
    reconstructions: Reconstructions,
    worst: Reconstructions,
    scores: Histogram,
    codes: Codes,
    samples: Samples,
    paths: Samples,
}

/// Measures a trained model on its test rows.
///
/// # Errors
/// Rows that cannot be encoded or reconstructed.
pub(crate) fn measure(trained: &Trained, rows: &LoadedRows) -> Result<Outcome> {
    let model = &trained.model;
    let (tested_on, data) = match &rows.test {
        Some(test) => ("test", test),
        None => ("train", &rows.train),
    };
    let figures = cvae::evaluate(model, &rows.train, &without_labels(data)?)?;
    let form = form(data);
    let (shown, sampled) = match form {
        Form::Image(_) => (SHOWN_IMAGES, SAMPLED_IMAGES),
        Form::Profile => (SHOWN_PROFILES, SAMPLED_PROFILES),
    };
    let first: Vec<u32> = (0..shown.min(data.rows()) as u32).collect();
    let reconstructions = reconstructions(model, &rows.train, data, form, &first)?;
    let scores = judge::scores(model, data)?;
    let worst = self::reconstructions(model, &rows.train, data, form, &judge::worst(&scores, shown))?;
    let samples = Samples { form, width: model.width(), groups: samples(model, sampled)? };
    let paths = Samples { form, width: model.width(), groups: judge::paths(model, data, &first)? };
    let scores = judge::histogram(&scores, tested_on);
    Ok(Outcome { tested_on, figures, reconstructions, worst, scores, codes: scatter(model, data)?, samples, paths })
}

/// The same rows without labels: the figures that need them are for `cvae eval`.
fn without_labels(data: &Dataset) -> Result<Dataset> {
    let plain = Dataset::new(data.name(), data.values().clone(), data.width())?;
    Ok(match data.image_shape() {
        Some(shape) => plain.with_image_shape(shape)?,
        None => plain,
    })
}

/// The rows `shown` of `data` beside what the model and PCA make of them.
fn reconstructions(
    model: &Autoencoder,
    train: &Dataset,
    data: &Dataset,
    form: Form,
    shown: &[u32],
) -> Result<Reconstructions> {
    let (width, latent, scaling) = (model.width(), model.latent(), model.scaling());
    let mut originals = Vec::new();
    data.gather(shown, &mut originals)?;
    let reconstructed = model.reconstruct(&originals)?;
    // A missing value is shown as the model completes it.
    for (value, other) in originals.iter_mut().zip(&reconstructed).filter(|(value, _)| value.is_nan()) {
        *value = *other;
    }
    let mut scaled = originals.clone();
    scaling.apply(&mut scaled)?;
    let mut pca = scaled.clone();
    if latent < width {
        let mut rows = vec![];
        train.copy_rows(0..train.rows().min(PCA_ROWS), &mut rows)?;
        let mut rows = model.impute(&rows)?;
        scaling.apply(&mut rows)?;
        let fitted = Pca::fit(Matrix::new(&rows, width)?, latent)?;
        let scores = fitted.transform(Matrix::new(&scaled, width)?)?;
        pca = fitted.inverse_transform(Matrix::new(&scores, latent)?)?;
    }
    scaling.invert(&mut pca)?;
    let original = Matrix::new(&originals, width)?;
    let error =
        |other: &[f32]| -> Result<String> { Ok(output::figure(metrics::mse(original, Matrix::new(other, width)?)?)) };
    let caption =
        format!("MSE on these rows: model {}, PCA with {latent} components {}.", error(&reconstructed)?, error(&pca)?);
    Ok(Reconstructions { form, width, originals, model: reconstructed, pca, caption })
}

/// The page of a run.
pub(crate) fn compose(folder: &Path, trained: &Trained, outcome: &Outcome) -> Report {
    let model = &trained.model;
    let config = model.config();
    let name =
        folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned());
    let kernels = model.kernels().into_iter().map(|choice| (choice.op, choice.kernel)).collect();
    Report {
        title: name,
        summary: format!(
            "{}, {}, trained on {} with {}.",
            widths(&config.model),
            config.objective.latent,
            config.data.source,
            model.backend()
        ),
        figures: figures(trained, outcome),
        curves: curves(trained),
        reconstructions: Some(outcome.reconstructions.clone()),
        worst: Some(outcome.worst.clone()),
        scores: Some(outcome.scores.clone()),
        codes: Some(outcome.codes.clone()),
        samples: Some(outcome.samples.clone()),
        paths: Some(outcome.paths.clone()),
        settings: settings(config),
        kernels,
    }
}

/// The configuration in words, in the order to show it.
pub(crate) fn settings(config: &Config) -> Vec<(String, String)> {
    let optimizer = &config.optimizer;
    let none = || "none".to_owned();
    let rows = [
        ("data", config.data.source.clone()),
        ("test rows", test_rows(config)),
        ("scaling", format!("{:?}", config.data.scaling).to_lowercase()),
        ("widths", widths(&config.model)),
        ("activations", activations(&config.model)),
        ("reconstruction", config.objective.reconstruction.to_string()),
        ("latent term", config.objective.latent.to_string()),
        ("decoder L2", config.objective.decoder_l2.to_string()),
        ("Jacobian penalty", config.objective.jacobian.to_string()),
        ("corruption", config.objective.corruption.to_string()),
        ("elements kept", config.objective.top_k.map_or("all".to_owned(), |k| k.to_string())),
        ("learnt variance", config.objective.sigma_floor.map_or_else(none, |floor| format!("at least {floor}"))),
        ("missing values", if config.objective.missing { "left out" } else { "refused" }.to_owned()),
        ("epochs", config.epochs.to_string()),
        ("batch size", config.batch_size.to_string()),
        ("optimiser", algorithm(optimizer.algorithm)),
        ("learning rate", optimizer.learning_rate.to_string()),
        ("schedule", schedule(optimizer.schedule)),
        ("warm-up steps", optimizer.warmup_steps.to_string()),
        ("clipping", optimizer.clip_norm.map_or_else(none, |norm| norm.to_string())),
        ("validation share", config.data.validation_fraction.to_string()),
        ("patience", config.patience.map_or_else(none, |epochs| epochs.to_string())),
        ("initialiser", format!("{:?}", config.initializer).to_lowercase()),
        ("seed", config.seed.to_string()),
        ("version", config.version.clone()),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Where the test rows come from.
fn test_rows(config: &Config) -> String {
    let published = || config.data.source.parse::<Source>().ok()?.test_part();
    match (&config.data.test, config.data.test_fraction) {
        (Some(test), _) => test.clone(),
        (None, share) => match published() {
            Some(test) => test.to_string(),
            None if share == 0.0 => "none".to_owned(),
            None => format!("a share of {share}"),
        },
    }
}

fn algorithm(algorithm: Algorithm) -> String {
    match algorithm {
        Algorithm::Adam { beta1, beta2, eps } => format!("adam(beta1={beta1}, beta2={beta2}, eps={eps})"),
        Algorithm::AdamW { beta1, beta2, eps, weight_decay } => {
            format!("adam_w(beta1={beta1}, beta2={beta2}, eps={eps}, weight_decay={weight_decay})")
        }
        Algorithm::Sgd { momentum } => format!("sgd(momentum={momentum})"),
    }
}

fn schedule(schedule: Schedule) -> String {
    match schedule {
        Schedule::Constant => "constant".to_owned(),
        Schedule::Cosine { steps, final_factor } => format!("cosine(steps={steps}, final_factor={final_factor})"),
        Schedule::Step { every, factor } => format!("step(every={every}, factor={factor})"),
    }
}

/// `64-256-8-256-64`: every width from the row to its reconstruction.
pub(crate) fn widths(spec: &ModelSpec) -> String {
    let units = spec.encoder.iter().chain(&spec.decoder).map(|layer| layer.units().to_string());
    std::iter::once(spec.width().to_string()).chain(units).collect::<Vec<_>>().join("-")
}

fn activations(spec: &ModelSpec) -> String {
    let names = spec.encoder.iter().chain(&spec.decoder).map(|layer| layer.activation().name());
    names.collect::<Vec<_>>().join(", ")
}

fn figures(trained: &Trained, outcome: &Outcome) -> Vec<Figure> {
    let figures = &outcome.figures;
    let latent = trained.model.latent();
    let ratio = match figures.pca_mse > 0.0 {
        true => {
            format!("PCA-{latent}: {} ({:.2} of it)", output::figure(figures.pca_mse), figures.mse / figures.pca_mse)
        }
        false => "no floor: the code is as wide as the row".to_owned(),
    };
    let label = if outcome.tested_on == "test" { "test MSE" } else { "training MSE" };
    let rank = format!("effective rank {:.1}", figures.effective_rank);
    let loss = trained.history.last().map_or(f64::NAN, |record| record.loss);
    let steps = trained.steps as f64 / trained.seconds.max(1e-9);
    vec![
        Figure { label, value: output::figure(figures.mse), beside: ratio },
        Figure {
            label: "PSNR",
            value: figures.psnr.map_or("infinite".to_owned(), |psnr| format!("{psnr:.1} dB")),
            beside: figures.r2.map_or(String::new(), |r2| format!("R² {r2:.3}")),
        },
        Figure {
            label: "training loss",
            value: output::figure(loss),
            beside: format!("{} epochs", trained.history.len()),
        },
        Figure { label: "active units", value: format!("{} of {latent}", figures.active_units), beside: rank },
        Figure { label: "latent RMS", value: output::figure(figures.latent_rms), beside: "prior: 1".to_owned() },
        Figure {
            label: "training time",
            value: format!("{:.2} s", trained.seconds),
            beside: format!("{} steps, {steps:.0} a second", trained.steps),
        },
    ]
}

/// The loss and its terms by epoch; a term that is always zero is left out.
fn curves(trained: &Trained) -> Vec<Curve> {
    let course = |name: &str, value: &dyn Fn(&cvae::EpochRecord) -> Option<f64>| Curve {
        name: name.to_owned(),
        points: trained.history.iter().filter_map(|r| Some((f64::from(r.epoch), value(r)?))).collect(),
        is_level: false,
    };
    let all = [
        course("loss", &|record| Some(record.loss)),
        course("validation loss", &|record| record.validation_loss),
        course("reconstruction", &|record| Some(record.reconstruction)),
        course("latent", &|record| Some(record.latent)),
        course("decoder L2", &|record| Some(record.decoder_l2)),
        course("Jacobian penalty", &|record| Some(record.jacobian)),
    ];
    all.into_iter().filter(|curve| curve.points.iter().any(|point| point.1 != 0.0)).collect()
}

fn form(data: &Dataset) -> Form {
    match data.image_shape() {
        Some(shape) if matches!(shape.channels, 1 | 3) => Form::Image(shape),
        _ => Form::Profile,
    }
}

/// The codes of the first rows in their first two principal components.
fn scatter(model: &Autoencoder, data: &Dataset) -> Result<Codes> {
    let latent = model.latent();
    let count = data.rows().min(POINTS);
    let mut rows = Vec::new();
    data.copy_rows(0..count, &mut rows)?;
    let codes = model.encode(&rows)?;
    let codes = Matrix::new(&codes, latent)?;
    let components = latent.min(2);
    let pca = Pca::fit(codes, components)?;
    let scores = pca.transform(codes)?;
    let point = |row: &[f32]| (row[0], row.get(1).copied().unwrap_or(0.0));
    let explained = 100.0 * pca.explained();
    Ok(Codes {
        points: scores.chunks_exact(components).map(point).collect(),
        labels: data.labels().map(|labels| labels[..count].to_vec()),
        classes: data.class_names().map(<[String]>::to_vec),
        caption: format!("{count} codes in their first two principal components, {explained:.0} % of their variance."),
    })
}

/// Rows from the prior and from each density that was fitted to the training codes.
fn samples(model: &Autoencoder, count: usize) -> Result<Vec<(String, Vec<f32>)>> {
    let fitted = model.densities().iter().map(Density::spec);
    let draw = |spec: DensitySpec| Ok((spec.to_string(), model.sample(count, SAMPLE_SEED, spec)?));
    std::iter::once(DensitySpec::Prior).chain(fitted).map(draw).collect()
}
