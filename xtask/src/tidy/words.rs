//! What no file may say.

use super::{Finding, Tree};
use crate::source;

/// Folders of one machine: a path into them means nothing elsewhere.
const LOCAL_FOLDERS: [&str; 6] = ["home", "root", "work", "mnt", "Users", "media"];

/// Marks of unfinished work, written in two halves so that this file keeps its own rule.
const UNFINISHED: [(&str, &str); 7] = [
    ("TO", "DO"),
    ("FIX", "ME"),
    ("XX", "X"),
    ("to", "do!("),
    ("unimple", "mented!("),
    ("<<<<", "<<<"),
    (">>>>", ">>>"),
];

/// No local path and no mark of unfinished work stands in any file; no Rust test is switched off.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| !is_data(path)) {
        for (index, line) in text.lines().enumerate() {
            if let Some(folder) = LOCAL_FOLDERS.iter().find(|folder| has_local_path(line, folder)) {
                findings.push(Finding::line(path, index, format!("holds a path of one machine (/{folder}/…)")));
            }
            for mark in UNFINISHED.map(|(first, second)| format!("{first}{second}")) {
                if has_mark(line, &mark) {
                    findings.push(Finding::line(path, index, format!("holds the mark `{mark}`")));
                }
            }
        }
        if path.ends_with(".rs") {
            let code = source::code(text);
            let ignored = code.lines().enumerate().filter(|(_, line)| line.contains("#[ignore"));
            findings.extend(ignored.map(|(index, _)| Finding::line(path, index, "switches a test off")));
        }
    }
    findings
}

/// Lock files, licences and recorded measurements are not written by hand.
fn is_data(path: &str) -> bool {
    path.ends_with(".lock") || path.ends_with(".csv") || path.ends_with(".jsonl") || path.starts_with("LICENSE")
}

/// Whether `line` holds an absolute path that starts in `folder`.
fn has_local_path(line: &str, folder: &str) -> bool {
    let start = format!("/{folder}/");
    line.match_indices(&start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-./}~*>".contains(c))
    })
}

fn has_mark(line: &str, mark: &str) -> bool {
    if mark.chars().all(char::is_alphabetic) {
        return source::has_word(line, mark);
    }
    match mark.chars().next() {
        Some('<' | '>') => line.starts_with(mark),
        _ => line.contains(mark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn local_paths_are_found() {
        for folder in LOCAL_FOLDERS {
            let text = format!("fine\nsee /{folder}/someone/file\n");
            let findings = check(&Tree::of(&[("a.md", &text)]));
            assert_eq!(findings.len(), 1, "{folder}");
            assert_eq!(findings[0].line, Some(2));
        }
        assert_eq!(messages("a.md", "docs/home/x.md and https://example.org/home/x and /usr/share/datasets"), [""; 0]);
    }

    #[test]
    fn unfinished_work_is_found() {
        for (first, second) in UNFINISHED {
            assert_eq!(messages("a.rs", &format!("{first}{second} rest")).len(), 1, "{first}{second}");
        }
        assert_eq!(messages("a.rs", "x << 3 >> 2; // mastodon"), [""; 0]);
    }

    #[test]
    fn tests_switched_off_are_found() {
        let ignored = concat!("#[test]\n#[", "ignore = \"slow\"]\nfn a() {}");
        assert_eq!(messages("a.rs", ignored), ["switches a test off"]);
        assert_eq!(messages("a.rs", concat!("// never #[", "ignore]")), [""; 0]);
    }
}
