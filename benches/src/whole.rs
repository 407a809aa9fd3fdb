//! Cases that are not a step or a call: starting the program, its size, and the time to a given test error.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use cvae::BackendConfig;
use cvae::registry;
use cvae_core::{Entry, Initializer, Plan, Rows, State, epoch_order};
use cvae_data::{LoadOptions, Source};
use serde::Deserialize;
use serde_json::Value;

use crate::case::Case;
use crate::record::Record;
use crate::stats;

/// A case of a whole program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// `cvae info` on a run folder, from the start of the process to its end.
    Info,
    /// One row through `cvae reconstruct`, from the start of the process to its end; for a peer, its import and
    /// the same row.
    FirstReconstruct,
    /// Seconds of training until the test error of workload F first reaches the target.
    TimeToMse,
    /// Size of the program on disk.
    BinarySize,
}

impl Whole {
    /// Every case, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Info, Self::FirstReconstruct, Self::TimeToMse, Self::BinarySize];

    /// The name in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "start/info",
            Self::FirstReconstruct => "start/reconstruct",
            Self::TimeToMse => "F/time-to-mse",
            Self::BinarySize => "size/program",
        }
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Whole {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|case| case.name() == name).with_context(|| format!("unknown case `{name}`"))
    }
}

/// When training is good enough: the table `[time_to_mse]` of `cases.toml`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Goal {
    /// Test error, mean over all elements.
    pub target: f64,
    /// Rows of a training step.
    pub batch: usize,
    /// Epochs after which an engine is given up.
    pub epochs: u32,
}

/// What the cases run.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The program `cvae`.
    pub program: PathBuf,
    /// Folder of the peers' scripts.
    pub scripts: &'a Path,
    /// Python of the peers' environment; none if peers are not asked for.
    pub python: Option<PathBuf>,
    /// Our backends to train with, and the reason why one may not be timed.
    pub backends: Vec<(String, Option<String>)>,
    /// The goal of training.
    pub goal: Goal,
    /// Threads of every engine.
    pub threads: usize,
    /// Starts of a process, interleaved with those of the others.
    pub starts: usize,
}

/// Measures one case on every engine that offers it.
///
/// # Errors
/// A temporary folder that cannot be made. An engine that fails is a record with a reason.
pub fn measure(case: Whole, setup: &Setup<'_>) -> Result<Vec<Record>> {
    let mut records = match case {
        Whole::Info | Whole::FirstReconstruct => starts(case, setup)?,
        Whole::TimeToMse => times_to_mse(setup),
        Whole::BinarySize => vec![record("cvae", size(&setup.program))],
    };
    let best = records.iter().filter(|record| record.peer).filter_map(|record| record.median_us);
    let best = best.min_by(f64::total_cmp);
    for record in &mut records {
        record.case = case.to_string();
        record.threads = setup.threads;
        record.ratio_to_best_peer = best.zip(record.median_us).map(|(peer, own)| peer / own);
    }
    Ok(records)
}

/// A record of `engine`: the figures, or why there are none.
fn record(engine: &str, result: Result<Record>) -> Record {
    let reason = |error: anyhow::Error| Record { reason: Some(format!("{error:#}")), ..Record::default() };
    Record { engine: engine.to_owned(), ..result.unwrap_or_else(reason) }
}

fn timed(micros: Vec<f64>) -> Record {
    let median = stats::median(&micros);
    Record { median_us: Some(median), spread: Some(stats::spread(&micros)), rounds_us: micros, ..Record::default() }
}

fn size(program: &Path) -> Result<Record> {
    let bytes = std::fs::metadata(program).with_context(|| format!("cannot look at {}", program.display()))?.len();
    Ok(Record { size_mib: Some(bytes as f64 / f64::from(1 << 20)), ..Record::default() })
}

