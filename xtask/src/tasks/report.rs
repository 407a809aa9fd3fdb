//! `cargo xtask report`: the generated tables and pictures of the documentation.

use anyhow::Result;

use super::bench;
use crate::workspace::Workspace;

/// Arguments of the task.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail if a generated part is not what the committed records give.
    #[arg(long)]
    check: bool,
}

/// Writes or checks the generated parts.
///
/// # Errors
/// A build that fails, missing records or markers, or with `--check` a part that is out of date.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let mut words = vec!["report".to_owned()];
    if arguments.check {
        words.push("--check".to_owned());
    }
    bench::runner(workspace, &words)
}
