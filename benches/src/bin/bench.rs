//! Measures cases on engines, prints tables or JSON lines, compares records, and writes the generated
//! documentation. `cargo xtask bench` and `cargo xtask report` start it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "results go to standard output")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use cvae_bench::case::Case;
use cvae_bench::peak::Peaks;
use cvae_bench::peers::{Program, environment, peers};
use cvae_bench::record::{Machine, Record, Session};
use cvae_bench::session::{Settings, measure};
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
    cases: Vec<Case>,
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
    let cases = cases(root, run)?;
    let programs = programs(root, run)?;
    let settings = Settings {
        threads: run.threads,
        rounds: run.rounds.unwrap_or(if run.quick { 3 } else { 5 }),
        seconds: if run.quick { 0.2 } else { 0.4 },
    };
    let mut peaks = Peaks::measure(run.threads);
    let mut records = vec![];
    for case in &cases {
        eprintln!("{case}");
        let mut measured = measure(case, &programs, settings)?;
        peaks = peaks.best(Peaks::measure(run.threads));
        for record in &mut measured {
            record.of_peak = record.per_second.map(|rate| rate * record.flops / (peaks.gflops * 1e9));
            if run.json {
                println!("{}", serde_json::to_string(record)?);
            }
        }
        if !run.json {
            let rows: Vec<&Record> = measured.iter().collect();
            println!("### {case}\n\n{}", table::case_table(&rows));
        }
        records.extend(measured);
    }
    for record in &mut records {
        record.of_peak = record.per_second.map(|rate| rate * record.flops / (peaks.gflops * 1e9));
    }
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

fn cases(root: &Path, run: &Run) -> Result<Vec<Case>> {
    if !run.cases.is_empty() {
        return Ok(run.cases.clone());
    }
    let path = root.join("benches/cases.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let groups: Cases = toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
    let names = match (run.quick, run.sweep) {
        (true, _) => groups.quick,
        (_, true) => groups.sweep,
        _ => groups.standard,
    };
    names.iter().map(|name| name.parse()).collect()
}

fn programs(root: &Path, run: &Run) -> Result<Vec<Program>> {
    let binary = std::env::current_exe()?.with_file_name("bench-engine");
    let mut own = vec![cvae_cpu::Level::best().id().to_string(), "candle-f32".to_owned()];
    if !run.backends.is_empty() {
        own.clone_from(&run.backends);
    }
    let mut programs = vec![];
    for id in own {
        let mut program = Program::own(&id, &binary);
        for failed in &run.failed {
            let Some((failed, reason)) = failed.split_once('=') else { bail!("`{failed}` is not ID=REASON") };
            if failed == id {
                program.missing = Some(reason.to_owned());
            }
        }
        programs.push(program);
    }
    let folder = root.join("benches/peers");
    let python = match (run.peers, &run.venv) {
        (_, Some(venv)) => Some(venv.join("bin/python")),
        (true, None) => Some(environment(&root.join("target/peers-venv"), &folder.join("requirements.txt"))?),
        (false, None) => None,
    };
    programs.extend(peers(&folder, python.as_deref()));
    Ok(programs)
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
