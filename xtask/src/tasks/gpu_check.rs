//! `cargo xtask gpu-check`: the program that checks and times the CUDA backend on a GPU machine.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Arguments of the task.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Build the program without running it.
    #[arg(long)]
    build_only: bool,
    /// Where the program is copied.
    #[arg(long, value_name = "FILE", default_value = "target/gpu-check")]
    out: PathBuf,
    /// Show that the emulated driver finds bugs planted in the kernels, and do nothing else.
    #[arg(long, conflicts_with_all = ["build_only", "program_arguments"])]
    self_test: bool,
    /// Passed to the program: --emulated, --filter TEXT, --conformance-only, --json FILE.
    #[arg(last = true)]
    program_arguments: Vec<String>,
}

/// Builds the program as one stripped file that needs nothing but the driver, and runs it.
///
/// # Errors
/// A build that fails, a machine without a GPU, or a check that fails.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    if arguments.self_test {
        return workspace.cargo().args(["test", "--locked", "--package", "cvae-cuda", "--test", "planted"]).run();
    }
    let build = ["build", "--locked", "--release", "--package", "cvae-cuda", "--example", "gpu_check"];
    let messages = workspace.cargo().args(build).args(["--config", "profile.release.strip=true"]);
    let messages = messages.args(["--message-format", "json-render-diagnostics"]).output()?;
    let built = executable(&messages).context("cargo names no program")?;
    let out = workspace.root().join(&arguments.out);
    std::fs::copy(&built, &out).with_context(|| format!("copying {built} to {}", out.display()))?;
    println!("built {}", out.display());
    if arguments.build_only {
        return Ok(());
    }
    crate::command::Command::new(&out).folder(workspace.root()).args(&arguments.program_arguments).run()
}

/// The last program that cargo's messages name.
fn executable(messages: &str) -> Option<String> {
    let field = "\"executable\":\"";
    let line = messages.lines().rev().find(|line| line.contains(field))?;
    let (_, rest) = line.split_once(field)?;
    rest.split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_in_cargos_messages() {
        let messages = "{\"executable\":null}\n{\"executable\":\"/t/release/examples/gpu_check\",\"fresh\":true}\n{}\n";
        assert_eq!(executable(messages).as_deref(), Some("/t/release/examples/gpu_check"));
        assert_eq!(executable("{}"), None);
    }
}
