//! Apache Parquet: a table in row groups of compressed columns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::parquet::basic::{ConvertedType, LogicalType, Type};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::DataType;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescriptor;

use super::bytes::{Input, bad_magic};
use super::{Block, LoadOptions, Meta, RowReader, is_label_name};
use crate::error::{Cell, DataError};

/// A column of the file.
struct Column {
    /// Its place among the columns of the file.
    index: usize,
    /// Its place in a row; `None` for the labels.
    feature: Option<usize>,
    /// Whether integers are stored as the signed type of the same size.
    unsigned: bool,
    /// The definition level of a value that is there; 0 where none can be missing.
    present: i16,
}

/// The rows of a Parquet file: its float and integer columns, null being a missing value.
struct ParquetReader {
    path: PathBuf,
    file: SerializedFileReader<std::fs::File>,
    columns: Vec<Column>,
    width: usize,
    allow_nan: bool,
    next_row: usize,
    /// The row group after the current one.
    next_group: usize,
    /// One reader per column of the current row group.
    readers: Vec<ColumnReader>,
    left_in_group: usize,
}

/// Opens a Parquet file.
pub(super) fn open(path: &Path, options: &LoadOptions) -> Result<(Meta, Box<dyn RowReader>), DataError> {
    let mut start = Vec::new();
    Input::open(path)?.read(4, &mut start)?;
    if start != b"PAR1" {
        return Err(bad_magic(path, "a Parquet", &start));
    }
    let handle = std::fs::File::open(path).map_err(|source| DataError::read(path, source))?;
    let file = contained(path, || SerializedFileReader::new(handle))?;
    check_ranges(path, &file)?;
    let (columns, names) = columns(path, &file)?;
    if names.is_empty() {
        return Err(DataError::NoColumns { name: path.display().to_string() });
    }
    let mut rows = 0u64;
    for group in file.metadata().row_groups() {
        let count = u64::try_from(group.num_rows()).map_err(|_| short(path))?;
        rows = rows.saturating_add(count);
    }
    if rows == 0 {
        return Err(DataError::NoRows { name: path.display().to_string() });
    }
    let meta = Meta {
        path: path.to_path_buf(),
        width: names.len(),
        rows: Some(rows),
        image: None,
        feature_names: Some(names),
        byte_scale: None,
    };
    let reader = ParquetReader {
        path: path.to_path_buf(),
        width: meta.width,
        file,
        columns,
        allow_nan: options.allow_nan,
        next_row: 0,
        next_group: 0,
        readers: Vec::new(),
        left_in_group: 0,
    };
    Ok((meta, Box::new(reader)))
}

/// Compares where the columns lie, as the file says, with the size of the file: the library relies on it.
fn check_ranges(path: &Path, file: &SerializedFileReader<std::fs::File>) -> Result<(), DataError> {
    let metadata = std::fs::metadata(path).map_err(|source| DataError::read(path, source))?;
    for column in file.metadata().row_groups().iter().flat_map(|g| g.columns()) {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let range = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
        let end = range.and_then(|(start, length)| start.checked_add(length));
        if end.is_none_or(|end| end > metadata.len()) {
            let found = "a column lies outside of the file";
            return Err(corrupt(path, ParquetError::General(found.to_owned())));
        }
    }
    Ok(())
}

