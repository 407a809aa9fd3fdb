//! `cargo xtask bench`: speed, measured side by side, of backends that conform.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::Workspace;

/// Arguments of the task: those of the bench runner.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `compare A B` prints ratios of two record files; otherwise options of a measurement: `--case NAME`,
    /// `--backend ID`, `--quick`, `--sweep`, `--peers`, `--venv FOLDER`, `--json`, `--rounds N`, `--threads N`,
    /// `--save NAME`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Checks of the conformance suite that a backend must pass before it is timed. Every case is compared with
/// the reference once more by the engine that runs it.
const GATE: &str = "grad::";

/// Builds the runner in release mode and runs it.
///
/// # Errors
/// A build that fails, or a measurement that cannot be made.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let measures = arguments.words.first().is_none_or(|word| word != "compare");
    let mut words = arguments.words.clone();
    if measures {
        words.insert(0, "run".to_owned());
        for backend in failed(workspace, &gated(&arguments.words))? {
            words.push("--failed".to_owned());
            words.push(format!("{backend}=its conformance failed: see `cargo xtask conformance`"));
        }
        // Starting the program and its size are cases too.
        workspace.cargo().args(["build", "--quiet", "--release", "--locked", "--package", "cvae-cli"]).run()?;
    }
    runner(workspace, &words)
}

/// Runs the bench runner with `words`.
pub(crate) fn runner(workspace: &Workspace, words: &[String]) -> Result<()> {
    let build = ["build", "--quiet", "--release", "--locked", "--package", "cvae-bench", "--bins"];
    workspace.cargo().args(build).run()?;
    let root = workspace.root().to_owned();
    let command = workspace
        .cargo()
        .args(["run", "--quiet", "--release", "--locked", "--package", "cvae-bench", "--bin", "bench", "--", "--root"])
        .args([root.as_os_str()])
        .args(words);
    if !command.run_lines(|_| {})? {
        bail!("the bench runner failed");
    }
    Ok(())
}

/// The backends that will be timed: those named, or the ones timed by default.
fn gated(words: &[String]) -> Vec<String> {
    let mut named = vec![];
    for (index, word) in words.iter().enumerate() {
        if word == "--backend" {
            named.extend(words.get(index + 1).cloned());
        } else if let Some(id) = word.strip_prefix("--backend=") {
            named.push(id.to_owned());
        }
    }
    // A frozen model is checked by its engine; its weights come from the backend of the same level.
    named.iter_mut().for_each(|id| *id = id.trim_end_matches("-frozen").to_owned());
    named.sort();
    named.dedup();
    if named.is_empty() {
        // The levels that the conformance suite knows on this architecture.
        let wide: &[&str] = match std::env::consts::ARCH {
            "aarch64" => &["cpu-neon"],
            _ => &["cpu-avx512", "cpu-avx2", "cpu-avx512-bf16", "cpu-amx-bf16"],
        };
        named = wide.iter().chain(&["cpu-scalar", "candle-f32"]).map(|id| (*id).to_owned()).collect();
    }
    named
}

/// The backends among `ids` that do not pass the gate. One that cannot run here is skipped by the suite and by
/// the runner.
fn failed(workspace: &Workspace, ids: &[String]) -> Result<Vec<String>> {
    let command = workspace
        .cargo()
        .args(["run", "--quiet", "--release", "--locked", "--package", "cvae-conformance", "--bin", "conformance"])
        .args(["--features", "runner,cpu,candle", "--", "--json", "--filter", GATE])
        .args(ids.iter().flat_map(|id| ["--backend", id]));
    let text = command.answer()?;
    let answer: Value = serde_json::from_str(&text).context("the conformance runner printed no JSON object")?;
    let failures = |id: &str| answer["backends"][id]["failed"].as_u64().with_context(|| format!("no counts of {id}"));
    let mut failed = vec![];
    for id in ids {
        if failures(id)? > 0 {
            failed.push(id.clone());
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_backends_are_the_ones_checked() {
        let words = ["--case", "S/train/32", "--backend", "cpu-avx2", "--backend=candle-f32"].map(str::to_owned);
        assert_eq!(gated(&words), ["candle-f32", "cpu-avx2"]);
        assert!(gated(&[]).contains(&"candle-f32".to_owned()));
    }
}
