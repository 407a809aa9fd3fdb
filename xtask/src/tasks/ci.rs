//! `cargo xtask ci`: everything a change must pass.

use anyhow::Result;

use super::test;
use crate::command::Command;
use crate::workspace::Workspace;

/// The target for which the NEON kernels are checked.
const ARM: &str = "aarch64-unknown-linux-gnu";

/// The linker for that target, as Debian names it.
const ARM_LINKER: &str = "aarch64-linux-gnu-gcc";

/// The emulator that runs its programs.
const ARM_EMULATOR: &str = "qemu-aarch64-static";

/// Where Debian keeps its C library.
const ARM_LIBRARIES: &str = "/usr/aarch64-linux-gnu";

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

/// Compiles the CPU backend for ARM, where the target's standard library is there or can be had, and tests the NEON
/// kernels, where their programs can be run.
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
        .run()?;
    emulated(workspace)
}

/// The whole conformance suite on the NEON kernels, under an emulator.
fn emulated(workspace: &Workspace) -> Result<()> {
    if cfg!(target_arch = "aarch64") {
        return Ok(());
    }
    if let Some(missing) = [ARM_LINKER, ARM_EMULATOR].into_iter().find(|program| !on_path(program)) {
        eprintln!("skipped: the NEON kernels did not run, because there is no {missing} here");
        return Ok(());
    }
    let variable = format!("CARGO_TARGET_{}", ARM.to_uppercase().replace('-', "_"));
    workspace
        .cargo()
        .args(["test", "--release", "--locked", "--target", ARM])
        .args(["-p", "cvae-cpu", "--test", "conformance", "--", "cpu-neon::"])
        .env(&format!("{variable}_LINKER"), ARM_LINKER)
        .env(&format!("{variable}_RUNNER"), &format!("{ARM_EMULATOR} -L {ARM_LIBRARIES}"))
        .run()
}

/// Whether the shell would find `program`.
fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
