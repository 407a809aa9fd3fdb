//! Measures cases on engines, prints tables or JSON lines, compares records, and writes the generated
//! documentation. `cargo xtask bench` and `cargo xtask report` start it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "results go to standard output")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use cvae_bench::case::Case;
use cvae_bench::engine::FROZEN;
use cvae_bench::peak::Peaks;
use cvae_bench::peers::{Program, environment, peers};
use cvae_bench::record::{Machine, Record, Session};
use cvae_bench::session::{Settings, measure};
use cvae_bench::whole::{self, Goal, Setup, Whole};
use cvae_bench::{compare, report, table};
use serde::Deserialize;

#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Root of the workspace.
    #[arg(long)]
    root: PathBuf,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measure.
    Run(Run),
    /// Ratios of two record files.
    Compare {
        /// First record file.
        a: PathBuf,
        /// Second record file.
        b: PathBuf,
    },
    /// Write the generated documentation from the newest record file.
    Report {
        /// Only check that it is up to date.
        #[arg(long)]
        check: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Only this case (may be given more than once).
    #[arg(long = "case", value_name = "WORKLOAD/MODE/BATCH")]
    cases: Vec<Selected>,
    /// Only this backend of ours (may be given more than once).
    #[arg(long = "backend", value_name = "ID")]
    backends: Vec<String>,
    /// One case of each kind, short rounds.
    #[arg(long)]
    quick: bool,
    /// Widths by batches instead of the standard cases.
    #[arg(long)]
    sweep: bool,
    /// Measure the Python peers too, in an environment made under `target/`.
    #[arg(long)]
    peers: bool,
    /// An existing environment of the peers.
    #[arg(long, value_name = "FOLDER")]
    venv: Option<PathBuf>,
    /// Measure where the time of our own engines goes, kernel by kernel, on the cases of the roofline table.
    #[arg(long)]
    profile: bool,
    /// Print one JSON record a line instead of tables.
    #[arg(long)]
    json: bool,
    /// Interleaved rounds.
    #[arg(long)]
    rounds: Option<usize>,
    /// Threads of every engine.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Keep the records as `benches/records/NAME.jsonl`.
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// A backend whose conformance failed, and why, as ID=REASON.
    #[arg(long, value_name = "ID=REASON")]
    failed: Vec<String>,
}

/// `cases.toml`.
#[derive(Debug, Deserialize)]
struct Cases {
    standard: Vec<String>,
    quick: Vec<String>,
    sweep: Vec<String>,
    roofline: Vec<String>,
    whole: Vec<String>,
    time_to_mse: Goal,
}

/// A case to measure.
#[derive(Clone, Debug)]
enum Selected {
    Step(Case),
    Whole(Whole),
}

