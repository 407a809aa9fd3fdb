//! `cargo xtask quality`: what the objectives give on Fashion-MNIST, as one table.
//!
//! The figures are those that the `cvae` program itself prints. What is finished is recorded in `docs/quality.jsonl`,
//! which is committed, and is not trained again: an interrupted call goes on where it stopped, and the page can be
//! written anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command::Command;
use crate::workspace::Workspace;

mod page;
mod records;

use records::Records;

/// Arguments of the task.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the runs, kept between calls.
    #[arg(long, value_name = "DIR", default_value = "target/quality")]
    runs: PathBuf,
    /// Seeds from 0 on.
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// Only these objectives; repeatable.
    #[arg(long, value_name = "NAME")]
    objective: Vec<String>,
    /// Worker threads of training [default: one for each core].
    #[arg(long, value_name = "T")]
    threads: Option<usize>,
    /// Folder with the arrays that `benches/peers/pythae_rae.py --out` saved.
    #[arg(long, value_name = "DIR")]
    pythae: Option<PathBuf>,
    /// Train the chosen objectives again, although they are recorded: for defaults that have changed.
    #[arg(long)]
    again: bool,
    /// Measure the examples of the library again, although they are recorded.
    #[arg(long)]
    examples_again: bool,
    /// Train nothing: write the page from what is recorded.
    #[arg(long)]
    report: bool,
}

/// Objectives in the order of their rows, the most asked for first.
const OBJECTIVES: [&str; 16] = [
    "collapsed",
    "ae",
    "vae",
    "rae-gp",
    "rae-sn",
    "denoising",
    "wae-mmd",
    "sparse",
    "contractive",
    "beta-vae",
    "sigma-vae",
    "free-bits",
    "capacity",
    "top-k",
    "masked",
    "irmae",
];
/// What every run is trained with; the rest are the defaults of `cvae train`.
const TRAINING: [&str; 5] = ["fashion-mnist", "--layers", "784-512-256-32", "--epochs", "20"];
/// The densities fitted to the codes of every run.
const DENSITIES: [&str; 2] = ["gmm:10", "gmm:auto"];
/// File of what is finished.
const RECORDS: &str = "docs/quality.jsonl";

/// Trains and measures what is missing, then writes `docs/QUALITY.md`.
///
/// # Errors
/// A build that fails, an unknown objective, or a page that cannot be written. An objective that cannot be trained
/// is reported and left out.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    if let Some(unknown) = arguments.objective.iter().find(|name| !OBJECTIVES.contains(&name.as_str())) {
        bail!("unknown objective `{unknown}`; known: {}", OBJECTIVES.join(", "));
    }
    let chosen = |name: &str| arguments.objective.is_empty() || arguments.objective.iter().any(|given| given == name);
    let mut records = Records::open(&workspace.root().join(RECORDS))?;
    if !arguments.report {
        let folder = workspace.root().join(&arguments.runs);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        workspace.cargo().args(["build", "--quiet", "--release", "--locked", "--package", "cvae-cli"]).run()?;
        let trainer = Trainer { program: program(workspace)?, commit: commit(workspace)?, threads: arguments.threads };
        let wanted: Vec<(&str, u64, PathBuf)> = (0..arguments.seeds)
            .flat_map(|seed| OBJECTIVES.into_iter().map(move |name| (name, seed)))
            .filter(|(name, _)| chosen(name))
            .map(|(name, seed)| (name, seed, folder.join(format!("{name}-{seed}"))))
            .collect();
        if arguments.again {
            let again = |line: &Value| wanted.iter().any(|(name, seed, _)| is_run(line, name, *seed));
            records.remove(again)?;
            for (_, _, run) in wanted.iter().filter(|(_, _, run)| run.exists()) {
                fs::remove_dir_all(run).with_context(|| format!("removing {}", run.display()))?;
            }
        }
        for (name, seed, run) in wanted {
            records.reload()?;
            if records.run(name, seed).is_some_and(|line| records::has_densities(line, &DENSITIES)) {
                continue;
            }
            match trainer.finish(&run, name, seed) {
                Ok(line) => records.add(line)?,
                Err(error) => eprintln!("left out: {name}, seed {seed}: {error:#}"),
            }
        }
        for example in page::EXAMPLES {
            records.reload()?;
            if records.figures(example).is_some() && !arguments.examples_again {
                continue;
            }
            match example_figures(workspace, example) {
                Ok(figures) => records.add(trainer.figures(example, &figures))?,
                Err(error) => eprintln!("left out: {example}: {error:#}"),
            }
        }
        if let Some(peers) = &arguments.pythae {
            let figures = trainer.distances(peers)?;
            records.add(trainer.figures(page::PEERS, &figures))?;
        }
    }
    records.reload()?;
    let runs: Vec<(&str, Vec<Value>)> =
        OBJECTIVES.iter().map(|name| Ok((*name, records.runs(name, arguments.seeds)?))).collect::<Result<_>>()?;
    let path = workspace.root().join("docs/QUALITY.md");
    let page = page::compose(&runs, |name| records.figures(name));
    fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
    println!("docs/QUALITY.md: {} runs", runs.iter().map(|run| run.1.len()).sum::<usize>());
    Ok(())
}

