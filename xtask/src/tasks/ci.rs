//! `cargo xtask ci`: everything a change must pass.

use anyhow::Result;

use super::test;
use crate::command::Command;
use crate::workspace::Workspace;

/// The target for which the NEON kernels are checked.
const ARM: &str = "aarch64-unknown-linux-gnu";

/// Runs every step; the cheap ones come first.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    workspace.cargo().args(["fmt", "--all", "--check"]).run()?;
    workspace.cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]).run()?;
    workspace.cargo().args(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings").run()?;
    arm(workspace)?;
    test::run(workspace, &test::Arguments::default())
}

/// Compiles the CPU backend for ARM, where the target's standard library is there or can be had.
fn arm(workspace: &Workspace) -> Result<()> {
    let added = Command::new("rustup").folder(workspace.root()).args(["target", "add", ARM]).run();
    if let Err(error) = added {
        eprintln!("skipped: the NEON kernels were not compiled, because the target {ARM} cannot be had: {error:#}");
        return Ok(());
    }
    workspace
        .cargo()
        .args(["check", "--locked", "--target", ARM, "-p", "cvae-core", "-p", "cvae-cpu"])
        .env("RUSTFLAGS", "-D warnings")
        .run()
}
