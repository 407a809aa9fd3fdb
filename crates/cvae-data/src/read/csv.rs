//! Comma-separated text.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::bytes::{Input, read_error};
use super::{Block, LoadOptions, Meta, RowReader};
use crate::error::{Cell, DataError};

/// The names a label column may have.
const LABEL_NAMES: [&str; 3] = ["label", "class", "target"];

/// No line of a real table is longer: this is room for millions of cells.
const MAX_LINE: usize = 64 << 20;

/// The rows of a CSV file.
///
/// The first line is a header when no cell of it is a number, or when one names the label column. Empty
/// cells, `NA` and `nan` are missing values.
struct CsvReader {
    path: PathBuf,
    compressed: bool,
    records: Reader<LineLimit>,
    record: ByteRecord,
    /// Whether `record` is read but not yet handed out.
    pending: bool,
    cells: usize,
    label: Option<usize>,
    allow_nan: bool,
    lines: u64,
}

/// Opens a CSV file and reads up to its first row of values.
pub(super) fn open(path: &Path, options: &LoadOptions) -> Result<(Meta, Box<dyn RowReader>), DataError> {
    let input = Input::open(path)?;
    let compressed = input.is_compressed();
    let bytes = LineLimit { inner: input.into_reader(), since_record: 0 };
    let mut reader = CsvReader {
        path: path.to_path_buf(),
        compressed,
        records: ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes),
        record: ByteRecord::new(),
        pending: false,
        cells: 0,
        label: None,
        allow_nan: options.allow_nan,
        lines: 0,
    };
    let names = reader.read_start()?;
    let width = reader.cells - usize::from(reader.label.is_some());
    if width == 0 {
        return Err(DataError::NoColumns { name: path.display().to_string() });
    }
    let feature_names = names.map(|names| {
        let kept = names.into_iter().enumerate();
        kept.filter(|(column, _)| Some(*column) != reader.label).map(|(_, name)| name).collect()
    });
    let meta = Meta { path: path.to_path_buf(), width, rows: None, image: None, feature_names, byte_scale: None };
    Ok((meta, Box::new(reader)))
}

impl CsvReader {
    /// Reads the header, if there is one, and the first row; returns the names of the columns.
    fn read_start(&mut self) -> Result<Option<Vec<String>>, DataError> {
        let no_rows = || DataError::NoRows { name: self.path.display().to_string() };
        let (none_after_header, none_at_all) = (no_rows(), no_rows());
        if !self.advance()? {
            return Err(none_at_all);
        }
        self.cells = self.record.len();
        let header = self.header()?;
        if header.is_some() && !self.advance()? {
            return Err(none_after_header);
        }
        self.pending = true;
        Ok(header)
    }