/// Whether a recorded line is that of this run.
fn is_run(line: &Value, objective: &str, seed: u64) -> bool {
    line["objective"] == objective && line["seed"] == seed
}

/// The commit that figures are measured at, with a plus sign where files differ from it.
fn commit(workspace: &Workspace) -> Result<String> {
    let git = |words: &[&str]| Command::new("git").folder(workspace.root()).args(words).output();
    let modified = !git(&["status", "--porcelain", "--untracked-files=no", "--", "crates", "Cargo.lock"])?.is_empty();
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    Ok(format!("{}{}", commit.trim(), if modified { "+" } else { "" }))
}

/// Where cargo put the release build of `cvae`.
fn program(workspace: &Workspace) -> Result<PathBuf> {
    let metadata = workspace.cargo().args(["metadata", "--format-version", "1", "--no-deps", "--locked"]).output()?;
    let metadata: Value = serde_json::from_str(&metadata).context("reading the output of `cargo metadata`")?;
    let target = metadata["target_directory"].as_str().context("`cargo metadata` names no target folder")?;
    Ok(Path::new(target).join("release").join(format!("cvae{}", std::env::consts::EXE_SUFFIX)))
}

/// The program that trains and measures.
#[derive(Debug)]
struct Trainer {
    program: PathBuf,
    commit: String,
    threads: Option<usize>,
}

impl Trainer {
    /// Brings a run to its end: training, the density, the figures. A run that was interrupted goes on.
    fn finish(&self, run: &Path, objective: &str, seed: u64) -> Result<Value> {
        let path = run.display().to_string();
        let threads: Vec<String> =
            self.threads.map(|count| vec!["--threads".to_owned(), count.to_string()]).unwrap_or_default();
        let number = seed.to_string();
        let resume: &[&str] = if run.join("state.safetensors").exists() { &["--resume"] } else { &[] };
        let command = Command::new(&self.program).args(["train"]).args(TRAINING).args(["--objective", objective]);
        let command = command.args(["--seed", &number, "--out", &path, "--json"]).args(resume).args(&threads);
        let trained = last_line(&command.output()?)?;

        let samples = tempfile::Builder::new().suffix(".npy").tempfile()?;
        for density in DENSITIES {
            let sample =
                Command::new(&self.program).args(["sample", "--run", &path, "-n", "1", "--density", density, "--out"]);
            sample.args([samples.path()]).args(&threads).output()?;
        }
        let command = Command::new(&self.program).args(["eval", "--run", &path, "--json"]).args(&threads);
        let evaluated = last_line(&command.output()?)?;

        let config = run.join("config.toml");
        let config = fs::read_to_string(&config).with_context(|| format!("reading {}", config.display()))?;
        let about = (self.commit.as_str(), records::settings(&config)?);
        Ok(records::run_line((objective, seed), about, (&trained, &evaluated)))
    }

    /// Measures the arrays of a peer in the same features.
    fn distances(&self, peers: &Path) -> Result<Value> {
        let mut arrays: Vec<PathBuf> = vec![];
        for entry in fs::read_dir(peers).with_context(|| format!("reading {}", peers.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "npy") {
                arrays.push(path);
            }
        }
        arrays.sort();
        let command = Command::new(&self.program).args(["distance", "--reference", "fashion-mnist:test", "--json"]);
        last_line(&command.args(&arrays).output()?)
    }

    /// The line of an example or a peer.
    fn figures(&self, name: &str, figures: &Value) -> Value {
        json!({ "name": name, "commit": self.commit, "figures": figures })
    }
}

/// Runs an example of the library that prints one JSON object.
fn example_figures(workspace: &Workspace, example: &str) -> Result<Value> {
    let words = ["run", "--quiet", "--release", "--locked", "--package", "cvae", "--example", example, "--", "--json"];
    last_line(&workspace.cargo().args(words).output()?)
}

/// The last line of a program's output, which must be JSON.
fn last_line(output: &str) -> Result<Value> {
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("`{line}` is not JSON"))
}
