//! `cvae train`: rows in, a run folder out.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cvae::{Config, Existing, LoadedRows, RunFolder, Stop, Trained, Trainer, registry};
use cvae_core::OpProfile;
use serde::Serialize;

use crate::args::TrainArgs;
use crate::progress::{self, TrainingProgress};
use crate::report::{self, Outcome};
use crate::{configure, output};

/// What `--json` prints.
#[derive(Serialize)]
struct Results {
    run: String,
    backend: String,
    epochs: usize,
    steps: u64,
    train_loss: f64,
    test_mse: f64,
    pca_mse: f64,
    /// Which rows both errors were measured on: `test`, or `train` where none are held out.
    tested_on: &'static str,
    train_seconds: f64,
    steps_per_second: f64,
}

/// Trains, measures the model beside PCA, writes the report and says what to run next.
///
/// # Errors
/// Arguments, rows, a backend or a folder that cannot be used, or training that diverges.
pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    let (config, rows) = configure::training(args)?;
    rows.train.expect_width(config.model.width())?;
    let selected = registry::select_for(&configure::backend(args, &config), &config.plan()?)?;
    let Ok(checkpoint_every) = Duration::try_from_secs_f64(args.checkpoint_every) else {
        bail!("--checkpoint-every must be a number of seconds of at least 0, got {}", args.checkpoint_every);
    };

    let existing = match (args.resume, args.force) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Replace,
        (false, false) => Existing::Refuse,
    };
    let (folder, claimed) = match &args.out {
        Some(folder) => (folder.clone(), false),
        None => (configure::claim_folder(&configure::run_name(args, &config))?, true),
    };
    let mut progress = TrainingProgress::new(introduction(&config, &rows, &selected));
    let trained = Trainer::new(config)
        .backend(Arc::clone(&selected.backend))
        .run_folder(&folder, existing)
        .checkpoint_every(checkpoint_every)
        .on_progress(|now| {
            progress.show(now);
            ControlFlow::Continue(())
        })
        .fit(&rows.train);
    progress.finish();
    let trained = match trained {
        Ok(trained) => trained,
        Err(error) => {
            if claimed {
                // Succeeds only while the folder is empty: a checkpoint stays.
                let _ = std::fs::remove_dir(&folder);
            }
            return Err(error.into());
        }
    };
    if let Stop::EarlyStopping { best_epoch } = trained.stop {
        eprintln!("stopped early; the parameters are those of epoch {best_epoch}");
    }
    eprint!("{}", profile(&trained.model.profile()));
    let spinner = progress::spinner("measuring and writing the report");
    let outcome = report::measure(&trained, &rows)?;
    let page = report::render(&report::compose(&folder, &trained, &outcome));
    cvae_data::atomic_write(folder.join(RunFolder::REPORT), |file| file.write_all(page.as_bytes()))?;
    spinner.finish_and_clear();
    finish(args, &folder, &trained, &outcome)
}

/// What is said when training begins.
fn introduction(config: &Config, rows: &LoadedRows, selected: &registry::Selected) -> String {
    let test = match &rows.test {
        Some(test) => format!("{} rows of {} to test on", test.rows(), test.name()),
        None => "none held out to test on".to_owned(),
    };
    let mut text = format!(
        "data     {}: {} rows of {} values; {test}\nbackend  {}: {}",
        rows.train.name(),
        rows.train.rows(),
        rows.train.width(),
        selected.backend.id(),
        selected.reason,
    );
    text.push_str(&format!("\nmodel    {}, {}", report::widths(&config.model), config.objective.latent));
    text
}

/// Where the time of the training steps went, a line an op; empty if it was not measured.
fn profile(ops: &[OpProfile]) -> String {
    let whole: f64 = ops.iter().map(|op| op.seconds).sum();
    let line = |op: &OpProfile| {
        let rates = match op.flops > 0.0 {
            true => format!("{:8.1} GFLOP/s {:7.1} GB/s", op.flops / op.seconds / 1e9, op.bytes / op.seconds / 1e9),
            false => String::new(),
        };
        let (share, micros) = (100.0 * op.seconds / whole, 1e6 * op.seconds / op.calls.max(1) as f64);
        format!("{share:5.1} % {micros:9.1} µs  {:48} {rates}", op.op).trim_end().to_owned() + "\n"
    };
    ops.iter().map(line).collect()
}

/// Prints the results and what to run next.
fn finish(args: &TrainArgs, folder: &Path, trained: &Trained, outcome: &Outcome) -> Result<()> {
    let figures = &outcome.figures;
    let train_loss = trained.history.last().context("no epoch was trained")?.loss;
    let results = Results {
        run: folder.display().to_string(),
        backend: trained.model.backend().to_string(),
        epochs: trained.history.len(),
        steps: trained.steps,
        train_loss,
        test_mse: figures.mse,
        pca_mse: figures.pca_mse,
        tested_on: outcome.tested_on,
        train_seconds: trained.seconds,
        steps_per_second: trained.steps as f64 / trained.seconds.max(1e-9),
    };
    if args.json {
        return output::json(&results);
    }
    let run = results.run.as_str();
    let floor = format!("PCA with {} components", trained.model.latent());
    let ratio = match figures.pca_mse > 0.0 {
        true => format!("{:.3} of the floor", figures.mse / figures.pca_mse),
        false => "the code is as wide as the rows: no floor".to_owned(),
    };
    let mse = match outcome.tested_on {
        "test" => "test MSE",
        _ => "training MSE (no test rows)",
    };
    let seconds =
        format!("{:.2} s for {} steps ({:.0} steps/s)", results.train_seconds, results.steps, results.steps_per_second);
    output::table(&[
        ("training loss".to_owned(), output::figure(train_loss)),
        ("training time".to_owned(), seconds),
        (mse.to_owned(), output::figure(figures.mse)),
        (floor, output::figure(figures.pca_mse)),
        ("ratio".to_owned(), ratio),
        ("run folder".to_owned(), format!("{run} (open {run}/report.html)")),
        ("next".to_owned(), format!("cvae eval --run {run}")),
        (String::new(), format!("cvae encode --run {run} --data {} --out z.npy", trained.model.config().data.source)),
    ])
}
