//! `cvae score`: how abnormal rows are.

use std::cell::{Cell, RefCell};

use anyhow::{Result, bail};
use cvae::density::DensitySpec;
use cvae::scoring::{FeatureShare, Term};
use cvae::{AnomalyDetector, AnomalyOptions, Threshold};
use cvae_data::{Dataset, LoadOptions, Source};
use serde::Serialize;

use crate::args::ScoreArgs;
use crate::{model, output, stream};

/// Terms that `--terms` knows.
const TERMS: [(&str, Term); 6] = [
    ("reconstruction", Term::Reconstruction),
    ("standardized-residual", Term::StandardizedResidual),
    ("smooth-residual", Term::SmoothResidual),
    ("mahalanobis", Term::Mahalanobis),
    ("density", Term::Density),
    ("neighbors", Term::Neighbors),
];
/// Rows that `--explain` names on standard output; the output file has all.
const NAMED_ROWS: usize = 10;

/// What `--json` prints.
#[derive(Serialize)]
struct Results {
    rows: u64,
    terms: Vec<Term>,
    threshold: Option<f64>,
    false_positive_rate: Option<f64>,
    held_out_rows: Option<usize>,
    abnormal: Option<u64>,
}

/// A row with its score and the features that make it up.
struct Explained {
    row: u64,
    score: f64,
    features: Vec<FeatureShare>,
}

/// Writes the score of every row, higher for more abnormal ones, and what else was asked for.
///
/// # Errors
/// A run folder, source, option or output that cannot be used.
pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
    let options = options(args)?;
    let explained = args.explain.unwrap_or(0);
    let model = model::load(&args.run, &args.engine)?;
    if !(args.explain.is_none() || (1..=model.width()).contains(&explained)) {
        bail!("--explain must be from 1 to the {} features of a row, got {explained}", model.width());
    }
    cvae_data::check_output(&args.out)?;
    let source: Source = args.data.parse()?;
    let names = source.open(&LoadOptions::default())?.feature_names().map(<[String]>::to_vec);
    let (detector, held_out) = detector(&model, args, &options)?;

    let (rows, abnormal) = (Cell::new(0u64), Cell::new(0u64));
    let worst: RefCell<Vec<Explained>> = RefCell::default();
    let columns = columns(options.false_positive_rate.is_some(), explained);
    let apply = |chunk: &[f32]| -> Result<Vec<f32>> {
        let scores = detector.score(chunk)?;
        let features = if explained > 0 { detector.explain(chunk, explained)? } else { vec![] };
        let mut out = Vec::with_capacity(scores.len() * columns.len());
        for (index, &score) in scores.iter().enumerate() {
            out.push(score as f32);
            if let Some(threshold) = detector.threshold() {
                let flagged = score > threshold.score;
                abnormal.set(abnormal.get() + u64::from(flagged));
                out.push(f32::from(u8::from(flagged)));
            }
            if let Some(features) = features.get(index) {
                for place in 0..explained {
                    let (feature, share) =
                        features.get(place).map_or((-1.0, 0.0), |f| (f.feature as f32, f.share as f32));
                    out.extend([feature, share]);
                }
                keep_worst(&mut worst.borrow_mut(), rows.get() + index as u64, score, features);
            }
        }
        rows.set(rows.get() + scores.len() as u64);
        Ok(out)
    };
    let pass = stream::Pass {
        what: "rows",
        from: model.width(),
        to: columns.len(),
        columns: stream::Columns::Named(columns.clone()),
        apply: &apply,
    };
    stream::run(&args.data, &model::options(&model), &args.out, &pass)?;

    let threshold = detector.threshold();
    let results = Results {
        rows: rows.get(),
        terms: options.terms.clone(),
        threshold: threshold.map(|threshold| threshold.score),
        false_positive_rate: threshold.map(|threshold| threshold.false_positive_rate),
        held_out_rows: threshold.map(|threshold| threshold.rows),
        abnormal: threshold.map(|_| abnormal.get()),
    };
    if args.json {
        return output::json(&results);
    }
    if let Some(Threshold { score, false_positive_rate, rows }) = threshold {
        output::line(format_args!(
            "threshold {} at a false-positive rate of {false_positive_rate}, from {rows} {held_out} rows",
            output::figure(score)
        ))?;
        output::line(format_args!("{} of {} rows exceed it", results.abnormal.unwrap_or(0), results.rows))?;
    }
    worst.borrow().iter().try_for_each(|row| output::line(in_words(row, names.as_deref())))
}

