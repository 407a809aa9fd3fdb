//! Runs the conformance suite on a GPU in every precision, then times training, and prints a table and a record.
//!
//! `cargo xtask gpu-check` builds it for carrying to a GPU machine: the program needs nothing there but the driver.
//! With `--emulated` it runs on the emulated driver and takes no times, to check the program itself.
#![allow(clippy::print_stdout, reason = "results go to standard output")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cvae_conformance::{Report, Subject};
use cvae_core::{Activation, Backend, ModelSpec, Objective, OptimizerSpec, Plan, Reconstruction, Rows};
use cvae_cuda::{CudaBackend, CudaConfig, LaunchPath, Precision, Timing};
use serde_json::{Value, json};

const BATCHES: [usize; 4] = [32, 128, 1024, 4096];
const PATHS: [LaunchPath; 3] = [LaunchPath::Launches, LaunchPath::Graph, LaunchPath::Cooperative];

/// What to do.
#[derive(Debug, Default)]
struct Arguments {
    emulated: bool,
    filter: String,
    conformance_only: bool,
    times_only: bool,
    engines: Vec<Precision>,
    json: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--emulated" => arguments.emulated = true,
                "--conformance-only" => arguments.conformance_only = true,
                "--times-only" => arguments.times_only = true,
                "--engine" => arguments.engines.push(engine(&words.next().context("--engine needs an id")?)?),
                "--filter" => arguments.filter = words.next().context("--filter needs a part of a check's name")?,
                "--json" => arguments.json = Some(words.next().context("--json needs a file name")?.into()),
                other => bail!(
                    "unknown argument `{other}`; known: --emulated, --engine ID, --filter TEXT, --conformance-only, \
                     --times-only, --json FILE"
                ),
            }
        }
        if arguments.engines.is_empty() {
            arguments.engines.extend(Precision::ALL);
        }
        Ok(arguments)
    }
}

/// The engine with this id.
fn engine(id: &str) -> Result<Precision> {
    let found = Precision::ALL.into_iter().find(|precision| precision.id().as_str() == id);
    found.with_context(|| format!("unknown engine `{id}`; known: cuda-f32, cuda-tf32, cuda-bf16"))
}

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.emulated {
        install_emulator()?;
    }
    let device = CudaBackend::detect()?;
    println!("{}, {}", device.name, device.features.join(", "));

    let (mut report, mut counts) = (Report::default(), Value::Null);
    if !arguments.times_only {
        (report, counts) = conformance(arguments)?;
        println!("{report}");
    }
    let mut record = json!({ "device": device, "emulated": arguments.emulated, "conformance": counts });
    // No time is taken of what is wrong, and none of an emulation.
    if report.passed() && !arguments.emulated && !arguments.conformance_only {
        record["times"] = times(&arguments.engines)?;
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, format!("{record:#}\n")).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(report.passed())
}

#[cfg(target_os = "linux")]
fn install_emulator() -> Result<()> {
    cvae_cuda_emu::Emulator::install().context("installing the emulated driver").map(drop)
}

#[cfg(not(target_os = "linux"))]
fn install_emulator() -> Result<()> {
    bail!("the emulated driver is for Linux")
}

/// The suite in every precision and on every launch path; the default path is one of them.
fn conformance(arguments: &Arguments) -> Result<(Report, Value)> {
    let mut report = Report::default();
    let checks = cvae_conformance::all();
    let mut counts = BTreeMap::new();
    for &precision in &arguments.engines {
        for path in PATHS {
            eprintln!("checking {} with {path}", precision.id());
            let config = CudaConfig { path, ..CudaConfig::default() };
            let backend = CudaBackend::with_config(precision, config)?;
            let deviations = backend.deviations();
            let subject = deviations.iter().fold(Subject::new(Arc::new(backend)), |subject, (check, reason)| {
                subject.with_deviation(check, reason)
            });
            let mut one = Report::default();
            one.run(&subject, &checks, &arguments.filter, None);
            counts.insert(format!("{} {path}", precision.id()), json!(one.counts()));
            report.records.extend(one.records);
        }
    }
    Ok((report, json!(counts)))
}

/// A workload of the benchmark, by its letter.
struct Workload {
    name: &'static str,
    spec: ModelSpec,
    objective: Objective,
    optimizer: OptimizerSpec,
    data: Data,
}

enum Data {
    Floats(Vec<f32>),
    Bytes(Vec<u8>),
}

/// Rows of the timed data sets.
const ROWS: usize = 8192;
/// Elements of a row.
const WIDTH: usize = 784;

/// S, the reference preset, on normal rows, and F, 784-512-256-32 mirrored, on rows of bytes.
fn workloads() -> Result<[Workload; 2]> {
    let halves: &[usize] = &[WIDTH, 100, WIDTH];
    let mut normal = vec![0.0; ROWS * WIDTH];
    let noise = cvae_core::Noise::new(1, cvae_core::Stream::Data, 0);
    for (row, values) in normal.chunks_mut(WIDTH).enumerate() {
        noise.normal(row as u32, values);
    }
    let bytes = (0..ROWS * WIDTH).map(|i| (i as u32).wrapping_mul(2_654_435_761) as u8).collect();
    let mut adam = OptimizerSpec::adam(1e-3);
    adam.algorithm = cvae_core::optimizer::Algorithm::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-7 };
    Ok([
        Workload {
            name: "S",
            spec: ModelSpec::mlp_pair(halves, halves, Activation::Relu, Activation::Identity)?,
            objective: Objective { reconstruction: Reconstruction::MseMean, ..Objective::ae() },
            optimizer: adam,
            data: Data::Floats(normal),
        },
        Workload {
            name: "F",
            spec: ModelSpec::mlp(&[WIDTH, 512, 256, 32], Activation::Relu, Activation::Identity)?,
            objective: Objective::default(),
            optimizer: OptimizerSpec::adam(1e-3),
            data: Data::Bytes(bytes),
        },
    ])
}

/// Times every workload, batch, precision and path; prints a line each.
fn times(engines: &[Precision]) -> Result<Value> {
    let mut records = vec![];
    println!("{:18} {:10} {:12} {:>12} {:>8}", "case", "engine", "launch", "µs a step", "spread");
    for workload in workloads()? {
        for batch in BATCHES {
            for &precision in engines {
                for path in PATHS {
                    records.push(time(&workload, batch, precision, path)?);
                }
            }
        }
    }
    Ok(Value::Array(records))
}

fn time(workload: &Workload, batch: usize, precision: Precision, path: LaunchPath) -> Result<Value> {
    let config = CudaConfig { path, ..CudaConfig::default() };
    let backend = CudaBackend::with_config(precision, config)?;
    let plan = Plan::new(workload.spec.clone(), workload.objective.clone(), workload.optimizer, 1, batch)?;
    let rows = match &workload.data {
        Data::Floats(values) => Rows::F32 { values, width: WIDTH },
        Data::Bytes(values) => Rows::U8 { values, width: WIDTH, scale: 1.0 / 255.0 },
    };
    let timing = Timing { rows, batch, steps: 128, warm_up: 3, repeats: 15 };
    let mut times = backend.time_steps(&Arc::new(plan), timing)?;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let spread = (times[times.len() * 3 / 4] - times[times.len() / 4]) / median;
    let (case, engine) = (format!("{}/train/{batch}", workload.name), backend.id());
    println!("{case:18} {engine:10} {path:12} {median:12.2} {spread:8.3}");
    Ok(json!({
        "case": case,
        "engine": engine,
        "launch": path.to_string(),
        "median_us": median,
        "spread": spread,
        "per_second": 1e6 / median,
    }))
}
