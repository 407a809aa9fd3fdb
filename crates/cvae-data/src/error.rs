//! What can be wrong with data, one variant per cause.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::dataset::ImageShape;
use crate::scaling::ScalingError;

/// Where in a file a value stands, in the terms its reader can check by opening the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// A text file: line and column as an editor or a spreadsheet counts them, from 1.
    Line {
        /// Line, counted from 1.
        line: u64,
        /// Column, counted from 1.
        column: usize,
    },
    /// An array: indices as a program counts them, from 0.
    Index {
        /// Row, counted from 0.
        row: usize,
        /// Feature within the row, counted from 0.
        column: usize,
    },
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Line { line, column } => write!(f, "line {line}, column {column}"),
            Cell::Index { row, column } => {
                write!(f, "row {row}, column {column} (counted from 0)")
            }
        }
    }
}

/// What is wrong with the header of an array file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// The format version is not one this reader knows.
    #[error("its format version is unknown")]
    Version,
    /// The header is not the text the format prescribes.
    #[error("it is not well-formed")]
    Syntax,
    /// The file ends inside it.
    #[error("the file ends inside it")]
    Short,
    /// A field the format requires is absent.
    #[error("a required field is missing")]
    MissingField,
    /// The declared sizes multiply to more than can be addressed.
    #[error("its dimensions overflow")]
    Overflow,
    /// The header is longer than any real one.
    #[error("it is longer than 64 KiB")]
    TooLong,
}

