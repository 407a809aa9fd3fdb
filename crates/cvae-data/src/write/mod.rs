//! Writing rows of 32-bit floats to files that are complete or absent.

mod csv;
mod npy;
#[cfg(feature = "parquet")]
mod parquet;

use std::io;
use std::path::Path;

use crate::atomic::AtomicFile;
use crate::error::DataError;

/// One output format: rows go in, bytes go to the temporary file.
trait RowWriter: Send {
    /// Writes whole rows (`rows × width` values).
    fn write(&mut self, file: &mut AtomicFile, values: &[f32]) -> io::Result<()>;

    /// Writes what comes after the last row, `rows` having been written.
    fn finish(&mut self, file: &mut AtomicFile, rows: u64) -> io::Result<()>;
}

/// Writes an array to a file, chunk by chunk; the ending of the path chooses the format.
///
/// | ending | format |
/// |---|---|
/// | `.npy` | NumPy array, version 1.0, little-endian 32-bit floats, `rows × width` |
/// | `.csv` | a header `prefix0,prefix1,…` and one row a line, in the shortest decimals that read back exactly |
/// | `.parquet` | required columns `prefix0`, `prefix1`, … of 32-bit floats (cargo feature `parquet`) |
///
/// The file appears under its name when [`finish`](ArrayWriter::finish) succeeds, complete and flushed to the
/// disk. Dropping the writer before that, or any error, leaves nothing behind.
///
/// ```
/// use cvae_data::{ArrayWriter, LoadOptions, Source};
///
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("z.npy");
/// let mut writer = ArrayWriter::create(&path, 2, "z")?;
/// writer.write(&[1.0, 2.0])?; // one row
/// writer.write(&[3.0, 4.0, 5.0, 6.0])?; // two more
/// writer.finish()?;
///
/// let source: Source = path.to_string_lossy().parse()?;
/// assert_eq!(source.load(&LoadOptions::default())?.rows(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ArrayWriter {
    file: AtomicFile,
    format: Box<dyn RowWriter>,
    width: usize,
    rows: u64,
}

impl std::fmt::Debug for ArrayWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArrayWriter")
            .field("path", &self.file.path())
            .field("width", &self.width)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl ArrayWriter {
    /// Starts a file of rows of `width` values; named columns are called `column_prefix` and their number.
    ///
    /// # Errors
    /// [`DataError::UnknownOutput`] for another ending, [`DataError::FeatureOff`] for a format this build
    /// lacks, [`DataError::NoColumns`] for width 0, and [`DataError::Write`] when the folder cannot be
    /// written.
    pub fn create(path: impl AsRef<Path>, width: usize, column_prefix: &str) -> Result<Self, DataError> {
        Self::start(path.as_ref(), width, &|column| format!("{column_prefix}{column}"))
    }

    /// As [`create`](ArrayWriter::create), with one column for each of `names`.
    ///
    /// # Errors
    /// As [`create`](ArrayWriter::create).
    pub fn create_named(path: impl AsRef<Path>, names: &[String]) -> Result<Self, DataError> {
        Self::start(path.as_ref(), names.len(), &|column| names[column].clone())
    }

    fn start(path: &Path, width: usize, name: &dyn Fn(usize) -> String) -> Result<Self, DataError> {
        if width == 0 {
            return Err(DataError::NoColumns { name: path.display().to_string() });
        }
        let format = OutputFormat::of(path)?;
        let mut file = AtomicFile::create(path)?;
        let format = format.start(&mut file, width, name).map_err(|source| DataError::write(path, source))?;
        Ok(Self { file, format, width, rows: 0 })
    }

    /// Appends rows (`rows × width` values; none is allowed).
    ///
    /// # Errors
    /// [`DataError::PartialRow`] when the values are not whole rows, and [`DataError::Write`].
    pub fn write(&mut self, values: &[f32]) -> Result<(), DataError> {
        if !values.len().is_multiple_of(self.width) {
            return Err(DataError::PartialRow {
                name: self.file.path().display().to_string(),
                values: values.len(),
                width: self.width,
            });
        }
        self.format.write(&mut self.file, values).map_err(|source| DataError::write(self.file.path(), source))?;
        self.rows += (values.len() / self.width) as u64;
        Ok(())
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Completes the file, gives it its name and returns how many rows it has.
    ///
    /// # Errors
    /// [`DataError::Write`]; nothing is left behind.
    pub fn finish(mut self) -> Result<u64, DataError> {
        self.format.finish(&mut self.file, self.rows).map_err(|source| DataError::write(self.file.path(), source))?;
        self.file.commit()?;
        Ok(self.rows)
    }
}

/// Writes `values` (`rows × width`) to `path` at once, as [`ArrayWriter`] does.
///
/// # Errors
/// Those of [`ArrayWriter::create`] and [`ArrayWriter::write`].
pub fn write_array(path: impl AsRef<Path>, width: usize, values: &[f32], column_prefix: &str) -> Result<(), DataError> {
    let mut writer = ArrayWriter::create(path, width, column_prefix)?;
    writer.write(values)?;
    writer.finish().map(|_| ())
}

/// Checks that [`ArrayWriter::create`] would know the format of `path` and could write beside it, so that
/// a long computation does not end in a refused output. The folder is left as it was.
///
/// # Errors
/// Those of [`ArrayWriter::create`].
pub fn check_output(path: impl AsRef<Path>) -> Result<(), DataError> {
    OutputFormat::of(path.as_ref())?;
    AtomicFile::create(path.as_ref()).map(|_| ())
}

/// The formats that can be written.
#[derive(Debug, Clone, Copy)]
enum OutputFormat {
    Npy,
    Csv,
    #[cfg(feature = "parquet")]
    Parquet,
}

impl OutputFormat {
    fn of(path: &Path) -> Result<Self, DataError> {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("npy") => Ok(OutputFormat::Npy),
            Some("csv") => Ok(OutputFormat::Csv),
            #[cfg(feature = "parquet")]
            Some("parquet") => Ok(OutputFormat::Parquet),
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => Err(DataError::FeatureOff { path: path.to_path_buf(), feature: "parquet" }),
            _ => Err(DataError::UnknownOutput { path: path.to_path_buf() }),
        }
    }

    fn start(
        self,
        file: &mut AtomicFile,
        width: usize,
        name: &dyn Fn(usize) -> String,
    ) -> io::Result<Box<dyn RowWriter>> {
        Ok(match self {
            OutputFormat::Npy => Box::new(npy::NpyWriter::start(file, width)?),
            OutputFormat::Csv => Box::new(csv::CsvWriter::start(file, width, name)?),
            #[cfg(feature = "parquet")]
            OutputFormat::Parquet => Box::new(parquet::ParquetWriter::start(file, width, name)?),
        })
    }
}