/// The columns to read and the names of the features.
fn columns(path: &Path, file: &SerializedFileReader<std::fs::File>) -> Result<(Vec<Column>, Vec<String>), DataError> {
    let schema = file.metadata().file_metadata().schema_descr();
    let mut columns = Vec::new();
    let mut names = Vec::new();
    let mut label: Option<String> = None;
    for (index, descriptor) in schema.columns().iter().enumerate() {
        let name = descriptor.path().string();
        let is_label = is_label_name(&name);
        let unsupported = |kind: &str| DataError::UnsupportedColumn {
            path: path.to_path_buf(),
            column: name.clone(),
            kind: kind.to_owned(),
        };
        if descriptor.max_rep_level() > 0 {
            return Err(unsupported("list"));
        }
        let unsigned = match number_type(descriptor) {
            Some(unsigned) => unsigned,
            None if is_label && descriptor.physical_type() == Type::BYTE_ARRAY => false,
            None => return Err(unsupported(&descriptor.physical_type().to_string())),
        };
        let feature = if is_label {
            if let Some(first) = label {
                return Err(DataError::AmbiguousLabel { path: path.to_path_buf(), first, second: name });
            }
            label = Some(name);
            None
        } else {
            names.push(name);
            Some(names.len() - 1)
        };
        columns.push(Column { index, feature, unsigned, present: descriptor.max_def_level() });
    }
    Ok((columns, names))
}

/// Whether the column holds plain numbers, and if so whether they are unsigned.
fn number_type(descriptor: &ColumnDescriptor) -> Option<bool> {
    match descriptor.physical_type() {
        Type::FLOAT | Type::DOUBLE => return Some(false),
        Type::INT32 | Type::INT64 => {}
        _ => return None,
    }
    match (descriptor.logical_type_ref(), descriptor.converted_type()) {
        (Some(LogicalType::Integer(integer)), _) => Some(!integer.is_signed),
        (Some(_), _) => None,
        (None, ConvertedType::NONE) => Some(false),
        (None, ConvertedType::INT_8 | ConvertedType::INT_16 | ConvertedType::INT_32 | ConvertedType::INT_64) => {
            Some(false)
        }
        (None, ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64) => {
            Some(true)
        }
        (None, _) => None,
    }
}

impl RowReader for ParquetReader {
    fn read(&mut self, max_rows: usize, block: &mut Block) -> Result<usize, DataError> {
        while self.left_in_group == 0 {
            if self.next_group == self.file.metadata().num_row_groups() {
                return Ok(0);
            }
            self.open_group()?;
        }
        let rows = self.left_in_group.min(max_rows);
        let start = block.floats.len();
        block.floats.resize(start + rows * self.width, 0.0);
        for (column, reader) in self.columns.iter().zip(&mut self.readers) {
            let place = Place { path: &self.path, column: column.index, first_row: self.next_row };
            match column.feature {
                Some(feature) => {
                    let cells = contained(&self.path, || numbers(reader, column, rows))?;
                    if cells.len() != rows {
                        return Err(short(&self.path));
                    }
                    let slots = block.floats[start..].iter_mut().skip(feature);
                    for (row, (slot, cell)) in slots.step_by(self.width).zip(cells).enumerate() {
                        *slot = match cell {
                            Some(value) => value as f32,
                            None if self.allow_nan => f32::NAN,
                            None => return Err(place.missing(row)),
                        };
                    }
                }
                None => {
                    let cells = contained(&self.path, || texts(reader, column, rows))?;
                    if cells.len() != rows {
                        return Err(short(&self.path));
                    }
                    for (row, cell) in cells.into_iter().enumerate() {
                        let text = cell.ok_or_else(|| place.missing(row))?;
                        block.labels.push_name(&place.label(row, text)?);
                    }
                }
            }
        }
        self.left_in_group -= rows;
        self.next_row += rows;
        Ok(rows)
    }
}

impl ParquetReader {
    /// Starts on the next row group.
    fn open_group(&mut self) -> Result<(), DataError> {
        let (path, file, index) = (&self.path, &self.file, self.next_group);
        let group = contained(path, || file.get_row_group(index))?;
        let rows = usize::try_from(group.metadata().num_rows());
        self.left_in_group = rows.map_err(|_| short(path))?;
        self.readers.clear();
        for column in &self.columns {
            let reader = contained(path, || group.get_column_reader(column.index))?;
            self.readers.push(reader);
        }
        self.next_group += 1;
        Ok(())
    }
}

