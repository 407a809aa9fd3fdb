//! `cvae distance`: how far sets of rows are from a reference set.

use anyhow::{Result, bail};
use cvae::metrics::{Moments, PrecisionRecall, frechet_distance};
use cvae::{Features, Matrix};
use cvae_data::{Dataset, LoadOptions, Source};
use serde::Serialize;

use crate::args::DistanceArgs;
use crate::{output, progress};

/// Neighbours that make a ball of the manifold.
const NEIGHBORS: usize = 3;
/// Rows at most of either side whose manifolds are compared: the work grows with their square.
const MANIFOLD_ROWS: usize = 3000;

/// What `--json` prints.
#[derive(Serialize)]
struct Results {
    reference: String,
    features: Features,
    distances: Vec<Distance>,
}

/// One set of rows.
#[derive(Serialize)]
struct Distance {
    data: String,
    rows: usize,
    frechet: f64,
    precision: f64,
    recall: f64,
}

/// Prints the Fréchet distance, precision and recall of every set.
///
/// # Errors
/// Rows that cannot be read, or of another width than the reference or the classifier.
pub(crate) fn run(args: &DistanceArgs) -> Result<()> {
    let features = match args.features.as_str() {
        "classifier" => Features::Classifier,
        "raw" => Features::Raw,
        name => bail!("unknown features `{name}`; known: classifier, raw"),
    };
    let bar = progress::spinner("measuring");
    let load = |name: &str| -> Result<Dataset> { Ok(name.parse::<Source>()?.load(&LoadOptions::default())?) };
    let reference = load(&args.reference)?;
    let (data, width) = apply(features, &reference)?;
    let data = Matrix::new(&data, width)?;
    let moments = Moments::fit(data)?;
    let mut distances = vec![];
    for name in &args.data {
        let rows = load(name)?;
        rows.expect_width(reference.width())?;
        let (samples, _) = apply(features, &rows)?;
        let samples = Matrix::new(&samples, width)?;
        let count = data.rows().min(samples.rows()).min(MANIFOLD_ROWS);
        let manifolds = PrecisionRecall::between(first(data, count)?, first(samples, count)?, NEIGHBORS)?;
        distances.push(Distance {
            data: name.clone(),
            rows: rows.rows(),
            frechet: frechet_distance(&Moments::fit(samples)?, &moments)?,
            precision: manifolds.precision,
            recall: manifolds.recall,
        });
    }
    bar.finish_and_clear();
    let results = Results { reference: reference.name().to_owned(), features, distances };
    if args.json {
        return output::json(&results);
    }
    let mut lines = vec![["rows", "number", "Fréchet", "precision", "recall"].map(str::to_owned).to_vec()];
    lines.extend(results.distances.iter().map(|distance| {
        vec![
            distance.data.clone(),
            distance.rows.to_string(),
            output::figure(distance.frechet),
            format!("{:.3}", distance.precision),
            format!("{:.3}", distance.recall),
        ]
    }));
    output::columns(&lines)
}

/// Rows in the features they are compared in, with their width.
fn apply(features: Features, rows: &Dataset) -> Result<(Vec<f32>, usize)> {
    let applied = features.apply(Matrix::new(&rows.to_f32(), rows.width())?);
    applied.map_err(|error| anyhow::Error::new(error).context(rows.name().to_owned()))
}

/// The first rows.
fn first(rows: Matrix<'_>, count: usize) -> Result<Matrix<'_>> {
    Ok(Matrix::new(&rows.values()[..count * rows.width()], rows.width())?)
}
