//! `cargo xtask quality`: what the objectives give on Fashion-MNIST, as one table.
//!
//! The figures are those that the `cvae` program itself prints. Every finished run stays in its folder with its
//! figures beside it, so that an interrupted call goes on where it stopped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::Command;
use crate::workspace::Workspace;

mod page;

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
    /// Train nothing: write the page from the runs that are finished.
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
/// The density fitted to the codes of every run.
const DENSITY: &str = "gmm:10";
/// File with what `cvae train --json` printed, in the folder of a run.
const TRAINED: &str = "quality-train.json";
/// File with what `cvae eval --json` printed, in the folder of a run.
const EVALUATED: &str = "quality-eval.json";

/// Trains and measures what is missing, then writes `docs/QUALITY.md`.
///
/// # Errors
/// A build that fails, an unknown objective, or a page that cannot be written. An objective that cannot be trained
/// is reported and left out.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    if let Some(unknown) = arguments.objective.iter().find(|name| !OBJECTIVES.contains(&name.as_str())) {
        bail!("unknown objective `{unknown}`; known: {}", OBJECTIVES.join(", "));
    }
    let folder = workspace.root().join(&arguments.runs);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let chosen = |name: &str| arguments.objective.is_empty() || arguments.objective.iter().any(|given| given == name);
    if !arguments.report {
        workspace.cargo().args(["build", "--quiet", "--release", "--locked", "--package", "cvae-cli"]).run()?;
        let program = program(workspace)?;
        for seed in 0..arguments.seeds {
            for name in OBJECTIVES.into_iter().filter(|name| chosen(name)) {
                let run = folder.join(format!("{name}-{seed}"));
                if let Err(error) = finish(&program, &run, name, seed, arguments.threads) {
                    eprintln!("left out: {name}, seed {seed}: {error:#}");
                }
            }
        }
        for example in page::EXAMPLES {
            if let Err(error) = example_figures(workspace, &folder, example) {
                eprintln!("left out: {example}: {error:#}");
            }
        }
        if let Some(peers) = &arguments.pythae {
            distances(&program, &folder, peers)?;
        }
    }
    let mut runs = vec![];
    for name in OBJECTIVES {
        let seeds = (0..arguments.seeds).filter_map(|seed| read(&folder.join(format!("{name}-{seed}"))).transpose());
        let figures: Vec<(Value, Value)> = seeds.collect::<Result<_>>()?;
        runs.push((name, figures));
    }
    let others: Vec<(String, Value)> = page::EXAMPLES
        .iter()
        .chain([&page::PEERS])
        .filter_map(|name| Some(((*name).to_owned(), stored(&folder.join(format!("{name}.json"))).transpose()?)))
        .map(|(name, value)| Ok((name, value?)))
        .collect::<Result<_>>()?;
    let path = workspace.root().join("docs/QUALITY.md");
    fs::write(&path, page::compose(&runs, &others)).with_context(|| format!("writing {}", path.display()))?;
    println!("docs/QUALITY.md: {} runs", runs.iter().map(|run| run.1.len()).sum::<usize>());
    Ok(())
}

/// Where cargo put the release build of `cvae`.
fn program(workspace: &Workspace) -> Result<PathBuf> {
    let metadata = workspace.cargo().args(["metadata", "--format-version", "1", "--no-deps", "--locked"]).output()?;
    let metadata: Value = serde_json::from_str(&metadata).context("reading the output of `cargo metadata`")?;
    let target = metadata["target_directory"].as_str().context("`cargo metadata` names no target folder")?;
    Ok(Path::new(target).join("release").join(format!("cvae{}", std::env::consts::EXE_SUFFIX)))
}

/// Brings a run to its end: training, the density, the figures; whatever is there already is kept.
fn finish(program: &Path, run: &Path, objective: &str, seed: u64, threads: Option<usize>) -> Result<()> {
    let path = run.display().to_string();
    let threads: Vec<String> = threads.map(|count| vec!["--threads".to_owned(), count.to_string()]).unwrap_or_default();
    if stored(&run.join(TRAINED))?.is_none() {
        let seed = seed.to_string();
        // A run that was interrupted goes on.
        let resume: &[&str] = if run.join("state.safetensors").exists() { &["--resume"] } else { &[] };
        let command = Command::new(program).args(["train"]).args(TRAINING).args(["--objective", objective]);
        let command = command.args(["--seed", &seed, "--out", &path, "--json"]).args(resume).args(&threads);
        keep(&run.join(TRAINED), &command.output()?)?;
    }
    if stored(&run.join(EVALUATED))?.is_none() {
        let samples = tempfile::Builder::new().suffix(".npy").tempfile()?;
        let sample = Command::new(program).args(["sample", "--run", &path, "-n", "1", "--density", DENSITY, "--out"]);
        sample.args([samples.path()]).args(&threads).output()?;
        let command = Command::new(program).args(["eval", "--run", &path, "--json"]).args(&threads);
        keep(&run.join(EVALUATED), &command.output()?)?;
    }
    Ok(())
}

/// Runs an example of the library that prints one JSON object, unless its figures are there.
fn example_figures(workspace: &Workspace, folder: &Path, example: &str) -> Result<()> {
    let path = folder.join(format!("{example}.json"));
    if stored(&path)?.is_some() {
        return Ok(());
    }
    let words = ["run", "--quiet", "--release", "--locked", "--package", "cvae", "--example", example, "--", "--json"];
    keep(&path, &workspace.cargo().args(words).output()?)
}

/// Measures the arrays of a peer in the same features.
fn distances(program: &Path, folder: &Path, peers: &Path) -> Result<()> {
    let mut arrays: Vec<PathBuf> = vec![];
    for entry in fs::read_dir(peers).with_context(|| format!("reading {}", peers.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "npy") {
            arrays.push(path);
        }
    }
    arrays.sort();
    let command = Command::new(program).args(["distance", "--reference", "fashion-mnist:test", "--json"]);
    keep(&folder.join(format!("{}.json", page::PEERS)), &command.args(&arrays).output()?)
}

/// Writes the last line of a program's output, which must be JSON.
fn keep(path: &Path, output: &str) -> Result<()> {
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(line).with_context(|| format!("`{line}` is not JSON"))?;
    fs::write(path, line).with_context(|| format!("writing {}", path.display()))
}

/// The JSON in a file; none when there is no such file.
fn stored(path: &Path) -> Result<Option<Value>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// What training and evaluation of a run printed; none when it is not finished.
fn read(run: &Path) -> Result<Option<(Value, Value)>> {
    Ok(stored(&run.join(TRAINED))?.zip(stored(&run.join(EVALUATED))?))
}
