//! What is printed, and how errors are put into words.

use std::io::{self, Write};

use anyhow::{Context, Error, Result};
use serde::Serialize;

/// Prints one line of results.
///
/// # Errors
/// A standard output that cannot be written to.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").context("standard output cannot be written")
}

/// Prints one line of JSON.
///
/// # Errors
/// A standard output that cannot be written to.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string(value).context("the results have no JSON form")?)
}

/// Prints names and values in two columns.
///
/// # Errors
/// A standard output that cannot be written to.
pub(crate) fn table(rows: &[(String, String)]) -> Result<()> {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().try_for_each(|(name, value)| line(format_args!("{name:width$}  {value}")))
}

/// Prints lines of cells in columns that are as wide as their widest cell.
///
/// # Errors
/// A standard output that cannot be written to.
pub(crate) fn columns(lines: &[Vec<String>]) -> Result<()> {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|cells| cells.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    lines.iter().try_for_each(|cells| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end())
    })
}

/// The error as one sentence on one line: its causes follow the colon, unless a message says them already.
pub(crate) fn sentence(error: &Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        let part: Vec<&str> = part.split_whitespace().collect();
        let part = part.join(" ");
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
    }
    text
}

/// Whether the reader of standard output is gone, which is no failure.
pub(crate) fn is_closed_pipe(error: &Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

/// A number in as many digits as are worth reading.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || value == 0.0 {
        return value.to_string();
    }
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.3e}");
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 7) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let cause = io::Error::other("the disk\nis gone");
        let error = Error::new(cause).context("z.npy: cannot be written: the disk is gone").context("writing codes");
        assert_eq!(sentence(&error), "writing codes: z.npy: cannot be written: the disk is gone");
        assert_eq!(sentence(&anyhow::anyhow!("a").context("b")), "b: a");
    }

    #[test]
    fn closed_pipes_are_told_from_other_failures() {
        let error = |kind: io::ErrorKind| Error::new(io::Error::from(kind)).context("standard output");
        assert!(is_closed_pipe(&error(io::ErrorKind::BrokenPipe)));
        assert!(!is_closed_pipe(&error(io::ErrorKind::StorageFull)));
    }

    #[test]
    fn figures_have_four_digits() {
        let found: Vec<String> = [0.0, 0.010_123_4, 1.5, 123_456.0, 2e-7, f64::INFINITY].map(figure).to_vec();
        assert_eq!(found, ["0", "0.01012", "1.500", "123456", "2.000e-7", "inf"]);
    }
}