/// The options in the library's terms.
fn options(args: &ScoreArgs) -> Result<AnomalyOptions> {
    let mut terms = vec![];
    for name in args.terms.split(',') {
        match TERMS.iter().find(|known| known.0 == name) {
            Some((_, term)) if terms.contains(term) => bail!("the term `{name}` is named twice"),
            Some((_, term)) => terms.push(*term),
            None => bail!("unknown term `{name}`; known: {}", TERMS.map(|known| known.0).join(", ")),
        }
    }
    let density: DensitySpec = args.density.parse()?;
    if let Some(rate) = args.threshold_fpr
        && !(rate > 0.0 && rate < 1.0)
    {
        bail!("--threshold-fpr must be strictly between 0 and 1, got {rate}");
    }
    Ok(AnomalyOptions { terms, density, neighbors: args.neighbors, false_positive_rate: args.threshold_fpr })
}

/// A detector with these options, and a word for the rows that it was fitted on. Rows of the run are read only
/// where something is fitted to them.
fn detector<'m>(
    model: &'m cvae::Autoencoder,
    args: &ScoreArgs,
    options: &AnomalyOptions,
) -> Result<(AnomalyDetector<'m>, &'static str)> {
    let fits_nothing = options.terms == [Term::Reconstruction] && options.false_positive_rate.is_none();
    if fits_nothing && args.held_out.is_none() {
        return Ok((AnomalyDetector::of_reconstruction(model), ""));
    }
    let given: Option<Dataset> = match &args.held_out {
        Some(name) => {
            let data = name.parse::<Source>()?.load(&model::options(model))?;
            data.expect_width(model.width())?;
            Some(data)
        }
        None => None,
    };
    let rows = model::rows(model)?;
    let (held_out, word) = match given {
        Some(given) => (given, "given"),
        None => model::held_out(model, &rows)?,
    };
    Ok((AnomalyDetector::fit(model, &rows.train, Some(&held_out), options)?, word))
}

/// Names of the output's columns.
fn columns(judged: bool, explained: usize) -> Vec<String> {
    let mut names = vec!["score".to_owned()];
    names.extend(judged.then(|| "abnormal".to_owned()));
    names.extend((1..=explained).flat_map(|place| [format!("feature{place}"), format!("share{place}")]));
    names
}

/// Keeps the rows of highest score, the highest first; of equal ones the earlier.
fn keep_worst(worst: &mut Vec<Explained>, row: u64, score: f64, features: &[FeatureShare]) {
    let place = worst.partition_point(|kept| kept.score >= score);
    if place < NAMED_ROWS {
        worst.insert(place, Explained { row, score, features: features.to_vec() });
        worst.truncate(NAMED_ROWS);
    }
}

/// `row 7: score 0.0312; x3 41 %, x9 12 %`.
fn in_words(row: &Explained, names: Option<&[String]>) -> String {
    let feature = |share: &FeatureShare| {
        let name = names.and_then(|names| names.get(share.feature)).cloned();
        let name = name.unwrap_or_else(|| format!("feature {}", share.feature));
        format!("{name} {:.0} %", 100.0 * share.share)
    };
    let features: Vec<String> = row.features.iter().map(feature).collect();
    format!("row {}: score {}; {}", row.row, output::figure(row.score), features.join(", "))
}