/// Where cells of one column stand, for messages.
struct Place<'a> {
    path: &'a Path,
    column: usize,
    first_row: usize,
}

impl Place<'_> {
    fn cell(&self, row: usize) -> Cell {
        Cell::Index { row: self.first_row + row, column: self.column }
    }

    fn missing(&self, row: usize) -> DataError {
        DataError::MissingValue { path: self.path.to_path_buf(), cell: self.cell(row) }
    }

    /// A label is a name or a whole number.
    fn label(&self, row: usize, text: String) -> Result<String, DataError> {
        if !text.is_empty() && text.parse::<f64>().map_or(true, |x| x.fract() == 0.0) {
            return Ok(text);
        }
        Err(DataError::BadLabel { path: self.path.to_path_buf(), cell: self.cell(row), text })
    }
}

/// The next `rows` cells of a column of numbers.
fn numbers(reader: &mut ColumnReader, column: &Column, rows: usize) -> Result<Vec<Option<f64>>, ParquetError> {
    match reader {
        ColumnReader::FloatColumnReader(reader) => cells(reader, column, rows, |x| f64::from(*x)),
        ColumnReader::DoubleColumnReader(reader) => cells(reader, column, rows, |x| *x),
        ColumnReader::Int32ColumnReader(reader) if column.unsigned => {
            cells(reader, column, rows, |x| f64::from(*x as u32))
        }
        ColumnReader::Int32ColumnReader(reader) => cells(reader, column, rows, |x| f64::from(*x)),
        ColumnReader::Int64ColumnReader(reader) if column.unsigned => cells(reader, column, rows, |x| *x as u64 as f64),
        ColumnReader::Int64ColumnReader(reader) => cells(reader, column, rows, |x| *x as f64),
        // `columns` accepts no other type.
        _ => Ok(Vec::new()),
    }
}

/// The next `rows` cells of the label column as text.
fn texts(reader: &mut ColumnReader, column: &Column, rows: usize) -> Result<Vec<Option<String>>, ParquetError> {
    match reader {
        ColumnReader::ByteArrayColumnReader(reader) => {
            cells(reader, column, rows, |x| String::from_utf8_lossy(x.data()).into_owned())
        }
        _ => {
            let cells = numbers(reader, column, rows)?;
            let text = |cell: Option<f64>| cell.map(|x| x.to_string());
            Ok(cells.into_iter().map(text).collect())
        }
    }
}

/// The next `rows` cells, fewer at the end of the column; `None` stands for null.
fn cells<T: DataType, U>(
    reader: &mut ColumnReaderImpl<T>,
    column: &Column,
    rows: usize,
    convert: impl Fn(&T::T) -> U,
) -> Result<Vec<Option<U>>, ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let mut got = 0;
    while got < rows {
        let (records, _, _) = reader.read_records(rows - got, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            break;
        }
        got += records;
    }
    let mut values = values.iter().map(convert);
    if column.present == 0 {
        return Ok(values.map(Some).collect());
    }
    let cell = |level: &i16| (*level == column.present).then(|| values.next()).flatten();
    Ok(levels.iter().map(cell).collect())
}

/// Calls the Parquet library, which answers some contradictions in damaged files with a panic: they are
/// errors here like all others. A reader that failed is not used again.
fn contained<T>(path: &Path, call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| corrupt(path, error)),
        Err(_) => {
            let found = "its pages contradict its structure";
            Err(corrupt(path, ParquetError::General(found.to_owned())))
        }
    }
}

/// What the Parquet library found wrong.
fn corrupt(path: &Path, error: ParquetError) -> DataError {
    DataError::Corrupt { path: path.to_path_buf(), format: "Parquet", source: Box::new(error) }
}

/// Fewer cells than rows.
fn short(path: &Path) -> DataError {
    let found = "a column has another length than its row group";
    corrupt(path, ParquetError::General(found.to_owned()))
}
