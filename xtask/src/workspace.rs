//! Where the workspace is and which files belong to it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::command::Command;

/// The root folder of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace this program was built in.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().ok_or_else(|| anyhow!("{} has no parent folder", manifest.display()))?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// The root folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `cargo` in the root folder: the one that started this program.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Command::new(cargo).folder(&self.root)
    }

    /// Paths of all files of the project, relative to the root with `/` between parts, in order: those git
    /// tracks and those it does not ignore.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let listing = Command::new("git")
            .folder(&self.root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .context("listing the files of the project")?;
        let mut files: Vec<String> = listing
            .split('\0')
            .filter(|path| !path.is_empty() && self.root.join(path).is_file())
            .map(str::to_owned)
            .collect();
        files.sort_unstable();
        files.dedup();
        Ok(files)
    }

    /// A file of the project, its bytes read as UTF-8; `None` for a file that is not text.
    pub(crate) fn read(&self, path: &str) -> Result<Option<String>> {
        let bytes = std::fs::read(self.root.join(path)).with_context(|| format!("reading {path}"))?;
        Ok(String::from_utf8(bytes).ok())
    }
}