/// Runs the processes of a case in turn.
fn starts(case: Whole, setup: &Setup<'_>) -> Result<Vec<Record>> {
    let folder = std::env::temp_dir().join(format!("cvae-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let records = starts_in(case, setup, &folder);
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(records)
}

fn starts_in(case: Whole, setup: &Setup<'_>, folder: &Path) -> Vec<Record> {
    let (run, row, out) = (folder.join("run"), folder.join("row.npy"), folder.join("out.npy"));
    if let Err(error) = prepare(setup, &run, &row) {
        return vec![record("cvae", Err(error))];
    }
    let mut own = Command::new(&setup.program);
    match case {
        Whole::Info => own.arg("info").arg("--run").arg(&run),
        _ => own.arg("reconstruct").arg("--run").arg(&run).arg("--data").arg(&row).arg("--out").arg(&out),
    };
    let mut engines = vec![("cvae".to_owned(), false, own, vec![], None)];
    if case == Whole::FirstReconstruct {
        for peer in ["torch-eager", "jax", "onnxruntime"] {
            let mut command = Command::new(setup.python.as_deref().unwrap_or(Path::new("python3")));
            command.arg(setup.scripts.join("first_row.py")).args(["--engine", peer]);
            let missing = setup.python.is_none().then(|| "not asked for: run with --peers".to_owned());
            engines.push((peer.to_owned(), true, command, vec![], missing));
        }
    }
    for _ in 0..setup.starts {
        for (name, _, command, micros, failure) in engines.iter_mut().filter(|engine| engine.4.is_none()) {
            match start(name, command) {
                Ok(time) => micros.push(time),
                Err(error) => *failure = Some(format!("{error:#}")),
            }
        }
    }
    let finish = |(name, peer, _, micros, reason): (String, bool, Command, Vec<f64>, Option<String>)| {
        let result = match reason {
            Some(reason) => Record { reason: Some(reason), ..Record::default() },
            None => timed(micros),
        };
        Record { engine: name, peer, ..result }
    };
    engines.into_iter().map(finish).collect()
}

/// A run folder of the digits and a file of one row.
fn prepare(setup: &Setup<'_>, run: &Path, row: &Path) -> Result<()> {
    let mut train = Command::new(&setup.program);
    train.args(["train", "digits", "--epochs", "1", "--backend", "cpu", "--force", "--out"]).arg(run);
    start("cvae train", &mut train)?;
    Ok(cvae_data::write_array(row, 64, &[0.5; 64], "x")?)
}

/// Microseconds of a process.
fn start(name: &str, command: &mut Command) -> Result<f64> {
    let begin = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    let micros = begin.elapsed().as_secs_f64() * 1e6;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}", message.trim().lines().last().unwrap_or("failed"));
    Ok(micros)
}

fn times_to_mse(setup: &Setup<'_>) -> Vec<Record> {
    let own = setup.backends.iter().map(|(id, failed)| match failed {
        Some(reason) => record(id, Err(anyhow::anyhow!("{reason}"))),
        None => record(id, time_to_mse(id, setup)),
    });
    let mut records: Vec<Record> = own.collect();
    let peer = match &setup.python {
        None => Err(anyhow::anyhow!("not asked for: run with --peers")),
        Some(python) => torch_time_to_mse(python, setup),
    };
    records.push(Record { peer: true, ..record("torch-eager", peer) });
    records
}

/// Trains workload F from PyTorch's kind of initial weights until an epoch ends at the target.
fn time_to_mse(id: &str, setup: &Setup<'_>) -> Result<Record> {
    let load = |part: &str| part.parse::<Source>()?.load(&LoadOptions::default());
    let (train, test) = (load("fashion-mnist:train")?, load("fashion-mnist:test")?);
    let goal = setup.goal;
    let plan = format!("F/train/{}", goal.batch).parse::<Case>()?.plan()?;
    let config = BackendConfig { name: id.to_owned(), threads: Some(setup.threads), ..BackendConfig::default() };
    let mut executable = registry::select(&config)?.backend.compile(Arc::clone(&plan))?;
    executable.write(State::Params, &plan.params.initial(Initializer::Torch, 1))?;
    let (rows, test) = (train.to_f32(), test.to_f32());
    let data = executable.upload(Rows::F32 { values: &rows, width: train.width() })?;
    let (mut order, mut out) = (vec![0; train.rows()], vec![0.0; test.len()]);
    let mut seconds = 0.0;
    for epoch in 0..goal.epochs {
        let begin = Instant::now();
        epoch_order(1, epoch, &mut order);
        executable.train_epoch(data, &order, goal.batch, epoch)?;
        executable.synchronize()?;
        seconds += begin.elapsed().as_secs_f64();
        if test_mse(&plan, &mut *executable, &test, &mut out)? <= goal.target {
            return Ok(reached(seconds, epoch + 1));
        }
    }
    bail!("the test error is above {} after {} epochs", goal.target, goal.epochs)
}

fn reached(seconds: f64, epochs: u32) -> Record {
    Record { settings: vec![format!("{epochs} epochs")], ..timed(vec![seconds * 1e6]) }
}

fn test_mse(plan: &Plan, executable: &mut dyn cvae_core::Executable, test: &[f32], out: &mut [f32]) -> Result<f64> {
    let chunk = plan.max_rows * plan.spec.input.size();
    for (rows, out) in test.chunks(chunk).zip(out.chunks_mut(chunk)) {
        executable.infer(Entry::Reconstruct, rows, out)?;
    }
    let squares: f64 = test.iter().zip(&*out).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    Ok(squares / test.len() as f64)
}

/// The same in plain PyTorch, from the history that its quality script prints.
fn torch_time_to_mse(python: &Path, setup: &Setup<'_>) -> Result<Record> {
    let goal = setup.goal;
    let mut command = Command::new(python);
    command.arg(setup.scripts.join("torch_quality.py")).args(["--objective", "collapsed"]);
    command.args(["--epochs", &goal.epochs.to_string(), "--batch-size", &goal.batch.to_string()]);
    command.args(["--threads", &setup.threads.to_string(), "--until", &goal.target.to_string()]);
    let output = command.stdin(Stdio::null()).output().context("cannot start python")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", message.trim().lines().last().unwrap_or("failed"));
    let answer: Value = serde_json::from_slice(&output.stdout).context("torch_quality.py printed no record")?;
    let last = answer["history"].as_array().and_then(|history| history.last()).context("no epoch was run")?;
    let (Some(mse), Some(seconds), Some(epoch)) =
        (last["test_mse"].as_f64(), last["seconds"].as_f64(), last["epoch"].as_u64())
    else {
        bail!("torch_quality.py printed no test error");
    };
    ensure!(mse <= goal.target, "the test error is above {} after {} epochs", goal.target, goal.epochs);
    Ok(Record { version: answer["version"].as_str().unwrap_or_default().to_owned(), ..reached(seconds, epoch as u32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for case in Whole::ALL {
            assert_eq!(case.name().parse::<Whole>().unwrap(), case);
        }
        assert!("start/nothing".parse::<Whole>().unwrap_err().to_string().contains("start/nothing"));
    }

    #[test]
    fn a_failing_process_is_a_reason() {
        let setup = Setup {
            program: PathBuf::from("/nonexistent/cvae"),
            scripts: Path::new("."),
            python: None,
            backends: vec![],
            goal: Goal { target: 0.0, batch: 1, epochs: 1 },
            threads: 1,
            starts: 1,
        };
        for case in [Whole::Info, Whole::BinarySize] {
            let records = measure(case, &setup).unwrap();
            assert_eq!(records[0].case, case.name());
            assert!(records[0].reason.as_ref().unwrap().contains("cvae"), "{records:?}");
        }
        let records = measure(Whole::TimeToMse, &setup).unwrap();
        assert!(records[0].reason.as_ref().unwrap().contains("--peers"), "{records:?}");
    }
}
