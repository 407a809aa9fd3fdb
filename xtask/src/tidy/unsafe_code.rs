//! Where `unsafe` may stand.

use super::{Finding, Tree};
use crate::source;

/// The crates that may use it.
const ALLOWED: [&str; 2] = ["crates/cvae-cpu/", "crates/cvae-cuda"];

/// `unsafe` stands in the kernels and the device code alone, and every block and implementation says above
/// it what makes it sound.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_ending(&[".rs"]) {
        let allowed = ALLOWED.iter().any(|folder| path.starts_with(folder));
        let code = source::code(text);
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in code.lines().enumerate().filter(|(_, line)| source::has_word(line, "unsafe")) {
            if !allowed {
                findings.push(Finding::line(path, index, "uses `unsafe` outside of the CPU and CUDA backends"));
            } else if needs_reason(line) && !has_reason(&lines, index) {
                findings.push(Finding::line(path, index, "has an `unsafe` block without a `// SAFETY:` line above it"));
            }
        }
    }
    findings
}

/// Whether `unsafe` opens a block or an implementation; functions state their contract in `# Safety`.
fn needs_reason(line: &str) -> bool {
    line.split("unsafe").skip(1).any(|rest| {
        let rest = rest.trim_start();
        rest.starts_with('{') || rest.starts_with("impl")
    })
}

/// Whether the reason stands on the line itself or in the comment above the statement.
fn has_reason(lines: &[&str], index: usize) -> bool {
    if lines[index].contains("SAFETY:") {
        return true;
    }
    for line in lines[..index].iter().rev() {
        let line = line.trim_start();
        if line.starts_with("//") {
            if line.contains("SAFETY:") {
                return true;
            }
            continue;
        }
        // The comment may stand above the statement that the block ends, or above attributes.
        let continues = line.starts_with("#[") || !(line.is_empty() || line.ends_with([';', '{', '}']));
        if !continues {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn unsafe_elsewhere_is_found() {
        let block = "// SAFETY: it is not.\nunsafe { f() }";
        assert_eq!(count("crates/cvae-core/src/lib.rs", block), 1);
        assert_eq!(count("crates/cvae-cpu/src/lib.rs", block), 0);
        assert_eq!(count("crates/cvae-core/src/lib.rs", "#![forbid(unsafe_code)] // unsafe"), 0);
    }

    #[test]
    fn blocks_without_a_reason_are_found() {
        let path = "crates/cvae-cpu/src/kernels.rs";
        for text in [
            "let a = 1;\nlet b = unsafe { f() };",
            "// SAFETY: of another one.\nf();\nunsafe { f() }",
            "unsafe impl Send for A {}",
        ] {
            assert_eq!(count(path, text), 1, "{text}");
        }
        for text in [
            "// SAFETY: checked above,\n// twice.\nlet b = unsafe { f() };",
            "// SAFETY: checked above.\nlet b =\n    unsafe { f() };",
            "/// # Safety\n/// AVX2 is there.\nunsafe fn f() {}",
            "// SAFETY: no shared state.\n#[allow(a)]\nunsafe impl Send for A {}",
        ] {
            assert_eq!(count(path, text), 0, "{text}");
        }
    }
}
