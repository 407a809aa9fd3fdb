//! `cargo xtask test`: every test of the workspace.

use std::ops::AddAssign;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::tidy;
use crate::workspace::Workspace;

/// Arguments of the task.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Build and run with optimisations.
    #[arg(long)]
    release: bool,
    /// Also the packages that a plain run leaves out: the candle backend, the conformance suite's own tests and the
    /// bench runner.
    #[arg(long)]
    all: bool,
    /// Only the tests whose name contains this.
    filter: Option<String>,
}

/// Packages whose tests take minutes to build or run.
const LEFT_OUT: [&str; 3] = ["cvae-candle", "cvae-conformance", "cvae-bench"];

/// Builds the examples, runs all tests, those in documentation included, checks the source tree, and
/// prints how many tests passed, failed and were left out.
///
/// # Errors
/// A build that fails, a test that fails, or a broken rule of the source tree.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    if !Path::new("/usr/share/datasets/fashion-mnist").exists() && std::env::var_os("CVAE_DATA").is_none() {
        eprintln!("note: Fashion-MNIST is not installed (Debian package dataset-fashion-mnist); its tests say so");
    }
    let profile: &[&str] = if arguments.release { &["--release"] } else { &[] };
    let mut packages = vec!["--workspace"];
    if !arguments.all {
        eprintln!("left out: {}; `cargo xtask test --all` runs them too", LEFT_OUT.join(", "));
        packages.extend(LEFT_OUT.iter().flat_map(|package| ["--exclude", package]));
    }
    workspace.cargo().args(["build"]).args(&packages).args(["--examples", "--locked"]).args(profile).run()?;

    let mut total = Counts::default();
    let mut command =
        workspace.cargo().args(["test"]).args(&packages).args(["--locked", "--no-fail-fast"]).args(profile);
    if let Some(filter) = &arguments.filter {
        command = command.args([filter]);
    }
    let succeeded = command.run_lines(|line| {
        if let Some(counts) = Counts::parse(line) {
            total += counts;
        }
    })?;
    println!(
        "tests: {} passed, {} failed, {} ignored in {} suites",
        total.passed, total.failed, total.ignored, total.suites
    );
    if !succeeded {
        bail!("tests failed");
    }
    if arguments.filter.is_some() {
        return Ok(());
    }
    tidy::run(workspace).context("the tests passed")
}

/// Results of test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    suites: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Reads the last line of a test program: `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.trim_start().strip_prefix("test result: ")?.split_once(". ")?;
        let mut found = Self { suites: 1, ..Self::default() };
        for field in counts.split(';') {
            let Some((number, what)) = field.trim().split_once(' ') else { continue };
            let slot = match what {
                "passed" => &mut found.passed,
                "failed" => &mut found.failed,
                "ignored" => &mut found.ignored,
                _ => continue,
            };
            *slot = number.parse().ok()?;
        }
        Some(found)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.suites += other.suites;
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_read() {
        let line = "test result: FAILED. 41 passed; 2 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.52s";
        assert_eq!(Counts::parse(line), Some(Counts { suites: 1, passed: 41, failed: 2, ignored: 1 }));
        assert_eq!(Counts::parse("test cpu::linear ... ok"), None);
        assert_eq!(Counts::parse("running 3 tests"), None);
    }
}
