//! `cargo xtask bench`: speed, measured side by side, of backends that conform.

use anyhow::{Result, bail};

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
        for backend in gated(&arguments.words) {
            if !conforms(workspace, &backend)? {
                words.push("--failed".to_owned());
                words.push(format!("{backend}=its conformance failed: see `cargo xtask conformance`"));
            }
        }
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
    if named.is_empty() {
        named = ["cpu-avx512", "cpu-avx2", "cpu-neon", "cpu-scalar", "candle-f32"].map(str::to_owned).to_vec();
    }
    named
}

/// Whether a backend passes the gate. A backend that cannot run here is skipped by the suite and by the runner.
fn conforms(workspace: &Workspace, backend: &str) -> Result<bool> {
    let command = workspace
        .cargo()
        .args(["run", "--quiet", "--release", "--locked", "--package", "cvae-conformance", "--bin", "conformance"])
        .args(["--features", "runner,cpu,candle", "--", "--json", "--backend", backend, "--filter", GATE]);
    Ok(command.output().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_backends_are_the_ones_checked() {
        let words = ["--case", "S/train/32", "--backend", "cpu-avx2", "--backend=candle-f32"].map(str::to_owned);
        assert_eq!(gated(&words), ["cpu-avx2", "candle-f32"]);
        assert!(gated(&[]).contains(&"candle-f32".to_owned()));
    }
}
