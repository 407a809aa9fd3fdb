//! Links between documents.

use super::{Finding, Tree};

/// Every relative link of a Markdown document leads to a file of the project.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_ending(&[".md"]) {
        for (index, line) in text.lines().enumerate() {
            for target in targets(line).filter(|target| is_relative(target)) {
                let file = target.split('#').next().unwrap_or(target);
                let known = resolve(path, file).is_some_and(|goal| exists(tree, &goal));
                if !known {
                    findings.push(Finding::line(path, index, format!("links to `{target}`, which is not in the tree")));
                }
            }
        }
    }
    findings
}

/// The targets of `[text](target)` in a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(move |(at, _)| {
        let rest = &line[at + 2..];
        rest.find(')').map(|end| rest[..end].split(' ').next().unwrap_or(""))
    })
}

fn is_relative(target: &str) -> bool {
    !(target.is_empty() || target.contains("://") || target.starts_with('#') || target.starts_with("mailto:"))
}

/// The path of `target`, seen from the document `from`; `None` outside of the tree.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Whether a path is a file of the tree or a folder that holds one.
fn exists(tree: &Tree, path: &str) -> bool {
    let folder = format!("{path}/");
    tree.paths().any(|file| file == path || file.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_links_are_found() {
        let text = "[a](ARCHITECTURE.md) [b](missing.md#part)\n[c](../../outside.md) ![d](gone.svg \"title\")";
        let findings = check(&Tree::of(&[("docs/README.md", text), ("docs/ARCHITECTURE.md", "")]));
        let lines: Vec<_> = findings.iter().filter_map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2, 2]);
        assert!(findings[0].message.contains("missing.md#part"));
    }

    #[test]
    fn live_links_pass() {
        let text = "[a](../README.md#use) [b](https://example.org/x) [c](#part) [d](../crates/core) [e](./A.md)";
        let tree = Tree::of(&[("docs/A.md", text), ("README.md", ""), ("crates/core/src/lib.rs", "")]);
        assert_eq!(check(&tree), []);
    }
}
