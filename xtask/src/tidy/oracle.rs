//! The independence of the candle backend.

use super::{Finding, Tree};
use crate::source;

/// The folder of the backend that is built from the specification alone.
const FOLDER: &str = "crates/cvae-candle/";

/// The candle backend never names the lowered program: it would otherwise prove nothing about the lowering.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_ending(&[".rs"]).filter(|(path, _)| path.starts_with(FOLDER)) {
        for (index, line) in source::code(text).lines().enumerate() {
            let names = source::has_word(line, "Program") || source::has_word(line, "program");
            if names {
                findings.push(Finding::line(
                    path,
                    index,
                    "reads the lowered program, which this backend must not know",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_the_program_is_found() {
        for line in ["use cvae_core::Program;", "let ops = &plan.program.train;", "use cvae_core::program::Op;"] {
            let tree = Tree::of(&[("crates/cvae-candle/src/lib.rs", line), ("crates/cvae-cpu/src/lib.rs", line)]);
            let findings = check(&tree);
            assert_eq!(findings.len(), 1, "{line}");
            assert_eq!(findings[0].path, "crates/cvae-candle/src/lib.rs");
        }
    }

    #[test]
    fn speaking_of_it_is_allowed() {
        let tree =
            Tree::of(&[("crates/cvae-candle/src/lib.rs", "//! Never reads `Plan::program`.\nlet programs = 1;")]);
        assert_eq!(check(&tree), []);
    }
}
