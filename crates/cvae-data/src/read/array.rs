//! Arrays of numbers behind a header: what npy and idx files have in common.

use super::bytes::Input;
use super::{Block, Meta, RowReader};
use crate::dataset::{BYTE_SCALE, ImageShape};
use crate::error::{DataError, HeaderFault};

/// The type of a stored number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Kind {
    /// Bytes of one number.
    fn bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
        }
    }
}

/// The type and byte order of stored numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) kind: Kind,
    pub(super) big_endian: bool,
}

/// Appends each number of `bytes`, `$size` bytes long, as the nearest 32-bit float.
macro_rules! decode {
    ($type:ty, $size:literal, $big:expr, $bytes:expr, $out:expr) => {{
        let (numbers, _) = $bytes.as_chunks::<$size>();
        if $big {
            $out.extend(numbers.iter().map(|&b| <$type>::from_be_bytes(b) as f32));
        } else {
            $out.extend(numbers.iter().map(|&b| <$type>::from_le_bytes(b) as f32));
        }
    }};
}

impl Element {
    /// Appends the numbers stored in `bytes` as 32-bit floats. Integers beyond 2²⁴ and 64-bit floats are
    /// rounded to the nearest.
    fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        let big = self.big_endian;
        match self.kind {
            Kind::U8 => out.extend(bytes.iter().map(|&b| f32::from(b))),
            Kind::I8 => decode!(i8, 1, big, bytes, out),
            Kind::U16 => decode!(u16, 2, big, bytes, out),
            Kind::I16 => decode!(i16, 2, big, bytes, out),
            Kind::U32 => decode!(u32, 4, big, bytes, out),
            Kind::I32 => decode!(i32, 4, big, bytes, out),
            Kind::U64 => decode!(u64, 8, big, bytes, out),
            Kind::I64 => decode!(i64, 8, big, bytes, out),
            Kind::F32 => decode!(f32, 4, big, bytes, out),
            Kind::F64 => decode!(f64, 8, big, bytes, out),
        }
    }
}

/// What the header of an array file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) element: Element,
    /// The sizes of the axes, rows first.
    pub(super) shape: Vec<u64>,
}

/// The rows of an array, which follow its header directly.
///
/// Bytes are taken for image intensities and stand for `byte / 255`; all other types stand for themselves.
pub(super) struct ArrayReader {
    input: Input,
    element: Element,
    width: usize,
    rows_left: u64,
    payload: u64,
    labels: Option<std::vec::IntoIter<u32>>,
    raw: Vec<u8>,
}

impl ArrayReader {
    /// Checks the header of `input` (already read, its name is `format`) against the size of the file.
    pub(super) fn new(input: Input, format: &'static str, header: &Header) -> Result<(Meta, Self), DataError> {
        let path = input.path().to_path_buf();
        let (rows, features) = match header.shape.split_first() {
            Some((&rows, features)) if !features.is_empty() => (rows, features),
            _ => {
                return Err(DataError::Dimensions { path, dimensions: header.shape.len() });
            }
        };
        let name = path.display().to_string();
        if rows == 0 {
            return Err(DataError::NoRows { name });
        }
        if features.contains(&0) {
            return Err(DataError::NoColumns { name });
        }
        let sizes = || {
            let width = features.iter().try_fold(1u64, |a, &b| a.checked_mul(b))?;
            let bytes = width.checked_mul(header.element.kind.bytes() as u64)?;
            Some((usize::try_from(width).ok()?, rows.checked_mul(bytes)?))
        };
        let (width, payload) =
            sizes().ok_or_else(|| DataError::BadHeader { path: path.clone(), format, fault: HeaderFault::Overflow })?;
        input.check_payload(payload)?;
        let meta = Meta {
            path,
            width,
            rows: Some(rows),
            image: image_shape(features),
            feature_names: None,
            byte_scale: (header.element.kind == Kind::U8).then_some(BYTE_SCALE),
        };
        let reader =
            Self { input, element: header.element, width, rows_left: rows, payload, labels: None, raw: Vec::new() };
        Ok((meta, reader))
    }

    /// Gives each row a label; there must be as many as rows.
    pub(super) fn set_labels(&mut self, labels: Vec<u32>) -> Result<(), DataError> {
        if labels.len() as u64 != self.rows_left {
            return Err(DataError::LabelCount {
                name: self.input.path().display().to_string(),
                labels: labels.len(),
                rows: usize::try_from(self.rows_left).unwrap_or(usize::MAX),
            });
        }
        self.labels = Some(labels.into_iter());
        Ok(())
    }
}

impl RowReader for ArrayReader {
    fn read(&mut self, max_rows: usize, block: &mut Block) -> Result<usize, DataError> {
        let rows = self.rows_left.min(max_rows as u64) as usize;
        let row_bytes = self.width * self.element.kind.bytes();
        let wanted = rows.saturating_mul(row_bytes);
        let got = if self.element.kind == Kind::U8 {
            self.input.read(wanted, &mut block.bytes)?
        } else {
            self.raw.clear();
            let got = self.input.read(wanted, &mut self.raw)?;
            self.element.decode(&self.raw, &mut block.floats);
            got
        };
        if got < wanted {
            let unread = self.rows_left * row_bytes as u64;
            return Err(DataError::Truncated {
                path: self.input.path().to_path_buf(),
                expected: self.payload,
                found: self.payload - unread + got as u64,
            });
        }
        if let Some(labels) = &mut self.labels {
            labels.take(rows).for_each(|label| block.labels.push(label));
        }
        self.rows_left -= rows as u64;
        if self.rows_left == 0 {
            self.input.expect_end(self.payload)?;
        }
        Ok(rows)
    }
}

/// Rows of two axes are grey images. Rows of three axes are images where the last axis can be channels
/// (1, 3 or 4 of them); in other layouts the values are only rows.
fn image_shape(features: &[u64]) -> Option<ImageShape> {
    let &[height, width, ref channels @ ..] = features else {
        return None;
    };
    let channels = match channels {
        [] => 1,
        [channels @ (1 | 3 | 4)] => *channels,
        _ => return None,
    };
    Some(ImageShape {
        height: usize::try_from(height).ok()?,
        width: usize::try_from(width).ok()?,
        channels: usize::try_from(channels).ok()?,
    })
}
