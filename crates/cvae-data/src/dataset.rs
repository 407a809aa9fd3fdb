//! Rows in memory.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use crate::error::DataError;
use crate::split;

/// The factor that maps an image byte to \[0, 1\].
pub const BYTE_SCALE: f32 = 1.0 / 255.0;

/// The shape of one row read as an image: `height × width × channels`, the channel varying fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ImageShape {
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// Values in a pixel: 1 for grey, 3 for colour.
    pub channels: usize,
}

impl ImageShape {
    /// Values in one image, saturating at `usize::MAX`.
    pub fn len(&self) -> usize {
        self.height.saturating_mul(self.width).saturating_mul(self.channels)
    }

    /// Whether the image has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}

/// The values of all rows, row after row, in the precision they are stored in.
///
/// Bytes are kept as bytes, so that a backend can upload a quarter of the data and scale on the
/// device: a byte `b` stands for `b as f32 * scale`, computed in 32-bit arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// 32-bit floats, used as they are.
    F32(Vec<f32>),
    /// Bytes, each to be multiplied by `scale`.
    U8 {
        /// The bytes.
        values: Vec<u8>,
        /// What one unit stands for, such as [`BYTE_SCALE`].
        scale: f32,
    },
}

impl Values {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::U8 { values, .. } => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A borrowed view of rows, ready for a backend: `values` holds whole rows of `width` values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowsRef<'a> {
    /// 32-bit floats.
    F32 {
        /// The values, row after row.
        values: &'a [f32],
        /// Values in a row.
        width: usize,
    },
    /// Bytes, each standing for `byte as f32 * scale`.
    U8 {
        /// The bytes, row after row.
        values: &'a [u8],
        /// Values in a row.
        width: usize,
        /// What one unit stands for.
        scale: f32,
    },
}

/// A data set in memory: at least one row, at least one feature, and what is known about them.
///
/// Rows are stored one after another (`rows × width`). Labels, class names, feature names and the image
/// shape are optional, and consistent with the rows whenever they are there.
///
/// ```
/// use cvae_data::{Dataset, Values};
///
/// let data = Dataset::new("points", Values::F32(vec![0.0, 1.0, 2.0, 3.0]), 2)?.with_labels(vec![0, 1])?;
/// assert_eq!((data.rows(), data.width()), (2, 2));
/// assert_eq!(data.select(&[1])?.to_f32(), [2.0, 3.0].as_slice());
/// # Ok::<(), cvae_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    name: String,
    values: Values,
    width: usize,
    labels: Option<Vec<u32>>,
    class_names: Option<Vec<String>>,
    feature_names: Option<Vec<String>>,
    image: Option<ImageShape>,
}

impl Dataset {
    /// Rows of `width` values each.
    ///
    /// # Errors
    /// [`DataError::NoColumns`], [`DataError::NoRows`], [`DataError::PartialRow`] when the values do not
    /// fill whole rows, and [`DataError::TooLarge`] beyond `u32::MAX` rows.
    pub fn new(name: impl Into<String>, values: Values, width: usize) -> Result<Self, DataError> {
        let name = name.into();
        if width == 0 {
            return Err(DataError::NoColumns { name });
        }
        if values.is_empty() {
            return Err(DataError::NoRows { name });
        }
        if !values.len().is_multiple_of(width) {
            return Err(DataError::PartialRow { name, values: values.len(), width });
        }
        let rows = values.len() / width;
        if u32::try_from(rows).is_err() {
            return Err(DataError::TooLarge { name, rows: rows as u64, bytes: values.len() as u64, limit: u64::MAX });
        }
        Ok(Self { name, values, width, labels: None, class_names: None, feature_names: None, image: None })
    }

    /// Adds one label per row.
    ///
    /// # Errors
    /// [`DataError::LabelCount`] when there are more or fewer labels than rows.
    pub fn with_labels(mut self, labels: Vec<u32>) -> Result<Self, DataError> {
        if labels.len() != self.rows() {
            return Err(DataError::LabelCount {
                name: self.name,
                labels: labels.len(),
                rows: self.values.len() / self.width,
            });
        }
        self.labels = Some(labels);
        Ok(self)
    }

    /// Names the classes: label `k` is `names[k]`.
    ///
    /// # Errors
    /// [`DataError::LabelOutOfRange`] when a label has no name.
    pub fn with_class_names(mut self, names: Vec<String>) -> Result<Self, DataError> {
        let labels = self.labels.iter().flatten();
        if let Some((row, &label)) = labels.enumerate().find(|(_, l)| **l as usize >= names.len()) {
            return Err(DataError::LabelOutOfRange { name: self.name, row, label, classes: names.len() });
        }
        self.class_names = Some(names);
        Ok(self)
    }

    /// Names the features, in the order of the columns.
    ///
    /// # Errors
    /// [`DataError::WrongWidth`] when there is not one name per feature.
    pub fn with_feature_names(mut self, names: Vec<String>) -> Result<Self, DataError> {
        if names.len() != self.width {
            return Err(DataError::WrongWidth { name: self.name, expected: self.width, found: names.len() });
        }
        self.feature_names = Some(names);
        Ok(self)
    }

    /// Says that each row is an image.
    ///
    /// # Errors
    /// [`DataError::ImageShape`] when the shape does not multiply to the width of a row.
    pub fn with_image_shape(mut self, shape: ImageShape) -> Result<Self, DataError> {
        if shape.len() != self.width {
            return Err(DataError::ImageShape { name: self.name, shape, width: self.width });
        }
        self.image = Some(shape);
        Ok(self)
    }

