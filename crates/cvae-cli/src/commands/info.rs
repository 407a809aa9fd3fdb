//! `cvae info`: what a run folder holds.

use anyhow::{Result, bail};
use cvae::checkpoint::TrainingState;
use cvae::{Config, RunFolder};
use serde::Serialize;

use crate::args::InfoArgs;
use crate::output;
use crate::report::settings;

/// What is known about a run.
#[derive(Serialize)]
struct Info {
    run: String,
    width: usize,
    latent: usize,
    parameters: usize,
    epochs: Option<u32>,
    steps: Option<u64>,
    backend: Option<String>,
    train_loss: Option<f64>,
    config: Config,
}

/// Reads and verifies the files of a run and shows what they say.
///
/// # Errors
/// A file of the run that cannot be used.
pub(crate) fn run(args: &InfoArgs) -> Result<()> {
    #[cfg(feature = "cpu")]
    if args.run.is_file() {
        return frozen(args);
    }
    if !args.run.is_dir() {
        bail!("{}: there is no such run folder", args.run.display());
    }
    let folder = RunFolder::new(&args.run);
    let config = folder.config()?;
    let model = folder.read_model()?;
    let training = match folder.file(RunFolder::STATE).exists() {
        true => folder.read_state()?.training,
        false => None,
    };
    let info = Info {
        run: args.run.display().to_string(),
        width: model.plan.spec.width(),
        latent: model.plan.spec.latent(),
        parameters: model.params.len(),
        epochs: training.as_ref().map(TrainingState::epoch),
        steps: training.as_ref().map(|training| training.step),
        backend: training.as_ref().map(|training| training.backend.clone()),
        train_loss: training.as_ref().and_then(|training| training.history.last()).map(|record| record.loss),
        config,
    };
    if args.json {
        return output::json(&info);
    }
    let mut rows = vec![("run".to_owned(), info.run.clone()), ("parameters".to_owned(), info.parameters.to_string())];
    rows.extend(settings(&info.config));
    if let (Some(epochs), Some(steps), Some(backend)) = (info.epochs, info.steps, &info.backend) {
        rows.push((
            "trained".to_owned(),
            format!("{epochs} of {} epochs, {steps} steps, on {backend}", info.config.epochs),
        ));
    }
    if let Some(loss) = info.train_loss {
        rows.push(("training loss".to_owned(), output::figure(loss)));
    }
    output::table(&rows)
}

/// What is known about a frozen model.
#[cfg(feature = "cpu")]
#[derive(Serialize)]
struct Frozen {
    file: String,
    precision: &'static str,
    width: usize,
    latent: usize,
    layers: usize,
    config: Config,
}

/// Reads and verifies a frozen model and shows what it says.
#[cfg(feature = "cpu")]
fn frozen(args: &InfoArgs) -> Result<()> {
    let frozen = cvae::FrozenAutoencoder::read(&args.run)?;
    let model = frozen.model();
    let info = Frozen {
        file: args.run.display().to_string(),
        precision: model.precision().name(),
        width: model.width(),
        latent: model.latent(),
        layers: model.layers().count(),
        config: frozen.config().clone(),
    };
    if args.json {
        return output::json(&info);
    }
    let mut rows = vec![("frozen model".to_owned(), info.file), ("precision".to_owned(), info.precision.to_owned())];
    rows.extend(settings(&info.config));
    output::table(&rows)
}
