//! `cvae compare`: several runs beside each other.

use std::path::Path;

use anyhow::Result;
use cvae::{Evaluation, RunFolder};
use serde::Serialize;

use crate::args::{CompareArgs, EngineArgs};
use crate::report::widths;
use crate::{model, output, progress};

/// One run.
#[derive(Serialize)]
struct Entry {
    run: String,
    objective: String,
    widths: String,
    data: String,
    epochs: Option<usize>,
    train_seconds: Option<f64>,
    #[serde(flatten)]
    figures: Evaluation,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Results {
    runs: Vec<Entry>,
}

/// Measures every run on its own test rows and prints one line for each.
///
/// # Errors
/// A run folder, or the rows it was trained on, that cannot be used.
pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let bar = progress::spinner("measuring");
    let runs: Vec<Entry> = args.runs.iter().map(|run| entry(run, &args.engine)).collect::<Result<_>>()?;
    bar.finish_and_clear();
    match args.json {
        true => output::json(&Results { runs }),
        false => output::columns(&lines(&runs)),
    }
}

fn entry(run: &Path, engine: &EngineArgs) -> Result<Entry> {
    let model = model::load(run, engine)?;
    let folder = RunFolder::new(run);
    let training = match folder.file(RunFolder::STATE).exists() {
        true => folder.read_state()?.training,
        false => None,
    };
    let rows = model::rows(&model)?;
    let test = rows.test.as_ref().unwrap_or(&rows.train);
    let config = model.config();
    Ok(Entry {
        run: run.display().to_string(),
        objective: config.objective.latent.to_string(),
        widths: widths(&config.model),
        data: test.name().to_owned(),
        epochs: training.as_ref().map(|training| training.history.len()),
        train_seconds: training.map(|training| training.history.iter().map(|record| record.seconds).sum()),
        figures: cvae::evaluate(&model, &rows.train, test)?,
    })
}

/// The table, its heads first.
fn lines(runs: &[Entry]) -> Vec<Vec<String>> {
    let heads = ["run", "objective", "epochs", "MSE", "PCA", "5-NN", "probe", "latent RMS", "rank", "seconds"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    let absent = || "-".to_owned();
    let share = |value: Option<f64>| value.map_or_else(absent, |value| format!("{value:.4}"));
    lines.extend(runs.iter().map(|entry| {
        let figures = &entry.figures;
        vec![
            entry.run.clone(),
            entry.objective.clone(),
            entry.epochs.map_or_else(absent, |epochs| epochs.to_string()),
            output::figure(figures.mse),
            output::figure(figures.pca_mse),
            share(figures.knn5),
            share(figures.linear_probe),
            output::figure(figures.latent_rms),
            format!("{:.1}", figures.effective_rank),
            entry.train_seconds.map_or_else(absent, |seconds| format!("{seconds:.1}")),
        ]
    }));
    lines
}
