//! `cargo xtask classifier`: the classifier in whose features samples are compared.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;

/// Arguments of the task.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File to write; the weights that the library embeds when nothing is said.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Trains the classifier on Fashion-MNIST, prints its held-out accuracy and writes its weights.
///
/// # Errors
/// A build that fails, rows that are not there, or a file that cannot be written.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let embedded = || workspace.root().join("datasets/classifier/fashion-mnist.safetensors");
    let out = arguments.out.clone().unwrap_or_else(embedded);
    workspace
        .cargo()
        .args(["run", "--quiet", "--release", "--locked", "--package", "cvae", "--example", "train_classifier", "--"])
        .args([out])
        .run()
}
