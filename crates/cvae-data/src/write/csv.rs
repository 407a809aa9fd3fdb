//! Comma-separated text.

use std::io::{self, Write};

use super::RowWriter;
use crate::atomic::AtomicFile;

/// Writes a header and one line a row.
pub(super) struct CsvWriter {
    width: usize,
}

impl CsvWriter {
    /// Writes the header; `name` gives the name of a column.
    pub(super) fn start(file: &mut AtomicFile, width: usize, name: &dyn Fn(usize) -> String) -> io::Result<Self> {
        for column in 0..width {
            let name = name(column).replace('"', "\"\"");
            let quote = if name.contains([',', '"', '\n', '\r']) { "\"" } else { "" };
            let end = end_of(column, width);
            write!(file.writer, "{quote}{name}{quote}{end}")?;
        }
        Ok(Self { width })
    }
}

impl RowWriter for CsvWriter {
    fn write(&mut self, file: &mut AtomicFile, values: &[f32]) -> io::Result<()> {
        for row in values.chunks_exact(self.width) {
            for (column, value) in row.iter().enumerate() {
                let end = end_of(column, self.width);
                // `{:?}` is the shortest text that reads back as the same number.
                write!(file.writer, "{value:?}{end}")?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, _file: &mut AtomicFile, _rows: u64) -> io::Result<()> {
        Ok(())
    }
}

/// What follows the cell of `column`.
fn end_of(column: usize, width: usize) -> char {
    if column + 1 == width { '\n' } else { ',' }
}
