//! Runs the suite on the backends this program was built with, and prints the matrix.
//!
//! `cargo xtask conformance` builds and starts it; the features `cpu`, `candle` and `cuda` choose its backends.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::Parser;
use cvae_conformance::{Catch, Counts, Report, Subject, Tolerances};
use cvae_reference::ReferenceBackend;

/// Threads of the backends that have a choice.
#[cfg(feature = "cpu")]
const THREADS: usize = 2;

/// The conformance suite of the cvae backends.
#[derive(Debug, Parser)]
#[command(name = "conformance")]
struct Arguments {
    /// Only this backend (may be given more than once).
    #[arg(long = "backend", value_name = "ID")]
    backends: Vec<String>,
    /// Only the checks whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
    /// Fail if this backend cannot be tested here (may be given more than once).
    #[arg(long, value_name = "ID")]
    require: Vec<String>,
    /// Record the errors found as the new tolerances.
    #[arg(long, conflicts_with_all = ["filter", "self_test"])]
    bless: bool,
    /// Check that the suite catches every planted bug.
    #[arg(long)]
    self_test: bool,
    /// Print one JSON object instead of the matrix.
    #[arg(long)]
    json: bool,
    /// List the checks and run none.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the arguments ask for and says whether all is well.
fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        let names: String = cvae_conformance::all().iter().map(|check| format!("{}\n", check.name())).collect();
        return print(&names).map(|()| true);
    }
    if arguments.self_test {
        return self_test(arguments.json);
    }
    let subjects = chosen(&arguments.backends)?;
    let mut tolerances = Tolerances::committed().context("reading the recorded tolerances")?;
    let checks = cvae_conformance::all();
    if !checks.iter().any(|check| check.name().contains(&arguments.filter)) {
        bail!("no check's name contains `{}`", arguments.filter);
    }
    let mut report = Report::default();
    for subject in &subjects {
        eprintln!("running {}", subject.id());
        report.run(subject, &checks, &arguments.filter, (!arguments.bless).then_some(&tolerances));
    }
    let missing: Vec<String> = arguments.require.iter().filter_map(|id| missing(&subjects, id)).collect();
    if arguments.json {
        let backends: BTreeMap<&str, Counts> =
            subjects.iter().map(|subject| (subject.id(), report.counts_of(subject.id()))).collect();
        let object = serde_json::json!({
            "passed": report.passed() && missing.is_empty(),
            "missing": missing,
            "emulated": emulated(&subjects),
            "counts": report.counts(),
            "backends": backends,
            "records": report.records,
        });
        print(&format!("{object}\n"))?;
    } else {
        let missing: String = missing.iter().map(|line| format!("FAILED {line}\n")).collect();
        let note = |id| format!("emulated {id}: no GPU here, its kernels ran on the emulated driver\n");
        let emulated: String = emulated(&subjects).into_iter().map(note).collect();
        print(&format!("{report}{emulated}{missing}"))?;
    }
    if arguments.bless {
        bless(&mut tolerances, &report, &subjects)?;
    }
    Ok(report.passed() && missing.is_empty())
}

/// Why the required backend was not tested, if so.
fn missing(subjects: &[Subject], id: &str) -> Option<String> {
    let Some(subject) = subjects.iter().find(|subject| subject.id() == id) else {
        return Some(format!("{id} is required but not among the backends of this run"));
    };
    subject.unavailable_reason().map(|reason| format!("{id} is required but was skipped: {reason}"))
}

