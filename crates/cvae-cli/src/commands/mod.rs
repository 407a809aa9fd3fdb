//! The commands, one file each.

mod backends;
mod compare;
mod decode;
mod distance;
mod encode;
mod eval;
#[cfg(feature = "cpu")]
mod freeze;
mod info;
mod interpolate;
mod reconstruct;
mod sample;
mod score;
mod train;

use anyhow::Result;

use crate::args::Command;

/// Runs a command.
///
/// # Errors
/// Whatever keeps the command from doing all that was asked.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Encode(args) => encode::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Reconstruct(args) => reconstruct::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Interpolate(args) => interpolate::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Distance(args) => distance::run(&args),
        #[cfg(feature = "cpu")]
        Command::Freeze(args) => freeze::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Backends(args) => backends::run(&args),
    }
}
