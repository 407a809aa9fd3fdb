//! Measuring: engines as processes, their rounds interleaved.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cvae::registry;
use serde_json::Value;

use crate::case::Case;
use crate::cost::cost;
use crate::peak::RoundPeaks;
use crate::peers::Program;
use crate::record::Record;
use crate::stats;

/// How a case is measured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Threads of every engine.
    pub threads: usize,
    /// Interleaved rounds.
    pub rounds: usize,
    /// Length of a round and of the warm-up, in seconds.
    pub seconds: f64,
    /// Whether our own engines measure where their time goes.
    pub profile: bool,
}

/// A pause between rounds, so that the spinning threads of one engine do not slow the next.
const PAUSE: Duration = Duration::from_millis(100);

/// A running engine.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    rounds: Vec<f64>,
}

/// A running engine, or the record that says why there is none.
enum State {
    Running(Box<Process>),
    Ended(Box<Record>),
}

/// Measures `case` on every engine that offers it, the rounds of all engines interleaved.
///
/// # Errors
/// A case without a plan. An engine that fails is a record with a reason.
pub fn measure(case: &Case, programs: &[Program], settings: Settings) -> Result<Vec<Record>> {
    let plan = case.plan()?;
    let mut engines: Vec<(&Program, State)> = vec![];
    for program in programs.iter().filter(|program| program.offers(case)) {
        let state = match &program.missing {
            Some(reason) => State::Ended(Box::new(Record { reason: Some(reason.clone()), ..Record::default() })),
            None => start(program, case, settings).unwrap_or_else(|error| ended(format!("{error:#}"))),
        };
        engines.push((program, state));
    }
    let mut samples = vec![];
    for _ in 0..settings.rounds {
        samples.push(RoundPeaks::sample(settings.threads));
        for (_, state) in &mut engines {
            if let State::Running(process) = state {
                std::thread::sleep(PAUSE);
                if let Err(error) = round(process) {
                    *state = ended(format!("{error:#}"));
                }
            }
        }
    }
    let cost = cost(case, &plan);
    let finish = |(program, state): (&Program, State)| {
        let mut record = match state {
            State::Ended(record) => *record,
            State::Running(process) => finish(*process)
                .unwrap_or_else(|error| Record { reason: Some(format!("{error:#}")), ..Record::default() }),
        };
        record.case = case.to_string();
        record.engine.clone_from(&program.engine);
        record.threads = settings.threads;
        record.peer = program.peer;
        (record.flops, record.bytes) = (cost.flops, cost.bytes);
        record.machine = RoundPeaks::of(&samples);
        record
    };
    let mut records: Vec<Record> = engines.into_iter().map(finish).collect();
    ratios(&mut records);
    Ok(records)
}

fn ended(reason: String) -> State {
    State::Ended(Box::new(Record { reason: Some(reason), ..Record::default() }))
}

/// Starts an engine and waits until it is ready.
fn start(program: &Program, case: &Case, settings: Settings) -> Result<State> {
    let mut command = program.command(case, settings.threads, settings.seconds);
    command.env("RAYON_NUM_THREADS", settings.threads.to_string());
    command.env(registry::PROFILE, if settings.profile { "1" } else { "0" });
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.engine))?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("{} has no pipes", program.engine);
    };
    let mut process = Process { child, input, output: BufReader::new(output), rounds: vec![] };
    let answer = read(&mut process)?;
    if answer.get("ready").is_some() {
        return Ok(State::Running(Box::new(process)));
    }
    let _ = process.child.wait();
    Ok(State::Ended(Box::new(record(&answer)?)))
}

/// The next line of an engine.
fn read(process: &mut Process) -> Result<Value> {
    let mut line = String::new();
    if process.output.read_line(&mut line)? == 0 {
        let status = process.child.wait()?;
        bail!("ended without a record ({status})");
    }
    serde_json::from_str(&line).with_context(|| format!("unexpected output `{}`", line.trim()))
}

/// Has an engine run one round.
fn round(process: &mut Process) -> Result<()> {
    process.input.write_all(b"round\n")?;
    process.input.flush()?;
    let answer = read(process)?;
    match answer.get("round_us").and_then(Value::as_f64) {
        Some(micros) => process.rounds.push(micros),
        None => bail!("{}", answer.get("reason").and_then(Value::as_str).unwrap_or("no time for a round")),
    }
    Ok(())
}

/// Ends an engine and completes its record.
fn finish(process: Process) -> Result<Record> {
    let Process { mut child, input, mut output, rounds } = process;
    drop(input);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let _ = child.wait();
    let mut record = record(&serde_json::from_str(&line).context("no final record")?)?;
    if record.reason.is_none() {
        let median = stats::median(&rounds);
        record.median_us = Some(median);
        record.spread = Some(stats::spread(&rounds));
        record.per_second = Some(1e6 / median);
        record.rounds_us = rounds;
    }
    Ok(record)
}

/// The fields of an engine's own record that tables use.
fn record(answer: &Value) -> Result<Record> {
    let mut answer = answer.clone();
    // Peers count their rounds; the rounds themselves are kept here.
    if let Some(fields) = answer.as_object_mut() {
        fields.remove("rounds");
    }
    Ok(serde_json::from_value(answer)?)
}

/// Fills in the ratio of each engine to the fastest peer of the same rounds.
fn ratios(records: &mut [Record]) {
    let best = records.iter().filter(|record| record.peer && record.median_us.is_some());
    let best = best.min_by(|a, b| a.median_us.unwrap_or(f64::MAX).total_cmp(&b.median_us.unwrap_or(f64::MAX)));
    let Some(best) = best.map(|record| record.rounds_us.clone()) else { return };
    for record in records.iter_mut().filter(|record| record.median_us.is_some()) {
        let ratios: Vec<f64> = best.iter().zip(&record.rounds_us).map(|(peer, own)| peer / own).collect();
        record.ratio_to_best_peer = Some(stats::median(&ratios));
    }
}