/// Writes the errors of the backends that passed into the committed file.
fn bless(tolerances: &mut Tolerances, report: &Report, subjects: &[Subject]) -> Result<()> {
    for subject in subjects.iter().filter(|subject| subject.unavailable_reason().is_none()) {
        if report.counts_of(subject.id()).failed > 0 {
            eprintln!("{} is not recorded: it failed", subject.id());
            continue;
        }
        tolerances.record(subject.id(), report.worst_errors(subject.id()));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tolerances.toml");
    std::fs::write(&path, tolerances.to_toml()?).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("recorded in {}", path.display());
    Ok(())
}

fn self_test(json: bool) -> Result<bool> {
    let catches = cvae_conformance::self_test();
    let right = catches.iter().all(Catch::is_right);
    if json {
        let bugs: Vec<_> = catches
            .iter()
            .map(|catch| {
                serde_json::json!({
                    "fault": catch.fault.map(|fault| fault.name()),
                    "caught_by": catch.caught_by.as_ref().map(|(check, _)| check),
                    "message": catch.caught_by.as_ref().map(|(_, message)| message),
                })
            })
            .collect();
        print(&format!("{}\n", serde_json::json!({ "passed": right, "faults": bugs })))?;
        return Ok(right);
    }
    let width = catches.iter().filter_map(|catch| catch.fault).map(|fault| fault.name().len()).max().unwrap_or(0);
    for catch in &catches {
        let name = catch.fault.map_or("(no bug)", |fault| fault.name());
        let line = match (&catch.fault, &catch.caught_by) {
            (Some(_), Some((check, _))) => format!("caught by {check}"),
            (Some(fault), None) => format!("NOT CAUGHT: {}", fault.description()),
            (None, None) => "passes every check".to_owned(),
            (None, Some((check, message))) => format!("FAILED {check}: {message}"),
        };
        print(&format!("{name:width$}  {line}\n"))?;
    }
    let caught = catches.iter().filter(|catch| catch.fault.is_some() && catch.caught_by.is_some()).count();
    print(&format!("{caught} of {} planted bugs caught\n", cvae_conformance::Fault::ALL.len()))?;
    Ok(right)
}

/// The subjects named, in the order of the matrix; all of them if none is named.
fn chosen(names: &[String]) -> Result<Vec<Subject>> {
    let all = subjects();
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|subject| subject.id() == name.as_str())) {
        let known: Vec<&str> = all.iter().map(Subject::id).collect();
        bail!("unknown backend `{unknown}`; known: {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|subject| names.is_empty() || names.iter().any(|name| name == subject.id())).collect())
}

/// Every backend of this build, in the order of the matrix.
fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    #[cfg(feature = "cpu")]
    subjects.extend(cpu());
    #[cfg(feature = "candle")]
    subjects.extend(candle());
    #[cfg(feature = "cuda")]
    subjects.extend(cuda());
    subjects.push(Subject::new(Arc::new(ReferenceBackend)));
    subjects
}

/// The levels of the CPU backend that this architecture knows.
#[cfg(feature = "cpu")]
fn cpu() -> Vec<Subject> {
    use cvae_cpu::{CpuBackend, Level};

    let known = |level: &Level| {
        matches!(level, Level::Scalar | Level::ScalarBf16) || (*level == Level::Neon) == cfg!(target_arch = "aarch64")
    };
    let subject = |level: Level| match CpuBackend::new(level, THREADS) {
        Ok(backend) => {
            let subject = Subject::new(Arc::new(backend));
            let subject = subject.with_threads(move |threads| Ok(Arc::new(CpuBackend::new(level, threads)?)));
            level.deviations().iter().fold(subject, |subject, (check, reason)| subject.with_deviation(check, reason))
        }
        Err(reason) => Subject::unavailable(level.id().as_str(), reason.to_string()),
    };
    Level::ALL.into_iter().chain(Level::BF16).filter(known).map(subject).collect()
}

/// Both precisions of candle, with the differences it has from the definition.
#[cfg(feature = "candle")]
fn candle() -> Vec<Subject> {
    use cvae_candle::{CandleBackend, Precision};

    Precision::ALL
        .map(|precision| {
            let backend = CandleBackend::new(precision);
            let subject = Subject::new(Arc::new(backend));
            backend.deviations().iter().fold(subject, |subject, (check, reason)| subject.with_deviation(check, reason))
        })
        .into()
}

/// Every precision of the first GPU, or of the emulated one where the machine has no driver.
#[cfg(feature = "cuda")]
fn cuda() -> Vec<Subject> {
    use cvae_cuda::{CudaBackend, DetectError, Precision};

    if matches!(CudaBackend::detect(), Err(DetectError::NoDriver)) {
        match cvae_cuda_emu::Emulator::install() {
            Ok(_) => EMULATED.store(true, Ordering::Relaxed),
            Err(reason) => eprintln!("note: {reason}"),
        }
    }
    let subject = |precision: Precision| match CudaBackend::new(precision) {
        Ok(backend) => {
            let deviations = backend.deviations();
            let subject = Subject::new(Arc::new(backend));
            deviations.iter().fold(subject, |subject, (check, reason)| subject.with_deviation(check, reason))
        }
        Err(reason) => Subject::unavailable(precision.id().as_str(), reason.to_string()),
    };
    Precision::ALL.map(subject).into()
}

/// Whether the CUDA backends run on the emulated driver.
static EMULATED: AtomicBool = AtomicBool::new(false);

/// The subjects that run on the emulated driver.
fn emulated(subjects: &[Subject]) -> Vec<&str> {
    let is_emulated = |subject: &&Subject| EMULATED.load(Ordering::Relaxed) && subject.id().starts_with("cuda-");
    subjects.iter().filter(is_emulated).map(Subject::id).collect()
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}
