//! The names by which data is asked for.

mod digits;
mod locate;
mod synthetic;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::manifest::Manifest;
use crate::read::{self, ChunkReader, LoadOptions, MemoryReader};

/// One side of a published split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The training rows.
    Train,
    /// The test rows.
    Test,
}

impl Part {
    /// The word used in sources.
    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Test => "test",
        }
    }
}

/// The format of a file of rows, told by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// NumPy's array file.
    Npy,
    /// Comma-separated text, plain or gzip-compressed.
    Csv,
    /// The array file of MNIST, plain or gzip-compressed.
    Idx,
    /// Apache Parquet (cargo feature `parquet`).
    Parquet,
    /// A folder of PNG and JPEG images (cargo feature `images`).
    Images,
}

/// A source of rows, parsed from its name.
///
/// | text | rows |
/// |---|---|
/// | `digits` | the 1797 embedded digits; `digits:train` and `digits:test` are a fixed split of them, 4 to 1 |
/// | `fashion-mnist`, `mnist` | the published training rows; with `:train` or `:test`, that part |
/// | `synthetic:normal:1000x784` | 1000 rows of 784 independent N(0, 1) values; `:7` at the end selects another seed than 0 |
/// | `….npy` | an array with rows along its first axis |
/// | `….csv`, `….csv.gz` | one row a line; a header line and a column `label`, `class` or `target` are recognised |
/// | `….idx*`, `…-ubyte`, both also `.gz` | MNIST's format; the labels file beside it is used |
/// | `….parquet` | float and integer columns |
/// | a folder | one image a row, labelled by sub-folder |
///
/// ```
/// use cvae_data::Source;
///
/// let source: Source = "synthetic:normal:1000x784".parse()?;
/// assert_eq!(source.to_string(), "synthetic:normal:1000x784");
/// let error = "fashion-mnits".parse::<Source>().unwrap_err();
/// assert_eq!(error.to_string(), "unknown data source `fashion-mnits`; did you mean `fashion-mnist`?");
/// # Ok::<(), cvae_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// The embedded digits: all of them, or one side of the fixed split.
    Digits(Option<Part>),
    /// Fashion-MNIST.
    FashionMnist(Part),
    /// MNIST.
    Mnist(Part),
    /// Independent standard normal values, a function of the seed alone.
    SyntheticNormal {
        /// How many rows.
        rows: u32,
        /// Values in a row.
        width: u32,
        /// Which of the 2⁶⁴ data sets of this shape.
        seed: u64,
    },
    /// A file or folder.
    File {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        format: Format,
    },
}

/// The names a source may start with.
const NAMES: [&str; 4] = ["digits", "fashion-mnist", "mnist", "synthetic:normal:1000x784"];

impl FromStr for Source {
    type Err = DataError;

    /// Reads a source's name. The file system is asked only whether a text without a known ending is a
    /// folder.
    fn from_str(text: &str) -> Result<Self, DataError> {
        let (name, part) = match text.split_once(':') {
            Some((name, part)) => (name, Some(part)),
            None => (text, None),
        };
        match name {
            "digits" => Ok(Source::Digits(parse_part(text, part)?)),
            "fashion-mnist" | "fashion_mnist" => {
                let part = parse_part(text, part)?.unwrap_or(Part::Train);
                Ok(Source::FashionMnist(part))
            }
            "mnist" => Ok(Source::Mnist(parse_part(text, part)?.unwrap_or(Part::Train))),
            "synthetic" => parse_synthetic(text),
            _ => parse_path(text),
        }
    }
}

fn parse_part(text: &str, part: Option<&str>) -> Result<Option<Part>, DataError> {
    match part {
        None => Ok(None),
        Some("train") => Ok(Some(Part::Train)),
        Some("test") => Ok(Some(Part::Test)),
        Some(part) => Err(DataError::UnknownPart { text: text.to_owned(), part: part.to_owned() }),
    }
}

/// `synthetic:normal:ROWSxWIDTH` or `synthetic:normal:ROWSxWIDTH:SEED`.
fn parse_synthetic(text: &str) -> Result<Source, DataError> {
    let parse = || {
        let mut fields = text.split(':').skip(1);
        if fields.next()? != "normal" {
            return None;
        }
        let (rows, width) = fields.next()?.split_once('x')?;
        let seed = match fields.next() {
            Some(seed) => seed.parse().ok()?,
            None => 0,
        };
        let (rows, width) = (rows.parse().ok()?, width.parse().ok()?);
        fields.next().is_none().then_some(Source::SyntheticNormal { rows, width, seed })
    };
    match parse() {
        Some(Source::SyntheticNormal { rows: 0, .. }) => Err(DataError::NoRows { name: text.to_owned() }),
        Some(Source::SyntheticNormal { width: 0, .. }) => Err(DataError::NoColumns { name: text.to_owned() }),
        Some(source) => Ok(source),
        None => Err(DataError::BadSynthetic { text: text.to_owned() }),
    }
}

