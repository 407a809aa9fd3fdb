//! What can be wrong with a configuration.

use std::path::PathBuf;

use cvae_core::SpecError;
use thiserror::Error;

use super::FORMAT_VERSION;

/// A configuration that cannot be read, or breaks a rule.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Something is wrong with a file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ConfigError>,
    },
    /// The system refused to read.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// Not UTF-8.
    #[error("not a text file")]
    NotText,
    /// Not TOML, a field missing, or a value of the wrong kind.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A field that the configuration does not have.
    #[error("unknown field `{field}`")]
    UnknownField {
        /// Its dotted name.
        field: String,
    },
    /// Written by another version of the format.
    #[error("format version {found} is not supported; this version reads {FORMAT_VERSION}")]
    Format {
        /// The version found.
        found: u32,
    },
    /// A value out of range.
    #[error("`{field}` must be {rule}")]
    Range {
        /// The field's dotted name.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Early stopping has nothing to watch.
    #[error("`patience` needs validation rows: set `data.validation_fraction` above 0")]
    PatienceWithoutValidation,
    /// The codes of the model cannot be aligned.
    #[error("`codes = \"aligned\"` needs {lacks}")]
    Aligned {
        /// What it needs.
        lacks: &'static str,
    },
    /// The model, objective or optimiser breaks a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A run cannot go on with this configuration.
    #[error("`{field}` differs from the configuration the run was begun with")]
    Differs {
        /// The field's dotted name.
        field: &'static str,
    },
    /// A number that TOML cannot hold.
    #[error("the configuration cannot be written as TOML: {0}")]
    Unwritable(toml::ser::Error),
}

impl ConfigError {
    /// The parser's error, with the line it is in.
    pub(super) fn syntax(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        Self::Syntax { line, message }
    }
}
