//! One-class Fashion-MNIST: a model learns the images of one class, and all test images are ranked by how abnormal
//! they are. Prints the area under the ROC curve of every score, for each of the ten classes and on average.
//!
//! `cargo run --release --example one_class [-- --json]`
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;

use cvae::metrics::{Pca, auroc};
use cvae::scoring::Term;
use cvae::{AnomalyDetector, AnomalyOptions, Autoencoder, Config, Matrix, Trainer, registry};
use cvae_core::{Activation, ModelSpec};
use cvae_data::{Dataset, LoadOptions, Source};

const CLASSES: u32 = 10;
const EPOCHS: u32 = 60;
const WIDTHS: [usize; 4] = [784, 256, 128, 32];
/// Share of the class's images that scales and calibration are fitted to.
const HELD_OUT: f64 = 0.15;

/// Classes whose test images were looked at while the recipe of the first row was chosen.
const CHOSEN_ON: [u32; 6] = [0, 1, 2, 3, 4, 6];

/// What each score is called, in the order of the table.
const NAMES: [&str; 7] = [
    "smooth residual + neighbours of the code, calibrated",
    "residual standardised + density of the code (gmm:5), calibrated",
    "residual standardised",
    "neighbours of the code (5)",
    "plain residual",
    "PCA-32 residual",
    "untrained network, plain residual",
];

fn main() -> Result<(), Box<dyn Error>> {
    let load = |name: &str| name.parse::<Source>()?.load(&LoadOptions::default());
    let (train, test) = (load("fashion-mnist:train")?, load("fashion-mnist:test")?);
    let mut table = vec![vec![]; NAMES.len()];
    for class in 0..CLASSES {
        let found = one_class(&train, &test, class)?;
        let text: Vec<String> = found.iter().map(|value| format!("{value:.4}")).collect();
        eprintln!("class {class}: {}", text.join("  "));
        table.iter_mut().zip(found).for_each(|(row, value)| row.push(value));
    }
    if std::env::args().any(|word| word == "--json") {
        println!("{}", in_json(&table)?);
        return Ok(());
    }
    for (name, values) in NAMES.iter().zip(&table) {
        println!("{:.4}  {name}", values.iter().sum::<f64>() / values.len() as f64);
    }
    Ok(())
}

/// The area under the ROC curve of every score when `class` is the normal one.
fn one_class(train: &Dataset, test: &Dataset, class: u32) -> Result<Vec<f64>, Box<dyn Error>> {
    let labels = |data: &Dataset| data.labels().map(<[u32]>::to_vec).ok_or("the images have labels");
    let rows: Vec<u32> = (0..).zip(labels(train)?).filter(|(_, label)| *label == class).map(|(row, _)| row).collect();
    let (fitted, held_out) = train.select(&rows)?.split(HELD_OUT, 0)?;
    let abnormal: Vec<bool> = labels(test)?.iter().map(|label| *label != class).collect();

    let mut config = Config::for_data(fitted.rows(), fitted.width())?;
    config.model = ModelSpec::mlp(&WIDTHS, Activation::Gelu, Activation::Identity)?;
    config.data.scaling = cvae_data::Scaling::None;
    config.epochs = EPOCHS;
    config.batch_size = 64;
    config.descend(fitted.rows());
    let backend = registry::select(&config.backend)?.backend;
    let model = Trainer::new(config).backend(backend.clone()).fit(&fitted)?.model;

    let terms = [
        vec![Term::SmoothResidual, Term::Neighbors],
        vec![Term::StandardizedResidual, Term::Density],
        vec![Term::StandardizedResidual],
        vec![Term::Neighbors],
        vec![Term::Reconstruction],
    ];
    let mut areas = vec![];
    for terms in terms {
        let options = AnomalyOptions { terms, ..AnomalyOptions::default() };
        let detector = AnomalyDetector::fit(&model, &fitted, Some(&held_out), &options)?;
        areas.push(auroc(&scores(&detector, test)?, &abnormal)?);
    }
    let width = fitted.width();
    let (fitted_rows, test_rows) = (fitted.to_f32(), test.to_f32());
    let pca = Pca::fit(Matrix::new(&fitted_rows, width)?, model.latent())?;
    areas.push(auroc(&pca.residuals(Matrix::new(&test_rows, width)?)?, &abnormal)?);
    let untrained: Autoencoder = model.untrained(backend.as_ref())?;
    areas.push(auroc(&scores(&AnomalyDetector::of_reconstruction(&untrained), test)?, &abnormal)?);
    Ok(areas)
}

/// Scores of all rows, a block at a time.
fn scores(detector: &AnomalyDetector<'_>, data: &Dataset) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut scores = vec![];
    let mut block = vec![];
    for start in (0..data.rows()).step_by(2000) {
        data.copy_rows(start..data.rows().min(start + 2000), &mut block)?;
        scores.extend(detector.score(&block)?);
    }
    Ok(scores)
}

/// The table with what it is about.
fn in_json(table: &[Vec<f64>]) -> Result<String, serde_json::Error> {
    let widths = WIDTHS.map(|width| width.to_string()).join("-");
    let about = format!(
        "Each of the ten classes is the normal one once: a collapsed model {widths} learns {:.0} % of its training \
         images in {EPOCHS} epochs, the others serve to fit scales and calibration. All 10 000 test images are ranked; \
         figures are areas under the ROC curve. The recipe of the first row is the same for every class. It was chosen \
         by the test images of the classes {}; the second column is the mean over the others, which \
         had no part in that.",
        100.0 * (1.0 - HELD_OUT),
        CHOSEN_ON.map(|class| class.to_string()).join(", ")
    );
    let classes: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
    let scores: Vec<_> =
        NAMES.iter().zip(table).map(|(name, values)| serde_json::json!({ "name": name, "auroc": values })).collect();
    serde_json::to_string(
        &serde_json::json!({ "about": about, "classes": classes, "chosen_on": CHOSEN_ON, "scores": scores }),
    )
}