fn parse_path(text: &str) -> Result<Source, DataError> {
    let path = PathBuf::from(text);
    if let Some(format) = format_of(&path) {
        return Ok(Source::File { path, format });
    }
    let looks_like_a_path = text.contains(['/', '\\', '.']);
    if !looks_like_a_path || text.is_empty() {
        return Err(DataError::UnknownSource { text: text.to_owned(), suggestion: nearest(text) });
    }
    match path.try_exists() {
        Ok(true) => Err(DataError::UnknownFormat { path }),
        Ok(false) => Err(DataError::NotFound { path }),
        Err(source) => Err(DataError::Read { path, source }),
    }
}

/// The format that a path's ending, or its being a folder, tells.
fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let extension = plain.rsplit_once('.').map(|(_, extension)| extension);
    match extension {
        Some("npy") if plain == name => Some(Format::Npy),
        Some("parquet") if plain == name => Some(Format::Parquet),
        Some("csv") => Some(Format::Csv),
        Some(extension) if extension.starts_with("idx") => Some(Format::Idx),
        _ if plain.ends_with("-ubyte") => Some(Format::Idx),
        _ if path.is_dir() => Some(Format::Images),
        _ => None,
    }
}

/// The known name nearest to `text`, if it is near enough to be a slip of the keyboard.
fn nearest(text: &str) -> Option<String> {
    let typed = text.to_ascii_lowercase();
    NAMES
        .iter()
        .map(|name| {
            // A part or a shape that was added does not make a name less near.
            let head = name.split(':').next().unwrap_or(name);
            let typed = typed.split(':').next().unwrap_or(&typed);
            (edit_distance(typed, head), head.len(), name)
        })
        .filter(|(distance, length, _)| *distance <= length.div_ceil(3))
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., name)| (*name).to_owned())
}

/// How many single-character insertions, deletions and replacements lead from one text to the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Digits(None) => write!(f, "digits"),
            Source::Digits(Some(part)) => write!(f, "digits:{}", part.name()),
            Source::FashionMnist(part) => write!(f, "fashion-mnist:{}", part.name()),
            Source::Mnist(part) => write!(f, "mnist:{}", part.name()),
            Source::SyntheticNormal { rows, width, seed } => {
                write!(f, "synthetic:normal:{rows}x{width}")?;
                match seed {
                    0 => Ok(()),
                    seed => write!(f, ":{seed}"),
                }
            }
            Source::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl Source {
    /// Reads all rows into memory.
    ///
    /// # Errors
    /// Whatever is wrong with the data; see [`DataError`].
    pub fn load(&self, options: &LoadOptions) -> Result<Dataset, DataError> {
        let mut data = self.open(options)?.load(options.max_bytes)?;
        if let Some(manifest) = self.manifest()? {
            data = data.with_class_names(manifest.classes)?;
        }
        Ok(data)
    }

    /// Opens the source for reading in chunks, without holding more than one chunk in memory.
    ///
    /// # Errors
    /// Whatever is wrong with the data as far as its header and its first row tell.
    pub fn open(&self, options: &LoadOptions) -> Result<ChunkReader, DataError> {
        let name = self.to_string();
        let (meta, reader): (_, Box<dyn read::RowReader>) = match self {
            Source::Digits(part) => {
                let (meta, reader) = MemoryReader::new(digits::load(*part)?);
                (meta, Box::new(reader))
            }
            Source::FashionMnist(part) => {
                let path = locate::find(&Manifest::fashion_mnist()?, *part, &options.folders)?;
                read::open_file(&path, Format::Idx, options)?
            }
            Source::Mnist(part) => {
                let path = locate::find(&Manifest::mnist()?, *part, &options.folders)?;
                read::open_file(&path, Format::Idx, options)?
            }
            Source::SyntheticNormal { rows, width, seed } => {
                let (meta, reader) = synthetic::open(&name, *rows, *width, *seed);
                (meta, Box::new(reader))
            }
            Source::File { path, format } => read::open_file(path, *format, options)?,
        };
        Ok(ChunkReader::new(name, meta, reader, options))
    }

    /// The published test part that belongs to this training part, if there is one. For any other source
    /// the rows must be split: [`Dataset::split`].
    pub fn test_part(&self) -> Option<Source> {
        match self {
            Source::Digits(Some(Part::Train)) => Some(Source::Digits(Some(Part::Test))),
            Source::FashionMnist(Part::Train) => Some(Source::FashionMnist(Part::Test)),
            Source::Mnist(Part::Train) => Some(Source::Mnist(Part::Test)),
            Source::Digits(_)
            | Source::FashionMnist(_)
            | Source::Mnist(_)
            | Source::SyntheticNormal { .. }
            | Source::File { .. } => None,
        }
    }

    /// The manifest, for the named data sets.
    ///
    /// # Errors
    /// [`DataError::Manifest`] when the embedded text is not a manifest.
    pub fn manifest(&self) -> Result<Option<Manifest>, DataError> {
        match self {
            Source::Digits(_) => Manifest::digits().map(Some),
            Source::FashionMnist(_) => Manifest::fashion_mnist().map(Some),
            Source::Mnist(_) => Manifest::mnist().map(Some),
            Source::SyntheticNormal { .. } | Source::File { .. } => Ok(None),
        }
    }
}
