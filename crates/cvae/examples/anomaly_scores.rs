//! Learns what the digit 0 looks like, and finds the other digits by their reconstruction error, with a
//! threshold that flags at most one normal image in twenty.
//!
//! `cargo run --release --example anomaly_scores`
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::error::Error;

use cvae::metrics::auroc;
use cvae::scoring::conformal_threshold;
use cvae::{Config, Trainer};
use cvae_data::{Dataset, LoadOptions};

/// The digit that counts as normal.
const NORMAL: u32 = 0;

fn main() -> Result<(), Box<dyn Error>> {
    let config = Config { epochs: 200, batch_size: 16, ..Config::digits() };
    let rows = config.load_rows(&LoadOptions::default())?;
    let test = rows.test.ok_or("the digits have test rows")?;
    let (train, held_out) = only(&rows.train, NORMAL)?.split(0.25, config.seed)?;

    let model = Trainer::new(config).fit(&train)?.model;
    let score = |data: &Dataset| -> Result<Vec<f64>, Box<dyn Error>> {
        Ok(model.score(&data.to_f32())?.into_iter().map(f64::from).collect())
    };
    let threshold = conformal_threshold(&score(&held_out)?, 0.05)?;
    let scores = score(&test)?;
    let abnormal: Vec<bool> = labels(&test)?.iter().map(|label| *label != NORMAL).collect();

    let flagged = |kind: bool| {
        let of_kind = scores.iter().zip(&abnormal).filter(|(_, abnormal)| **abnormal == kind);
        let above = of_kind.clone().filter(|(score, _)| **score > threshold).count();
        format!("{above} of {}", of_kind.count())
    };
    println!("trained on {} images of {NORMAL}, threshold {threshold:.4}", train.rows());
    println!("area under the ROC curve: {:.4}", auroc(&scores, &abnormal)?);
    println!("flagged: {} other digits, {} images of {NORMAL}", flagged(true), flagged(false));
    Ok(())
}

/// The rows of one label.
fn only(data: &Dataset, label: u32) -> Result<Dataset, Box<dyn Error>> {
    let rows: Vec<u32> = (0..).zip(labels(data)?).filter(|(_, l)| **l == label).map(|(row, _)| row).collect();
    Ok(data.select(&rows)?)
}

fn labels(data: &Dataset) -> Result<&[u32], Box<dyn Error>> {
    data.labels().ok_or_else(|| "the digits have labels".into())
}
