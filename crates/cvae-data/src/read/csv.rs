//! Comma-separated text.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use csv_core::ReadRecordResult;

use super::bytes::{Input, read_error};
use super::{Block, LoadOptions, Meta, RowReader, is_label_name};
use crate::error::{Cell, DataError};

/// No line of a real table is longer: this is room for millions of cells.
const MAX_LINE: usize = 64 << 20;

/// Opens a CSV file and reads up to its first row of values.
pub(super) fn open(path: &Path, options: &LoadOptions) -> Result<(Meta, Box<dyn RowReader>), DataError> {
    let mut reader = CsvReader {
        lines: Lines::new(Input::open(path)?),
        pending: false,
        cells: 0,
        label: None,
        allow_nan: options.allow_nan,
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

/// The lines of a file, split into cells. Cells may be quoted, but not contain line ends.
struct Lines {
    path: PathBuf,
    compressed: bool,
    input: Box<dyn BufRead + Send>,
    /// The number of the current line, counted from 1.
    number: u64,
    line: Vec<u8>,
    splitter: csv_core::Reader,
    /// The cells of the current line without quotes, one after another.
    text: Vec<u8>,
    /// Where each cell ends in `text`, as far as `count`.
    ends: Vec<usize>,
    count: usize,
}

impl Lines {
    fn new(input: Input) -> Self {
        Self {
            path: input.path().to_path_buf(),
            compressed: input.is_compressed(),
            input: input.into_reader(),
            number: 0,
            line: Vec::new(),
            splitter: csv_core::Reader::new(),
            text: Vec::new(),
            ends: Vec::new(),
            count: 0,
        }
    }

    /// Reads and splits the next line that is not blank; false at the end.
    fn advance(&mut self) -> Result<bool, DataError> {
        loop {
            self.line.clear();
            self.number += 1;
            // One byte more than allowed tells a longest line from a longer one, and a file without line
            // ends cannot fill the memory.
            let got = (&mut self.input)
                .take(MAX_LINE as u64 + 1)
                .read_until(b'\n', &mut self.line)
                .map_err(|source| read_error(&self.path, self.compressed, source))?;
            if got == 0 {
                return Ok(false);
            }
            if got > MAX_LINE {
                return Err(DataError::LineTooLong { path: self.path.clone(), line: self.number, limit: MAX_LINE });
            }
            if !self.line.trim_ascii().is_empty() {
                self.split();
                return Ok(true);
            }
        }
    }

    /// Splits the current line.
    fn split(&mut self) {
        // Neither the cells nor their number can exceed the bytes of the line.
        if self.text.len() <= self.line.len() {
            self.text.resize(self.line.len() + 1, 0);
            self.ends.resize(self.line.len() + 1, 0);
        }
        self.splitter.reset();
        let (state, _, bytes, cells) = self.splitter.read_record(&self.line, &mut self.text, &mut self.ends);
        self.count = cells;
        if state == ReadRecordResult::InputEmpty {
            // The last line may lack its end, and a quoted cell its closing quote.
            let (_, _, _, more) = self.splitter.read_record(&[], &mut self.text[bytes..], &mut self.ends[cells..]);
            self.count += more;
        }
    }

    /// The cells of the current line, without blanks around them.
    fn cells(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends[..self.count].iter().map(move |&end| {
            let cell = &self.text[start..end];
            start = end;
            cell.trim_ascii()
        })
    }
}

/// The rows of a CSV file.
///
/// The first line is a header when no cell of it is a number, or when one names the label column. Empty
/// cells, `NA` and `nan` are missing values.
struct CsvReader {
    lines: Lines,
    /// Whether the current line is read but not yet handed out.
    pending: bool,
    cells: usize,
    label: Option<usize>,
    allow_nan: bool,
}

impl CsvReader {
    /// Reads the header, if there is one, and the first row; returns the names of the columns.
    fn read_start(&mut self) -> Result<Option<Vec<String>>, DataError> {
        if !self.lines.advance()? {
            return Err(self.no_rows());
        }
        self.cells = self.lines.count;
        let header = self.header()?;
        if header.is_some() && !self.lines.advance()? {
            return Err(self.no_rows());
        }
        self.pending = true;
        Ok(header)
    }

    fn no_rows(&self) -> DataError {
        DataError::NoRows { name: self.lines.path.display().to_string() }
    }

    /// The first line as names, if it is a header; also finds the label column.
    fn header(&mut self) -> Result<Option<Vec<String>>, DataError> {
        let names: Vec<String> = self.lines.cells().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
        let is_label = |name: &&String| is_label_name(name);
        let labels: Vec<&String> = names.iter().filter(is_label).collect();
        if let [first, second, ..] = labels[..] {
            return Err(DataError::AmbiguousLabel {
                path: self.lines.path.clone(),
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
            return Err(DataError::UnnamedColumn { path: self.lines.path.clone(), column: column + 1 });
        }
        self.label = names.iter().position(|name| is_label_name(name));
        Ok(Some(names))
    }

    /// Appends the current line to `block`.
    fn push_row(&self, block: &mut Block) -> Result<(), DataError> {
        let line = self.lines.number;
        if self.lines.count != self.cells {
            return Err(DataError::RaggedRow {
                path: self.lines.path.clone(),
                line,
                expected: self.cells,
                found: self.lines.count,
            });
        }
        for (column, bytes) in self.lines.cells().enumerate() {
            let cell = Cell::Line { line, column: column + 1 };
            let text = std::str::from_utf8(bytes).map_err(|_| self.not_numeric(cell, bytes))?;
            if Some(column) == self.label {
                block.labels.push_name(self.label_text(cell, text)?);
            } else {
                block.floats.push(self.number(cell, text)?);
            }
        }
        Ok(())
    }

    fn number(&self, cell: Cell, text: &str) -> Result<f32, DataError> {
        if is_missing(text) && self.allow_nan {
            return Ok(f32::NAN);
        }
        if text.is_empty() {
            return Err(DataError::MissingValue { path: self.lines.path.clone(), cell });
        }
        let value: f32 = text.parse().map_err(|_| self.not_numeric(cell, text.as_bytes()))?;
        if !value.is_finite() {
            return Err(DataError::NonFinite { path: self.lines.path.clone(), cell, value });
        }
        Ok(value)
    }

    /// A label is a name or a whole number.
    fn label_text<'a>(&self, cell: Cell, text: &'a str) -> Result<&'a str, DataError> {
        let whole = text.parse::<f64>().map_or(true, |x| x.fract() == 0.0);
        if !text.is_empty() && whole {
            return Ok(text);
        }
        Err(DataError::BadLabel { path: self.lines.path.clone(), cell, text: shorten(text.as_bytes()) })
    }

    fn not_numeric(&self, cell: Cell, bytes: &[u8]) -> DataError {
        DataError::NotNumeric { path: self.lines.path.clone(), cell, text: shorten(bytes) }
    }
}

impl RowReader for CsvReader {
    fn read(&mut self, max_rows: usize, block: &mut Block) -> Result<usize, DataError> {
        let mut rows = 0;
        while rows < max_rows {
            if !self.pending && !self.lines.advance()? {
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
