//! `cargo xtask conformance`: the matrix of checks and backends.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// Backends with a feature of their own in the runner: the start of their ids, and the feature.
const FEATURES: [(&str, &str); 3] = [("cpu-", "cpu"), ("candle-", "candle"), ("cuda-", "cuda")];

/// Arguments of the task.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Only this backend (may be given more than once); the others are not compiled.
    #[arg(long = "backend", value_name = "ID")]
    backends: Vec<String>,
    /// Only the checks whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Fail if this backend cannot be tested here (may be given more than once).
    #[arg(long, value_name = "ID")]
    require: Vec<String>,
    /// Record the errors found as the new tolerances.
    #[arg(long)]
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

/// Builds the runner in release mode with the backends asked for, and runs it.
///
/// # Errors
/// A build that fails, or a run in which a check failed or a required backend was skipped.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let command = workspace
        .cargo()
        .args(["run", "--quiet", "--release", "--locked", "--package", "cvae-conformance", "--bin", "conformance"])
        .args(["--features", &arguments.features().join(","), "--"])
        .args(arguments.passed_on());
    if !command.run_lines(|_| {})? {
        bail!("the backends do not conform");
    }
    Ok(())
}

impl Arguments {
    /// Features of the runner: those of the backends named, or all of them.
    fn features(&self) -> Vec<&'static str> {
        let named = |prefix: &str| self.backends.iter().any(|backend| backend.starts_with(prefix));
        let needed = |prefix: &str| !self.self_test && !self.list && (self.backends.is_empty() || named(prefix));
        let backends = FEATURES.iter().filter(|(prefix, _)| needed(prefix)).map(|(_, feature)| *feature);
        std::iter::once("runner").chain(backends).collect()
    }

    /// The runner's own arguments.
    fn passed_on(&self) -> Vec<String> {
        let mut passed = Vec::new();
        let values = [("--backend", &self.backends), ("--require", &self.require)];
        for (flag, values) in values {
            passed.extend(values.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
        }
        if let Some(filter) = &self.filter {
            passed.extend(["--filter".to_owned(), filter.clone()]);
        }
        let flags =
            [("--bless", self.bless), ("--self-test", self.self_test), ("--json", self.json), ("--list", self.list)];
        passed.extend(flags.iter().filter(|(_, given)| *given).map(|(flag, _)| (*flag).to_owned()));
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(backends: &[&str]) -> Arguments {
        Arguments { backends: backends.iter().map(|id| (*id).to_owned()).collect(), ..Arguments::default() }
    }

    #[test]
    fn only_the_backends_named_are_compiled() {
        assert_eq!(arguments(&[]).features(), ["runner", "cpu", "candle", "cuda"]);
        assert_eq!(arguments(&["cpu-avx2", "reference"]).features(), ["runner", "cpu"]);
        assert_eq!(arguments(&["reference"]).features(), ["runner"]);
        assert_eq!(Arguments { self_test: true, ..Arguments::default() }.features(), ["runner"]);
    }

    #[test]
    fn arguments_reach_the_runner() {
        let given = Arguments { filter: Some("grad::".to_owned()), json: true, ..arguments(&["candle-f64"]) };
        assert_eq!(given.passed_on(), ["--backend", "candle-f64", "--filter", "grad::", "--json"]);
    }
}
