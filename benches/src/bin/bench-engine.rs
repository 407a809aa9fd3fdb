//! One of our backends on one case, as a process of its own: reports `ready`, then runs one round for each
//! line on standard input, and prints a record when the input ends. The peers' scripts speak the same.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the protocol is on standard output")]

use std::io::BufRead;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use cvae_bench::case::Case;
use cvae_bench::engine::Engine;
use cvae_bench::record::Record;
use cvae_bench::stats;

/// Times one case on one backend.
#[derive(Debug, Parser)]
struct Arguments {
    /// Backend id.
    #[arg(long)]
    engine: String,
    /// The case.
    #[arg(long)]
    case: Case,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Length of a round and of the warm-up.
    #[arg(long, default_value_t = 1.0)]
    min_seconds: f64,
    /// Accepted for the peers' protocol, which is the only one here.
    #[arg(long)]
    paced: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut record = Record {
        case: arguments.case.to_string(),
        engine: arguments.engine.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        threads: arguments.threads,
        ..Record::default()
    };
    if let Err(error) = measure(&arguments, &mut record) {
        record.reason = Some(format!("{error:#}"));
    }
    record.peak_memory_mib = peak_memory_mib();
    match serde_json::to_string(&record) {
        Ok(line) => println!("{line}"),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(arguments: &Arguments, record: &mut Record) -> Result<()> {
    let length = Duration::from_secs_f64(arguments.min_seconds);
    let mut engine = Engine::new(&arguments.engine, &arguments.case, arguments.threads)?;
    let begin = Instant::now();
    while begin.elapsed() < length {
        engine.round(length / 4)?;
    }
    println!("{}", serde_json::json!({ "case": record.case, "ready": true }));
    for line in std::io::stdin().lock().lines() {
        line?;
        let round = engine.round(length)?;
        record.rounds_us.push(round);
        println!("{}", serde_json::json!({ "case": record.case, "round_us": round }));
    }
    ensure!(!record.rounds_us.is_empty(), "standard input closed before the first round");
    record.kernels = engine.kernels().clone();
    record.ops = engine.profile();
    record.median_us = Some(stats::median(&record.rounds_us));
    Ok(())
}

/// Largest resident set of this process, where the system tells.
fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}
