//! Comma-separated text.

use std::io::{self, Write};

use super::RowWriter;
use crate::atomic::AtomicFile;

/// Writes a header and one line a row.
pub(super) struct CsvWriter {
    width: usize,
}

impl CsvWriter {
    pub(super) fn start(file: &mut AtomicFile, width: usize, prefix: &str) -> io::Result<Self> {
        let names: Vec<String> = (0..width).map(|column| format!("{prefix}{column}")).collect();
        // The crate quotes a prefix that needs it; numbers never do.
        let mut header = csv::Writer::from_writer(&mut file.writer);
        header.write_record(&names)?;
        header.flush()?;
        drop(header);
        Ok(Self { width })
    }
}

impl RowWriter for CsvWriter {
    fn write(&mut self, file: &mut AtomicFile, values: &[f32]) -> io::Result<()> {
        for row in values.chunks_exact(self.width) {
            for (column, value) in row.iter().enumerate() {
                let end = if column + 1 == self.width { '\n' } else { ',' };
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
