//! Developer tasks of the workspace: `cargo xtask TASK`.
//!
//! One file per task under `tasks/`. To add a task, write `tasks/NAME.rs` with its arguments and a `run`
//! function, then add a variant to [`Task`] and its arm to `run`; the compiler names both places.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "results of tasks go to standard output")]

mod command;
mod source;
mod tasks;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Developer tasks of the cvae workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every test of the workspace, documentation examples included, then `tidy`.
    Test(tasks::test::Arguments),
    /// Everything a change must pass: format, lints, documentation, other targets, tests.
    Ci,
    /// Run the conformance suite on every backend and print the matrix.
    Conformance(tasks::conformance::Arguments),
    /// Measure speed beside the peers, or compare two record files.
    Bench(tasks::bench::Arguments),
    /// Train and measure every objective on Fashion-MNIST and write docs/QUALITY.md.
    Quality(tasks::quality::Arguments),
    /// Write the generated tables and pictures of the documentation.
    Report(tasks::report::Arguments),
    /// Train the classifier in whose features samples are compared, and print its held-out accuracy.
    Classifier(tasks::classifier::Arguments),
    /// Compile the CUDA kernels, or check that the committed image is what their sources give.
    Kernels(tasks::kernels::Arguments),
    /// Build the program that checks and times the CUDA backend on a GPU machine, and run it.
    GpuCheck(tasks::gpu_check::Arguments),
    /// Check the rules of the source tree that the compiler does not know.
    Tidy,
}

impl Task {
    fn run(self, workspace: &Workspace) -> Result<()> {
        match self {
            Self::Test(arguments) => tasks::test::run(workspace, &arguments),
            Self::Ci => tasks::ci::run(workspace),
            Self::Conformance(arguments) => tasks::conformance::run(workspace, &arguments),
            Self::Bench(arguments) => tasks::bench::run(workspace, &arguments),
            Self::Quality(arguments) => tasks::quality::run(workspace, &arguments),
            Self::Report(arguments) => tasks::report::run(workspace, &arguments),
            Self::Classifier(arguments) => tasks::classifier::run(workspace, &arguments),
            Self::Kernels(arguments) => tasks::kernels::run(workspace, &arguments),
            Self::GpuCheck(arguments) => tasks::gpu_check::run(workspace, &arguments),
            Self::Tidy => tasks::tidy::run(workspace),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = Workspace::find().and_then(|workspace| arguments.task.run(&workspace));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
