//! What every crate must declare, and on what it may depend.

use toml::{Table, Value};

use super::{Finding, Tree};

/// Crates of the workspace that each crate may depend on outside of its tests; tests may use any.
/// Dependencies point one way.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("cvae-core", &[]),
    ("cvae-data", &["cvae-core"]),
    ("cvae-reference", &["cvae-core"]),
    ("cvae-cpu", &["cvae-core"]),
    ("cvae-cuda", &["cvae-core"]),
    ("cvae-cuda-emu", &[]),
    ("cvae-candle", &["cvae-core"]),
    ("cvae-conformance", &["cvae-core", "cvae-reference", "cvae-cpu", "cvae-cuda", "cvae-cuda-emu", "cvae-candle"]),
    ("cvae", &["cvae-core", "cvae-cpu", "cvae-cuda", "cvae-candle", "cvae-data", "cvae-reference"]),
    ("xtask", &[]),
];

/// Every manifest takes the workspace's lints and states a description; dependencies point one way.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let manifests = tree.with_ending(&["/Cargo.toml"]).filter(|(path, _)| !path.starts_with("benches/peers/"));
    for (path, text) in manifests {
        match text.parse::<Table>() {
            Ok(manifest) => findings.extend(check_manifest(path, &manifest)),
            Err(error) => findings.push(Finding::file(path, format!("is not TOML: {}", error.message()))),
        }
    }
    findings
}

fn check_manifest(path: &str, manifest: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    let package = manifest.get("package").and_then(Value::as_table);
    let text = |key: &str| package.and_then(|package| package.get(key)).and_then(Value::as_str).unwrap_or("");
    if text("description").is_empty() {
        findings.push(Finding::file(path, "has no `description`"));
    }
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
    if lints != Some(true) {
        findings.push(Finding::file(path, "does not take the lints of the workspace"));
    }
    let name = text("name");
    if let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) {
        for dependency in dependencies(manifest) {
            let own = dependency == "cvae" || dependency.starts_with("cvae-");
            if own && !allowed.contains(&dependency) {
                findings.push(Finding::file(path, format!("depends on `{dependency}`, which `{name}` must not know")));
            }
        }
    }
    findings
}

/// Names of the dependencies of the crate itself, those of one target included.
fn dependencies(manifest: &Table) -> Vec<&str> {
    let mut found = Vec::new();
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    for owner in std::iter::once(manifest).chain(targets.filter_map(Value::as_table)) {
        for kind in ["dependencies", "build-dependencies"] {
            if let Some(table) = owner.get(kind).and_then(Value::as_table) {
                found.extend(table.keys().map(String::as_str));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        check(&Tree::of(&[("crates/a/Cargo.toml", text)])).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn missing_declarations_are_found() {
        assert_eq!(messages("[package]\nname = \"a\"\ndescription = \"b\"\n[lints]\nworkspace = true"), [""; 0]);
        assert_eq!(messages("[package]\nname = \"a\"\n[lints]\nworkspace = true"), ["has no `description`"]);
        let without = "[package]\nname = \"a\"\ndescription = \"b\"\n[lints.rust]\nmissing_docs = \"warn\"";
        assert_eq!(messages(without), ["does not take the lints of the workspace"]);
        assert_eq!(messages("[package").len(), 1);
    }

    #[test]
    fn wrong_dependencies_are_found() {
        let manifest = |name: &str, rest: &str| {
            format!("[package]\nname = \"{name}\"\ndescription = \"b\"\n[lints]\nworkspace = true\n{rest}")
        };
        for rest in [
            "[dependencies]\ncvae-cpu.workspace = true",
            "[build-dependencies]\ncvae-cpu.workspace = true",
            "[target.'cfg(unix)'.dependencies]\ncvae-cpu = { path = \"x\" }",
        ] {
            assert_eq!(messages(&manifest("cvae-core", rest)).len(), 1, "{rest}");
            assert_eq!(messages(&manifest("xtask", rest)).len(), 1, "{rest}");
            assert_eq!(messages(&manifest("cvae", rest)), [""; 0], "{rest}");
        }
        assert_eq!(messages(&manifest("cvae-core", "[dev-dependencies]\ncvae-cpu.workspace = true")), [""; 0]);
    }
}