    /// The first line as names, if it is a header; also finds the label column.
    fn header(&mut self) -> Result<Option<Vec<String>>, DataError> {
        let names: Vec<String> =
            self.record.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_owned()).collect();
        let is_label = |name: &&String| LABEL_NAMES.iter().any(|label| label.eq_ignore_ascii_case(name));
        let labels: Vec<&String> = names.iter().filter(is_label).collect();
        if let [first, second, ..] = labels[..] {
            return Err(DataError::AmbiguousLabel {
                path: self.path.clone(),
                first: first.clone(),
                second: second.clone(),
            });
        }
        let numeric = |name: &String| name.parse::<f32>().is_ok();
        let text = names.iter().any(|name| !is_missing(name));
        if labels.is_empty() && (names.iter().any(numeric) || !text) {
            return Ok(None);
        }
        if let Some(column) = names.iter().position(String::is_empty) {
            return Err(DataError::UnnamedColumn { path: self.path.clone(), column: column + 1 });
        }
        self.label = names.iter().position(|name| is_label(&name));
        Ok(Some(names))
    }

    /// Reads the next line that is not blank; false at the end.
    fn advance(&mut self) -> Result<bool, DataError> {
        let found = match self.records.read_byte_record(&mut self.record) {
            Ok(found) => found,
            Err(error) => return Err(self.failed(error.into())),
        };
        self.lines = self.records.position().line();
        self.records.get_mut().since_record = 0;
        Ok(found)
    }

    /// What a failed read means.
    fn failed(&self, error: io::Error) -> DataError {
        if error.get_ref().is_some_and(|inner| inner.is::<TooLong>()) {
            return DataError::LineTooLong { path: self.path.clone(), line: self.lines.max(1), limit: MAX_LINE };
        }
        read_error(&self.path, self.compressed, error)
    }

    /// Appends the current line to `block`.
    fn push_row(&self, block: &mut Block) -> Result<(), DataError> {
        let line = self.line();
        if self.record.len() != self.cells {
            return Err(DataError::RaggedRow {
                path: self.path.clone(),
                line,
                expected: self.cells,
                found: self.record.len(),
            });
        }
        for (column, bytes) in self.record.iter().enumerate() {
            let cell = Cell::Line { line, column: column + 1 };
            let text = std::str::from_utf8(bytes).map(str::trim);
            let text = text.map_err(|_| self.not_numeric(cell, bytes))?;
            if Some(column) == self.label {
                block.labels.push_name(self.label_text(cell, text)?);
            } else {
                block.floats.push(self.number(cell, text)?);
            }
        }
        Ok(())
    }

    /// The line of the current record, counted from 1.
    fn line(&self) -> u64 {
        self.record.position().map_or(self.lines, csv::Position::line)
    }

    fn number(&self, cell: Cell, text: &str) -> Result<f32, DataError> {
        if is_missing(text) && self.allow_nan {
            return Ok(f32::NAN);
        }
        if text.is_empty() {
            return Err(DataError::MissingValue { path: self.path.clone(), cell });
        }
        let value: f32 = text.parse().map_err(|_| self.not_numeric(cell, text.as_bytes()))?;
        if !value.is_finite() {
            return Err(DataError::NonFinite { path: self.path.clone(), cell, value });
        }
        Ok(value)
    }

    /// A label is a name or a whole number.
    fn label_text<'a>(&self, cell: Cell, text: &'a str) -> Result<&'a str, DataError> {
        let whole = text.parse::<f64>().map_or(true, |x| x.fract() == 0.0);
        if !text.is_empty() && whole {
            return Ok(text);
        }
        Err(DataError::BadLabel { path: self.path.clone(), cell, text: shorten(text.as_bytes()) })
    }

    fn not_numeric(&self, cell: Cell, bytes: &[u8]) -> DataError {
        DataError::NotNumeric { path: self.path.clone(), cell, text: shorten(bytes) }
    }
}

impl RowReader for CsvReader {
    fn read(&mut self, max_rows: usize, block: &mut Block) -> Result<usize, DataError> {
        let mut rows = 0;
        while rows < max_rows {
            if !self.pending && !self.advance()? {
                break;
            }
            self.pending = false;
            self.push_row(block)?;
            rows += 1;
        }
        Ok(rows)
    }
}

/// Whether a cell stands for a missing value.
fn is_missing(text: &str) -> bool {
    text.is_empty() || text == "NA" || text.eq_ignore_ascii_case("nan")
}

/// At most 40 characters of a cell, printable.
fn shorten(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().nth(40).is_some() {
        short.push('…');
    }
    short
}

/// Refuses to feed more than [`MAX_LINE`] bytes into one record, so that a file without line ends cannot
/// fill the memory.
struct LineLimit {
    inner: Box<dyn BufRead + Send>,
    since_record: usize,
}

/// A line beyond the limit.
#[derive(Debug, thiserror::Error)]
#[error("line too long")]
struct TooLong;

impl Read for LineLimit {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_record > MAX_LINE {
            return Err(io::Error::other(TooLong));
        }
        let count = self.inner.read(buffer)?;
        self.since_record += count;
        Ok(count)
    }
}
