//! Rows of numbers for training and applying models: where they come from, how they are split and
//! scaled, and how results are written.
//!
//! ```
//! use cvae_data::{LoadOptions, Source};
//!
//! let source: Source = "digits".parse()?;
//! let data = source.load(&LoadOptions::default())?;
//! assert_eq!((data.rows(), data.width()), (1797, 64));
//!
//! let (train, test) = data.split(0.1, 42)?;
//! let mut batch = Vec::new();
//! train.gather(&[7, 0, 3], &mut batch)?;
//! assert_eq!(batch.len(), 3 * train.width());
//! assert_eq!(test.rows(), 180);
//! # Ok::<(), cvae_data::DataError>(())
//! ```
//!
//! - [`Source`] turns a name such as `fashion-mnist:test` or `rows.csv.gz` into a [`Dataset`] in memory or
//!   a [`ChunkReader`] over data of any size.
//! - [`split`] is a pure function of a seed: the same rows on every platform and machine.
//! - [`FittedScaling`] brings features to a common range and back.
//! - [`ArrayWriter`] and [`write_array`] write `.npy`, `.csv` and `.parquet` files that are complete or
//!   absent, by [`atomic_write`], which serves any other file as well.
//!
//! Every bad input is one [`DataError`] that names the file, and the row and column where there is one.
//! No length in a file is trusted before it has been compared with the size of the file.
//!
//! # Cargo features
//! - `parquet`: reads and writes Apache Parquet.
//! - `images`: reads folders of PNG and JPEG images.

#![forbid(unsafe_code)]

mod atomic;
mod dataset;
mod error;
mod labels;
mod manifest;
mod read;
mod scaling;
mod source;
mod split;
mod write;

pub use atomic::atomic_write;
pub use dataset::{BYTE_SCALE, Dataset, ImageShape, RowsRef, Values};
pub use error::{Cell, DataError, HeaderFault};
pub use manifest::{Manifest, ManifestFile, sha256};
pub use read::{ChunkReader, LoadOptions};
pub use scaling::{FittedScaling, Scaling, ScalingError, ScalingFit};
pub use source::{Format, Part, Source};
pub use split::split;
pub use write::{ArrayWriter, check_output, write_array};