    /// What the data set is called in messages and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rows there are; at least one.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// How many values a row has; at least one.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The stored values, `rows × width`.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// One label per row, if there are labels.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// The names of the classes, indexed by label, if they are known.
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// One name per feature, if they are known.
    pub fn feature_names(&self) -> Option<&[String]> {
        self.feature_names.as_deref()
    }

    /// The shape of a row as an image, if it is one.
    pub fn image_shape(&self) -> Option<ImageShape> {
        self.image
    }

    /// A view of all rows in their stored precision.
    pub fn as_rows(&self) -> RowsRef<'_> {
        let width = self.width;
        match &self.values {
            Values::F32(values) => RowsRef::F32 { values, width },
            Values::U8 { values, scale } => RowsRef::U8 { values, width, scale: *scale },
        }
    }

    /// All values as 32-bit floats, `rows × width`; borrowed when they are stored as such.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match &self.values {
            Values::F32(values) => Cow::Borrowed(values),
            Values::U8 { values, scale } => Cow::Owned(values.iter().map(|&b| f32::from(b) * scale).collect()),
        }
    }

    /// Writes the rows `indices` as 32-bit floats into `out`, which is cleared first
    /// (`indices.len() × width` values afterwards). Allocates only when `out` is too small.
    ///
    /// # Errors
    /// [`DataError::RowOutOfRange`] for an index beyond the rows; `out` is then empty.
    pub fn gather(&self, indices: &[u32], out: &mut Vec<f32>) -> Result<(), DataError> {
        out.clear();
        self.check(indices)?;
        match &self.values {
            Values::F32(values) => {
                for &index in indices {
                    out.extend_from_slice(row(values, self.width, index));
                }
            }
            Values::U8 { values, scale } => {
                for &index in indices {
                    let bytes = row(values, self.width, index);
                    out.extend(bytes.iter().map(|&b| f32::from(b) * scale));
                }
            }
        }
        Ok(())
    }

    /// Writes the rows `range` as 32-bit floats into `out`, which is cleared first (`range.len() × width`
    /// values afterwards). Allocates only when `out` is too small.
    ///
    /// # Errors
    /// [`DataError::RowOutOfRange`] for a range beyond the rows; `out` is then empty.
    pub fn copy_rows(&self, range: Range<usize>, out: &mut Vec<f32>) -> Result<(), DataError> {
        out.clear();
        if range.end > self.rows() || range.start > range.end {
            return Err(DataError::RowOutOfRange {
                name: self.name.clone(),
                index: range.end.max(range.start).saturating_sub(1),
                rows: self.rows(),
            });
        }
        let range = range.start * self.width..range.end * self.width;
        match &self.values {
            Values::F32(values) => out.extend_from_slice(&values[range]),
            Values::U8 { values, scale } => {
                out.extend(values[range].iter().map(|&b| f32::from(b) * scale));
            }
        }
        Ok(())
    }

    /// The rows `indices` in that order, with their labels, as a data set of its own.
    ///
    /// # Errors
    /// [`DataError::RowOutOfRange`] for an index beyond the rows, [`DataError::NoRows`] for none.
    pub fn select(&self, indices: &[u32]) -> Result<Self, DataError> {
        self.check(indices)?;
        if indices.is_empty() {
            return Err(DataError::NoRows { name: self.name.clone() });
        }
        let values = match &self.values {
            Values::F32(values) => Values::F32(pick(values, self.width, indices)),
            Values::U8 { values, scale } => Values::U8 { values: pick(values, self.width, indices), scale: *scale },
        };
        Ok(Self {
            name: self.name.clone(),
            values,
            width: self.width,
            labels: self.labels.as_ref().map(|l| pick(l, 1, indices)),
            class_names: self.class_names.clone(),
            feature_names: self.feature_names.clone(),
            image: self.image,
        })
    }

    /// Training and held-out rows: [`split::split`] applied to this data set. The held-out side has
    /// about `fraction` of the rows; the same seed gives the same sides.
    ///
    /// # Errors
    /// [`DataError::BadSplit`] when a side would be empty.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self), DataError> {
        let (train, held_out) = split::split(self.rows(), fraction, seed)?;
        Ok((self.select(&train)?, self.select(&held_out)?))
    }

    /// The same data set under another name.
    #[must_use]
    pub fn renamed(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Checks that the rows have the width a model was made for.
    ///
    /// # Errors
    /// [`DataError::WrongWidth`] when they do not.
    pub fn expect_width(&self, width: usize) -> Result<(), DataError> {
        if self.width == width {
            return Ok(());
        }
        Err(DataError::WrongWidth { name: self.name.clone(), expected: width, found: self.width })
    }

    fn check(&self, indices: &[u32]) -> Result<(), DataError> {
        let rows = self.rows();
        match indices.iter().find(|&&index| index as usize >= rows) {
            None => Ok(()),
            Some(&index) => Err(DataError::RowOutOfRange { name: self.name.clone(), index: index as usize, rows }),
        }
    }
}

/// Row `index` of rows of `width` values.
fn row<T>(values: &[T], width: usize, index: u32) -> &[T] {
    let start = index as usize * width;
    &values[start..start + width]
}

/// Copies the rows `indices`.
fn pick<T: Copy>(values: &[T], width: usize, indices: &[u32]) -> Vec<T> {
    let mut out = Vec::with_capacity(indices.len() * width);
    for &index in indices {
        out.extend_from_slice(row(values, width, index));
    }
    out
}
