//! How long a source file may be.

use super::{Finding, Tree};

/// Lines a source file may have.
const MOST: usize = 500;

/// No source file is longer than a reader can hold in mind.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let sources = tree.with_ending(&[".rs", ".cu", ".cuh"]);
    sources
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MOST)
        .map(|(path, lines)| Finding::file(path, format!("has {lines} lines, more than {MOST}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_found() {
        let (long, longest) = ("x\n".repeat(MOST + 1), "x\n".repeat(MOST));
        let tree = Tree::of(&[("a.rs", &long), ("b.cu", &long), ("c.rs", &longest), ("d.md", &long)]);
        let paths: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["a.rs", "b.cu"]);
    }
}