impl FromStr for Selected {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        if Whole::ALL.iter().any(|case| case.name() == name) {
            return name.parse().map(Self::Whole);
        }
        name.parse().map(Self::Step)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.task {
        Task::Run(run) => measure_all(&arguments.root, run),
        Task::Compare { a, b } => compare_files(a, b),
        Task::Report { check } => report::generate(&arguments.root, *check),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare_files(a: &Path, b: &Path) -> Result<()> {
    print!("{}", compare::compare(&Session::read(a)?, &Session::read(b)?));
    Ok(())
}

fn measure_all(root: &Path, run: &Run) -> Result<()> {
    let groups = groups(root)?;
    let cases = cases(&groups, run)?;
    let scripts = root.join("benches/peers");
    let python = python(root, &scripts, run)?;
    let backends = backends(run)?;
    let programs = programs(&backends, &scripts, python.as_deref())?;
    let settings = Settings {
        threads: run.threads,
        rounds: run.rounds.unwrap_or(if run.quick { 3 } else { 5 }),
        // Beside peers, whose steps are longer and start more slowly, rounds are longer too.
        seconds: if run.peers || run.venv.is_some() { 0.4 } else { 0.2 },
        profile: run.profile,
    };
    let own = backends.iter().filter(|(id, _)| id.starts_with("cpu-") && !id.ends_with(FROZEN)).cloned().collect();
    let setup = Setup {
        program: std::env::current_exe()?.with_file_name(format!("cvae{}", std::env::consts::EXE_SUFFIX)),
        scripts: &scripts,
        python: python.clone(),
        backends: own,
        goal: groups.time_to_mse,
        threads: run.threads,
        starts: 20,
    };
    let mut peaks = Peaks::measure(run.threads);
    let mut records = vec![];
    for case in &cases {
        let mut measured = match case {
            Selected::Step(case) => {
                eprintln!("{case}");
                let mut measured = measure(case, &programs, settings)?;
                peaks = peaks.best(Peaks::measure(run.threads));
                of_peak(&mut measured, peaks);
                measured
            }
            Selected::Whole(case) => {
                eprintln!("{case}");
                whole::measure(*case, &setup)?
            }
        };
        if run.json {
            for record in &measured {
                println!("{}", serde_json::to_string(record)?);
            }
        } else if let Some(case) = measured.first().map(|record| record.case.clone()) {
            println!("### {case}\n\n{}", table::case_table(&measured.iter().collect::<Vec<_>>()));
            if run.profile {
                println!("{}", table::roofline(&measured, peaks));
            }
        }
        records.append(&mut measured);
    }
    of_peak(&mut records, peaks);
    let machine = machine(root, peaks)?;
    if !run.json {
        println!("{}.", table::machine_line(&machine));
    }
    if let Some(name) = &run.save {
        let folder = root.join("benches/records");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Session { machine, records }.write(&folder.join(format!("{name}.jsonl")))?;
    }
    Ok(())
}

/// Fills in the fraction of the session's multiply-add peak of the records that count arithmetic.
fn of_peak(records: &mut [Record], peaks: Peaks) {
    for record in records.iter_mut().filter(|record| record.flops > 0.0) {
        record.of_peak = record.per_second.map(|rate| rate * record.flops / (peaks.gflops * 1e9));
    }
}

fn groups(root: &Path) -> Result<Cases> {
    let path = root.join("benches/cases.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
}

fn cases(groups: &Cases, run: &Run) -> Result<Vec<Selected>> {
    if !run.cases.is_empty() {
        return Ok(run.cases.clone());
    }
    let names: Vec<&String> = match (run.quick, run.sweep, run.profile) {
        (true, ..) => groups.quick.iter().collect(),
        (_, true, _) => groups.sweep.iter().collect(),
        (.., true) => groups.roofline.iter().collect(),
        _ => groups.standard.iter().chain(&groups.whole).collect(),
    };
    names.into_iter().map(|name| name.parse()).collect()
}

/// Python of the peers' environment, if peers are asked for.
fn python(root: &Path, scripts: &Path, run: &Run) -> Result<Option<PathBuf>> {
    Ok(match (run.peers, &run.venv) {
        (_, Some(venv)) => Some(venv.join("bin/python")),
        (true, None) => Some(environment(&root.join("target/peers-venv"), &scripts.join("requirements.txt"))?),
        (false, None) => None,
    })
}

/// Our backends to measure, each with the reason why it may not be timed, if there is one.
fn backends(run: &Run) -> Result<Vec<(String, Option<String>)>> {
    let mut failed = BTreeMap::new();
    for words in &run.failed {
        let Some((id, reason)) = words.split_once('=') else { bail!("`{words}` is not ID=REASON") };
        failed.insert(id, reason);
    }
    let mut ids = run.backends.clone();
    if ids.is_empty() {
        let best = cvae_cpu::Level::best();
        ids = vec![best.to_string(), format!("{best}{FROZEN}"), "candle-f32".to_owned()];
        for rounding in [cvae_cpu::Level::Avx512Bf16, cvae_cpu::Level::AmxBf16] {
            if rounding.available() {
                ids.extend([rounding.to_string(), format!("{rounding}{FROZEN}")]);
            }
        }
    }
    let reason = |id: &String| failed.get(id.trim_end_matches(FROZEN)).map(|reason| (*reason).to_owned());
    Ok(ids.into_iter().map(|id| (id.clone(), reason(&id))).collect())
}

fn programs(backends: &[(String, Option<String>)], scripts: &Path, python: Option<&Path>) -> Result<Vec<Program>> {
    let binary = std::env::current_exe()?.with_file_name("bench-engine");
    let own = backends.iter().map(|(id, reason)| Program::own(id, &binary, reason.clone()));
    Ok(own.chain(peers(scripts, python)).collect())
}

fn machine(root: &Path, peaks: Peaks) -> Result<Machine> {
    let git = |words: &[&str]| -> Result<String> {
        let output = Command::new("git").arg("-C").arg(root).args(words).output().context("cannot start git")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let date = Command::new("date").arg("+%Y-%m-%d").output().context("cannot start date")?;
    Ok(Machine {
        cpu: cpu_name(),
        features: cvae_cpu::Level::ALL.into_iter().filter(|level| level.available()).map(|l| l.to_string()).collect(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        peaks,
        commit: git(&["rev-parse", "--short", "HEAD"])?,
        modified: !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty(),
        date: String::from_utf8_lossy(&date.stdout).trim().to_owned(),
    })
}

/// The processor's name, where the system tells.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
