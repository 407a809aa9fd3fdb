//! Reading rows, whole or chunk by chunk, from every kind of source.

mod array;
mod bytes;
mod csv;
mod idx;
#[cfg(feature = "images")]
mod images;
mod memory;
mod npy;
#[cfg(feature = "parquet")]
mod parquet;

pub(crate) use memory::MemoryReader;

use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, ImageShape, Values};
use crate::error::{Cell, DataError};
use crate::labels::Labels;
use crate::source::Format;

/// How sources are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Keep NaN (and, in CSV, empty cells, `NA` and `nan`) as missing values instead of refusing them.
    /// Infinities are refused either way.
    pub allow_nan: bool,
    /// The most bytes of values [`Source::load`](crate::Source::load) may put into memory. Chunked reading
    /// is not limited.
    pub max_bytes: u64,
    /// The folders in which named data sets are looked for, in this order.
    pub folders: Vec<PathBuf>,
}

impl Default for LoadOptions {
    /// Refuses NaN, limits a data set to 64 GiB, and looks for named data sets in `$CVAE_DATA` (if it is
    /// set), `datasets/` and `/usr/share/datasets/`.
    fn default() -> Self {
        let own = std::env::var_os("CVAE_DATA").filter(|value| !value.is_empty());
        let fixed = ["datasets", "/usr/share/datasets"];
        Self {
            allow_nan: false,
            max_bytes: 64 << 30,
            folders: own.map(PathBuf::from).into_iter().chain(fixed.map(PathBuf::from)).collect(),
        }
    }
}

/// What a reader knows before it reads the first row.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    /// The file or data set, for messages.
    pub(crate) path: PathBuf,
    /// Values in a row; at least 1.
    pub(crate) width: usize,
    /// Rows, where a header tells; at least 1.
    pub(crate) rows: Option<u64>,
    /// The shape of a row as an image.
    pub(crate) image: Option<ImageShape>,
    /// The names of the features.
    pub(crate) feature_names: Option<Vec<String>>,
    /// The scale of bytes, where values are bytes; otherwise they are 32-bit floats.
    pub(crate) byte_scale: Option<f32>,
}

impl Meta {
    /// Bytes one value takes in memory.
    fn value_bytes(&self) -> u64 {
        if self.byte_scale.is_some() { 1 } else { 4 }
    }
}

/// The rows read so far, and their labels where there are any.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Whole rows, where [`Meta::byte_scale`] is `None`.
    pub(crate) floats: Vec<f32>,
    /// Whole rows, where there is a [`Meta::byte_scale`].
    pub(crate) bytes: Vec<u8>,
    /// No labels, or one per row.
    pub(crate) labels: Labels,
}

/// A source that hands out its rows in order.
pub(crate) trait RowReader: Send {
    /// Appends at most `max_rows` rows (at least 1) to `block` and returns how many; 0 at the end.
    /// Text formats check their own values, for they know the line; arrays are checked by the caller.
    fn read(&mut self, max_rows: usize, block: &mut Block) -> Result<usize, DataError>;
}

/// Reads a source in chunks of rows, so that data of any size takes the memory of one chunk.
///
/// ```
/// use cvae_data::{LoadOptions, Source};
///
/// let source: Source = "digits".parse()?;
/// let mut reader = source.open(&LoadOptions::default())?;
/// let (mut chunk, mut rows) = (Vec::new(), 0);
/// loop {
///     let count = reader.next_chunk(500, &mut chunk)?;
///     if count == 0 {
///         break;
///     }
///     assert_eq!(chunk.len(), count * reader.width());
///     rows += count;
/// }
/// assert_eq!(rows, 1797);
/// # Ok::<(), cvae_data::DataError>(())
/// ```
pub struct ChunkReader {
    name: String,
    meta: Meta,
    reader: Box<dyn RowReader>,
    block: Block,
    next_row: usize,
    allow_nan: bool,
}

impl std::fmt::Debug for ChunkReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkReader")
            .field("name", &self.name)
            .field("meta", &self.meta)
            .field("next_row", &self.next_row)
            .finish_non_exhaustive()
    }
}

impl ChunkReader {
    /// A reader over `reader`'s rows, called `name`.
    pub(crate) fn new(name: String, meta: Meta, reader: Box<dyn RowReader>, options: &LoadOptions) -> Self {
        Self { name, meta, reader, block: Block::default(), next_row: 0, allow_nan: options.allow_nan }
    }

    /// What the source is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Values in a row; at least one.
    pub fn width(&self) -> usize {
        self.meta.width
    }

    /// Rows in the whole source, where its header tells.
    pub fn rows(&self) -> Option<u64> {
        self.meta.rows
    }

    /// The shape of a row as an image, if it is one.
    pub fn image_shape(&self) -> Option<ImageShape> {
        self.meta.image
    }

    /// One name per feature, if they are known.
    pub fn feature_names(&self) -> Option<&[String]> {
        self.meta.feature_names.as_deref()
    }

