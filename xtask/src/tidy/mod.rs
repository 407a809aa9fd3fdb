//! Rules of the source tree, one file each.
//!
//! A rule is a function from the [`Tree`] to its [`Finding`]s; [`RULES`] lists them all.

mod crates;
mod datasets;
mod documented;
mod layout;
mod length;
mod links;
mod oracle;
mod unsafe_code;
mod words;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use crate::workspace::Workspace;

/// Every rule.
const RULES: [fn(&Tree) -> Vec<Finding>; 9] = [
    layout::check,
    length::check,
    words::check,
    links::check,
    crates::check,
    unsafe_code::check,
    oracle::check,
    documented::check,
    datasets::check,
];

/// Everything that breaks a rule.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    RULES.iter().flat_map(|rule| rule(tree)).collect()
}

/// The files of the project.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, Option<String>>,
}

impl Tree {
    /// Reads all files.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn read(workspace: &Workspace) -> Result<Self> {
        let mut files = BTreeMap::new();
        for path in workspace.files()? {
            let text = workspace.read(&path)?;
            files.insert(path, text);
        }
        Ok(Self { files })
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The paths, with `/` between their parts.
    fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The content of a text file.
    fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// The text files with one of the endings.
    fn with_ending<'a>(&'a self, endings: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts().filter(|(path, _)| endings.iter().any(|ending| path.ends_with(ending)))
    }

    /// The text files.
    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// A tree for tests.
    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let entry = |(path, text): &(&str, &str)| ((*path).to_owned(), Some((*text).to_owned()));
        Self { files: files.iter().map(entry).collect() }
    }
}

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: Option<usize>,
    message: String,
}

impl Finding {
    /// A finding about a whole file.
    fn file(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, message: message.into() }
    }

    /// A finding about a line; `index` counts from 0.
    fn line(path: &str, index: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: Some(index + 1), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_their_place() {
        assert_eq!(Finding::line("a.rs", 0, "is wrong").to_string(), "a.rs:1: is wrong");
        assert_eq!(Finding::file("a.rs", "is wrong").to_string(), "a.rs: is wrong");
    }
}