/// Everything that can go wrong between a source's name and rows in memory, or rows and a file.
///
/// Every message is one sentence that names the file (or the data set) and, where there is one, the
/// row and the column.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The path does not exist.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The operating system refused to read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The operating system refused to write.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("{}: the file is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file ends before what its header declares.
    #[error("{}: truncated: its header declares {expected} bytes of values, at most {found} are there", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes the header declares.
        expected: u64,
        /// Bytes found (for a compressed file: an upper bound when nothing was unpacked).
        found: u64,
    },
    /// The file goes on after what its header declares.
    #[error("{}: longer than its header declares ({expected} bytes of values)", path.display())]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// Bytes the header declares.
        expected: u64,
    },
    /// The first bytes are not those of the format.
    #[error("{}: not {format} file: its first bytes are {found:02x?}", path.display())]
    BadMagic {
        /// The file.
        path: PathBuf,
        /// The format with its article, such as `an npy`.
        format: &'static str,
        /// The bytes found, at most eight.
        found: Vec<u8>,
    },
    /// The header is unusable.
    #[error("{}: bad {format} header: {fault}", path.display())]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// What is wrong.
        fault: HeaderFault,
    },
    /// The compressed stream is damaged or cut short.
    #[error("{}: the gzip data is damaged or cut short: {source}", path.display())]
    CorruptGzip {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: io::Error,
    },
    /// The library that reads the format found it damaged or beyond what it supports.
    #[error("{}: not a usable {format} file: {source}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// What the library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A column of a table that holds no numbers.
    #[error("{}: column `{column}` holds {kind} values; numbers are needed (and in a column `label`, names may stand)", path.display())]
    UnsupportedColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The type as the file spells it.
        kind: String,
    },
    /// The array holds a type of value that is not read.
    #[error("{}: values of type `{dtype}` are not supported (8 to 64-bit integers and 32 or 64-bit floats are)", path.display())]
    UnsupportedType {
        /// The file.
        path: PathBuf,
        /// The type as the file spells it.
        dtype: String,
    },
    /// The array is stored column by column.
    #[error("{}: the array is in Fortran order; save it with numpy.ascontiguousarray", path.display())]
    FortranOrder {
        /// The file.
        path: PathBuf,
    },
    /// The array has no row axis and feature axis.
    #[error("{}: an array of {dimensions} dimension(s) where rows and columns are needed; reshape it to 2-D", path.display())]
    Dimensions {
        /// The file.
        path: PathBuf,
        /// How many dimensions it has.
        dimensions: usize,
    },
    /// The labels beside a file of rows are not one axis of numbers.
    #[error("{}: labels with {dimensions} axes where one is needed", path.display())]
    LabelDimensions {
        /// The file of labels.
        path: PathBuf,
        /// How many axes it has.
        dimensions: usize,
    },
    /// There is not one row.
    #[error("{name}: no rows")]
    NoRows {
        /// The file or data set.
        name: String,
    },
    /// There is not one feature column.
    #[error("{name}: no feature columns")]
    NoColumns {
        /// The file or data set.
        name: String,
    },
    /// More than memory or a 32-bit row index can hold.
    #[error("{name}: {bytes} bytes of values in {rows} rows are more than the limit of {limit} bytes and 2^32-1 rows")]
    TooLarge {
        /// The file or data set.
        name: String,
        /// Rows asked for, as far as they were read.
        rows: u64,
        /// Bytes asked for, as far as they were read.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Values that do not fill whole rows.
    #[error("{name}: {values} values are not a whole number of rows of width {width}")]
    PartialRow {
        /// The file or data set.
        name: String,
        /// How many values there are.
        values: usize,
        /// Values in a row.
        width: usize,
    },
    /// A row of another width than the model or the writer was made for.
    #[error("{name}: rows of width {found} where {expected} are needed")]
    WrongWidth {
        /// The file or data set.
        name: String,
        /// Width needed.
        expected: usize,
        /// Width found.
        found: usize,
    },
    /// A line with another number of cells than the first.
    #[error("{}: line {line} has {found} cells where the lines before have {expected}", path.display())]
    RaggedRow {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// Cells in the first line.
        expected: usize,
        /// Cells in this line.
        found: usize,
    },
    /// A line that no table has.
    #[error("{}: line {line} is longer than {limit} bytes", path.display())]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// A cell that is not a number.
    #[error("{}: {cell} holds `{text}`, which is not a number", path.display())]
    NotNumeric {
        /// The file.
        path: PathBuf,
        /// Where.
        cell: Cell,
        /// The text found, shortened.
        text: String,
    },
    /// A cell without a value, while missing values were not allowed.
    #[error("{}: {cell} is empty", path.display())]
    MissingValue {
        /// The file.
        path: PathBuf,
        /// Where.
        cell: Cell,
    },
    /// NaN, an infinity, or a number beyond the range of 32-bit floats.
    #[error("{}: {cell} holds {value}, which is not a finite 32-bit number", path.display())]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// Where.
        cell: Cell,
        /// The value as a 32-bit float.
        value: f32,
    },
    /// A header cell without a name, as a table saved with its row index has.
    #[error("{}: column {column} has no name in the header; name it, or remove it if it is a row index", path.display())]
    UnnamedColumn {
        /// The file.
        path: PathBuf,
        /// Column, counted from 1.
        column: usize,
    },
    /// A label that stands for no class.
    #[error("{}: {cell} holds the label `{text}`; labels are whole numbers or names", path.display())]
    BadLabel {
        /// The file.
        path: PathBuf,
        /// Where.
        cell: Cell,
        /// The text found, shortened.
        text: String,
    },
    /// More than one column could be the labels.
    #[error("{}: both `{first}` and `{second}` look like the label column; keep one", path.display())]
    AmbiguousLabel {
        /// The file.
        path: PathBuf,
        /// One name.
        first: String,
        /// The other name.
        second: String,
    },
    /// As many labels as rows are needed.
    #[error("{name}: {labels} labels for {rows} rows")]
    LabelCount {
        /// The file or data set.
        name: String,
        /// Labels found.
        labels: usize,
        /// Rows found.
        rows: usize,
    },
    /// A label beyond the list of class names.
    #[error("{name}: row {row} has label {label}, but there are {classes} class names")]
    LabelOutOfRange {
        /// The file or data set.
        name: String,
        /// Row, counted from 0.
        row: usize,
        /// The label.
        label: u32,
        /// How many names there are.
        classes: usize,
    },
    /// An image shape that does not multiply to the width of a row.
    #[error("{name}: an image of {shape} has {} values, a row has {width}", shape.len())]
    ImageShape {
        /// The file or data set.
        name: String,
        /// The shape.
        shape: ImageShape,
        /// Values in a row.
        width: usize,
    },
    /// A source that is neither a known name nor a known kind of path.
    #[error("unknown data source `{text}`{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownSource {
        /// The text given.
        text: String,
        /// The nearest known name, if one is near.
        suggestion: Option<String>,
    },
    /// A part a data set does not have.
    #[error("`{text}`: unknown part `{part}`; parts are `train` and `test`")]
    UnknownPart {
        /// The whole source.
        text: String,
        /// The part.
        part: String,
    },
    /// A synthetic source that does not follow its form.
    #[error(
        "`{text}`: a synthetic source is written `synthetic:normal:ROWSxWIDTH`, such as `synthetic:normal:1000x784`"
    )]
    BadSynthetic {
        /// The text given.
        text: String,
    },
    /// A named data set whose files are nowhere.
    #[error("{name}: no data files; looked in {}; {obtain}", list(searched))]
    DataSetNotFound {
        /// The data set.
        name: String,
        /// The folders looked in.
        searched: Vec<PathBuf>,
        /// How to get it, from its manifest.
        obtain: String,
    },
    /// A path whose ending tells no format.
    #[error("{}: unknown kind of file; known are .npy, .csv, .csv.gz, .idx*, .idx*.gz, -ubyte, -ubyte.gz, .parquet and folders of images", path.display())]
    UnknownFormat {
        /// The path.
        path: PathBuf,
    },
    /// An output path whose ending tells no format.
    #[error("{}: unknown kind of output; name it .npy, .csv or .parquet", path.display())]
    UnknownOutput {
        /// The path.
        path: PathBuf,
    },
    /// The format needs a cargo feature this build lacks.
    #[error("{}: this build cannot handle it: rebuild with the cargo feature `{feature}`", path.display())]
    FeatureOff {
        /// The path.
        path: PathBuf,
        /// The feature to enable.
        feature: &'static str,
    },
    /// A folder without images.
    #[error("{}: no PNG or JPEG images in this folder or its sub-folders", path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
    },
    /// An image of another size than the first.
    #[error("{}: an image of {found} where the others are {expected}", path.display())]
    ImageSize {
        /// The image.
        path: PathBuf,
        /// Size of the first image.
        expected: ImageShape,
        /// Size of this one.
        found: ImageShape,
    },
    /// A row index beyond the data.
    #[error("{name}: row {index} asked for, but there are {rows} rows")]
    RowOutOfRange {
        /// The file or data set.
        name: String,
        /// The index, counted from 0.
        index: usize,
        /// Rows there are.
        rows: usize,
    },
    /// A split that leaves one side empty.
    #[error("{rows} rows cannot be split with a held-out fraction of {fraction}: both sides need a row")]
    BadSplit {
        /// Rows to split.
        rows: usize,
        /// The fraction.
        fraction: f64,
    },
    /// The scaling does not fit the rows.
    #[error(transparent)]
    Scaling(#[from] ScalingError),
    /// A chunk of zero rows makes no progress.
    #[error("a chunk must have at least one row")]
    EmptyChunk,
    /// More or fewer rows were written than announced.
    #[error("{}: {found} rows written where {expected} were announced", path.display())]
    RowCount {
        /// The output file.
        path: PathBuf,
        /// Rows announced.
        expected: u64,
        /// Rows written.
        found: u64,
    },
    /// A manifest that cannot be read.
    #[error("manifest of {name}: {source}")]
    Manifest {
        /// The data set.
        name: String,
        /// What the parser said.
        source: Box<toml::de::Error>,
    },
    /// A file whose content is not the published one.
    #[error("{}: its SHA-256 is {found}, the manifest says {expected}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Checksum of the manifest, in hexadecimal.
        expected: String,
        /// Checksum of the file, in hexadecimal.
        found: String,
    },
}

impl DataError {
    /// A read error, told apart by its kind.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => DataError::NotFound { path },
            _ => DataError::Read { path, source },
        }
    }

    /// A write error.
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        DataError::Write { path: path.to_path_buf(), source }
    }
}

/// Joins paths for a message.
fn list(paths: &[PathBuf]) -> String {
    let texts: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    texts.join(", ")
}