    /// Replaces `out` by the next rows, at most `max_rows`, as 32-bit floats (`rows × width`), and returns
    /// how many there are; 0 at the end. Labels are skipped.
    ///
    /// # Errors
    /// [`DataError::EmptyChunk`] for `max_rows` 0, and whatever is wrong with the next rows; `out` is then
    /// empty and reading cannot go on.
    pub fn next_chunk(&mut self, max_rows: usize, out: &mut Vec<f32>) -> Result<usize, DataError> {
        out.clear();
        if max_rows == 0 {
            return Err(DataError::EmptyChunk);
        }
        self.block.floats.clear();
        self.block.bytes.clear();
        self.block.labels.clear();
        let rows = self.read_checked(max_rows)?;
        match self.meta.byte_scale {
            None => out.extend_from_slice(&self.block.floats),
            Some(scale) => out.extend(self.block.bytes.iter().map(|&b| f32::from(b) * scale)),
        }
        Ok(rows)
    }

    /// Reads everything that is left into memory.
    pub(crate) fn load(mut self, max_bytes: u64) -> Result<Dataset, DataError> {
        let row_bytes = (self.meta.width as u64).saturating_mul(self.meta.value_bytes());
        if let Some(rows) = self.meta.rows {
            self.check_size(rows, row_bytes, max_bytes)?;
            self.reserve(rows)?;
        }
        let block_rows = (BLOCK_BYTES / row_bytes.max(1)).max(1) as usize;
        while self.read_checked(block_rows)? > 0 {
            self.check_size(self.next_row as u64, row_bytes, max_bytes)?;
        }
        let values = match self.meta.byte_scale {
            None => Values::F32(self.block.floats),
            Some(scale) => Values::U8 { values: self.block.bytes, scale },
        };
        let mut data = Dataset::new(self.name, values, self.meta.width)?;
        let (labels, class_names) = self.block.labels.finish();
        if let Some(labels) = labels {
            data = data.with_labels(labels)?;
        }
        if let Some(names) = class_names {
            data = data.with_class_names(names)?;
        }
        if let Some(names) = self.meta.feature_names {
            data = data.with_feature_names(names)?;
        }
        match self.meta.image {
            Some(shape) => data.with_image_shape(shape),
            None => Ok(data),
        }
    }

    /// Appends rows to the block and checks the new ones.
    fn read_checked(&mut self, max_rows: usize) -> Result<usize, DataError> {
        let before = self.block.floats.len();
        let rows = self.reader.read(max_rows, &mut self.block)?;
        check_finite(&self.meta.path, &self.block.floats[before..], self.meta.width, self.next_row, self.allow_nan)?;
        self.next_row += rows;
        Ok(rows)
    }

    fn check_size(&self, rows: u64, row_bytes: u64, limit: u64) -> Result<(), DataError> {
        let bytes = rows.saturating_mul(row_bytes);
        if bytes <= limit && rows <= u64::from(u32::MAX) {
            return Ok(());
        }
        Err(DataError::TooLarge { name: self.name.clone(), rows, bytes, limit })
    }

    /// Makes room for `rows` rows, or for a part of them where a header alone vouches for their number.
    fn reserve(&mut self, rows: u64) -> Result<(), DataError> {
        let values = rows.saturating_mul(self.meta.width as u64).min(RESERVE);
        let values = values as usize;
        let result = match self.meta.byte_scale {
            None => self.block.floats.try_reserve_exact(values),
            Some(_) => self.block.bytes.try_reserve_exact(values),
        };
        result.map_err(|_| DataError::TooLarge {
            name: self.name.clone(),
            rows,
            bytes: rows.saturating_mul(self.meta.width as u64).saturating_mul(self.meta.value_bytes()),
            limit: values as u64,
        })
    }
}

/// Opens a file or folder.
pub(crate) fn open_file(
    path: &Path,
    format: Format,
    options: &LoadOptions,
) -> Result<(Meta, Box<dyn RowReader>), DataError> {
    match format {
        Format::Npy => npy::open(path),
        Format::Idx => idx::open(path),
        Format::Csv => csv::open(path, options),
        #[cfg(feature = "parquet")]
        Format::Parquet => parquet::open(path, options),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => Err(DataError::FeatureOff { path: path.to_path_buf(), feature: "parquet" }),
        #[cfg(feature = "images")]
        Format::Images => images::open(path),
        #[cfg(not(feature = "images"))]
        Format::Images => Err(DataError::FeatureOff { path: path.to_path_buf(), feature: "images" }),
    }
}

/// Whether a column of this name holds the labels.
fn is_label_name(name: &str) -> bool {
    ["label", "class", "target"].iter().any(|label| label.eq_ignore_ascii_case(name))
}

/// Bytes of values read between two checks of the size limit.
const BLOCK_BYTES: u64 = 1 << 22;

/// Values reserved at once on the word of a header.
const RESERVE: u64 = 1 << 26;

/// Refuses infinities, and NaN unless it is allowed.
fn check_finite(path: &Path, values: &[f32], width: usize, first_row: usize, allow_nan: bool) -> Result<(), DataError> {
    let refused = |value: &f32| !(value.is_finite() || allow_nan && value.is_nan());
    match values.iter().position(refused) {
        None => Ok(()),
        Some(index) => Err(DataError::NonFinite {
            path: path.to_path_buf(),
            cell: Cell::Index { row: first_row + index / width, column: index % width },
            value: values[index],
        }),
    }
}
