//! The `cvae` command line.
//!
//! Results go to standard output; progress and messages go to standard error. Every failure is one sentence
//! and exit code 1, or 2 where the arguments themselves are wrong.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "results go to standard output")]

mod args;
mod commands;
mod configure;
mod model;
mod objective;
mod output;
mod progress;
mod report;
mod stream;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_target(false)
        .without_time()
        .init();
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::sentence(&error));
            ExitCode::FAILURE
        }
    }
}
