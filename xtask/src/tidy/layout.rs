//! What may lie at the top of the tree.

use super::{Finding, Tree};

const NAMES: [&str; 8] = ["Cargo.toml", "Cargo.lock", "README.md", "crates", "xtask", "benches", "datasets", "docs"];

/// Only the agreed files and folders, dot-files and licences lie at the top.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for path in tree.paths() {
        let top = path.split('/').next().unwrap_or(path);
        let agreed = NAMES.contains(&top) || top.starts_with('.') || top.starts_with("LICENSE");
        if !agreed && !findings.iter().any(|finding| finding.path == top) {
            findings.push(Finding::file(top, "does not belong at the top of the tree"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_at_the_top_are_found_once() {
        let tree = Tree::of(&[("notes.txt", ""), ("scratch/a.rs", ""), ("scratch/b.rs", "")]);
        let paths: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["notes.txt", "scratch"]);
    }

    #[test]
    fn the_agreed_names_pass() {
        let tree = Tree::of(&[("README.md", ""), ("crates/a/src/lib.rs", ""), (".ci/run", ""), ("LICENSE-MIT", "")]);
        assert_eq!(check(&tree), []);
    }
}
