//! `cargo xtask tidy`: the rules of the source tree that the compiler does not know.

use anyhow::{Result, bail};

use crate::tidy::{self, Tree};
use crate::workspace::Workspace;

/// Checks every rule and lists what breaks one.
///
/// # Errors
/// Files that cannot be read, and any broken rule.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let tree = Tree::read(workspace)?;
    let findings = tidy::check(&tree);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy found {} broken rules", findings.len());
    }
    eprintln!("tidy: {} files keep every rule", tree.len());
    Ok(())
}
