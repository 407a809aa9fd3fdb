//! What must be known about a data set.

use toml::{Table, Value};

use super::{Finding, Tree};

/// Every folder of `datasets/` has a manifest that names the licence and the source, and the checksum of
/// every file; a data file kept in the tree is one that its manifest lists.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut folders: Vec<&str> = tree.paths().filter_map(folder_of).collect();
    folders.dedup();
    for folder in folders {
        let path = format!("datasets/{folder}/manifest.toml");
        let Some(text) = tree.text(&path) else {
            findings.push(Finding::file(&path, "is missing"));
            continue;
        };
        match text.parse::<Table>() {
            Ok(manifest) => findings.extend(check_manifest(tree, &path, &manifest)),
            Err(error) => findings.push(Finding::file(&path, format!("is not TOML: {}", error.message()))),
        }
    }
    findings
}

/// The name between `datasets/` and the next `/`.
fn folder_of(path: &str) -> Option<&str> {
    path.strip_prefix("datasets/")?.split_once('/').map(|(folder, _)| folder)
}

fn check_manifest(tree: &Tree, path: &str, manifest: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    let filled = |table: &Table, key: &str| table.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    for key in ["name", "licence", "source"] {
        if !filled(manifest, key) {
            findings.push(Finding::file(path, format!("does not say its `{key}`")));
        }
    }
    let files: Vec<&Table> =
        manifest.get("files").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table).collect();
    if files.is_empty() {
        findings.push(Finding::file(path, "lists no files"));
    }
    let mut listed = Vec::new();
    for file in files {
        let name = file.get("name").and_then(Value::as_str).unwrap_or("");
        let sum = file.get("sha256").and_then(Value::as_str).unwrap_or("");
        if sum.len() != 64 || !sum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            findings.push(Finding::file(path, format!("has no SHA-256 for the file `{name}`")));
        }
        listed.push(name);
    }
    let folder = path.strip_suffix("manifest.toml").unwrap_or(path);
    for file in tree.paths().filter_map(|file| file.strip_prefix(folder)) {
        let describes = file == "manifest.toml" || file.ends_with(".md");
        if !describes && !listed.contains(&file) {
            findings.push(Finding::file(path, format!("does not list the file `{file}` beside it")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn manifest() -> String {
        format!("name = \"a\"\nlicence = \"MIT\"\nsource = \"s\"\n[[files]]\nname = \"a.csv\"\nsha256 = \"{SUM}\"\n")
    }

    fn messages(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files)).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_whole_manifest_passes() {
        let files = [("datasets/a/manifest.toml", manifest()), ("datasets/a/a.csv", String::new())];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        assert_eq!(messages(&files), [""; 0]);
    }

    #[test]
    fn every_gap_is_found() {
        let path = "datasets/a/manifest.toml";
        for (old, new, found) in [
            ("licence = \"MIT\"\n", "", "does not say its `licence`"),
            ("source = \"s\"", "source = \"\"", "does not say its `source`"),
            (SUM, "abc", "has no SHA-256 for the file `a.csv`"),
            ("name = \"a\"\n", "name = [\n", "is not TOML"),
        ] {
            let text = manifest().replacen(old, new, 1);
            let messages = messages(&[(path, &text)]);
            assert!(messages.len() == 1 && messages[0].starts_with(found), "{messages:?}");
        }
        assert_eq!(messages(&[("datasets/a/README.md", "")]), ["is missing"]);
        assert_eq!(messages(&[(path, "name = \"a\"\nlicence = \"b\"\nsource = \"c\"")]), ["lists no files"]);
        let stray = [(path, &*manifest()), ("datasets/a/b.csv", "")];
        assert_eq!(messages(&stray), ["does not list the file `b.csv` beside it"]);
    }
}
