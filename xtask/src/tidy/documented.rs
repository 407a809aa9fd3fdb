//! The mathematics is written down for everything one can choose.

use super::{Finding, Tree};
use crate::source;

const DOCUMENT: &str = "docs/MATH.md";

/// Files of the core crate and the enums in them whose variants have a formula.
const ENUMS: [(&str, &str); 9] = [
    ("crates/cvae-core/src/spec.rs", "Activation"),
    ("crates/cvae-core/src/objective.rs", "Reconstruction"),
    ("crates/cvae-core/src/objective.rs", "Latent"),
    ("crates/cvae-core/src/objective.rs", "Jacobian"),
    ("crates/cvae-core/src/corruption.rs", "Corruption"),
    ("crates/cvae-core/src/columns.rs", "ColumnKind"),
    ("crates/cvae-core/src/optimizer.rs", "Algorithm"),
    ("crates/cvae-core/src/optimizer.rs", "Schedule"),
    ("crates/cvae-core/src/op.rs", "Op"),
];

/// Every variant of those enums appears in the document under its name in files.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(document) = tree.text(DOCUMENT) else {
        return vec![Finding::file(DOCUMENT, "is missing")];
    };
    let mut findings = Vec::new();
    for (path, name) in ENUMS {
        let Some(variants) = tree.text(path).and_then(|text| source::enum_variants(text, name)) else {
            findings.push(Finding::file(path, format!("has no `enum {name}`, whose variants {DOCUMENT} documents")));
            continue;
        };
        for variant in variants.iter().map(|variant| source::snake_case(variant)) {
            let quoted = document.split('`').skip(1).step_by(2);
            if !quoted.clone().any(|text| source::has_word(text, &variant)) {
                findings.push(Finding::file(DOCUMENT, format!("does not say what `{variant}` of `{name}` computes")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(document: &str) -> Tree {
        Tree::of(&[
            ("crates/cvae-core/src/spec.rs", "pub enum Activation { Relu, LeakyRelu }"),
            (
                "crates/cvae-core/src/objective.rs",
                "pub enum Reconstruction { L1 }\npub enum Latent { Free }\npub enum Jacobian { Contractive }",
            ),
            ("crates/cvae-core/src/corruption.rs", "pub enum Corruption { Masked }"),
            ("crates/cvae-core/src/columns.rs", "pub enum ColumnKind { Binary }"),
            (
                "crates/cvae-core/src/optimizer.rs",
                "pub enum Algorithm { Adam }\npub enum Schedule { Cosine { a: u8 } }",
            ),
            ("crates/cvae-core/src/op.rs", "pub enum Op { Linear { input: u8 }, Update }"),
            (DOCUMENT, document),
        ])
    }

    const WHOLE: &str =
        "`relu`, `leaky_relu`, `l1`, `free`, `contractive`, `masked`, `binary`, `adam`, `cosine`, `linear`, `update`";

    #[test]
    fn a_whole_document_passes() {
        assert_eq!(check(&tree(WHOLE)), []);
    }

    #[test]
    fn a_missing_variant_is_found() {
        let findings = check(&tree(&WHOLE.replace("`relu`, ", "").replace("`update`", "update")));
        assert_eq!(findings.len(), 2);
        assert!(findings[0].message.contains("`relu` of `Activation`"));
        assert!(findings[1].message.contains("`update` of `Op`"));
    }

    #[test]
    fn a_missing_enum_or_document_is_found() {
        assert_eq!(check(&Tree::of(&[(DOCUMENT, WHOLE)])).len(), ENUMS.len());
        assert_eq!(check(&Tree::of(&[])).len(), 1);
    }
}
