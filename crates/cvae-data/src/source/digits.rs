//! The embedded digits.

use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;

use super::Part;
use crate::dataset::{Dataset, ImageShape, Values};
use crate::error::{Cell, DataError};
use crate::split::split;

/// `datasets/digits/digits.csv.gz`: 64 pixels from 0 to 16 and the digit, one image a line.
const FILE: &[u8] = include_bytes!("../../../../datasets/digits/digits.csv.gz");

/// A pixel counts the ink of a block of 4 × 4.
const SCALE: f32 = 1.0 / 16.0;

/// The held-out share of `digits:test`.
const TEST_FRACTION: f64 = 0.2;

/// The seed of the fixed split.
const SPLIT_SEED: u64 = 0;

/// All digits, or one side of the fixed split.
pub(super) fn load(part: Option<Part>) -> Result<Dataset, DataError> {
    let all = all()?;
    let Some(part) = part else {
        return Ok(all);
    };
    let (train, test) = split(all.rows(), TEST_FRACTION, SPLIT_SEED)?;
    match part {
        Part::Train => all.select(&train),
        Part::Test => all.select(&test),
    }
}

fn all() -> Result<Dataset, DataError> {
    let path = PathBuf::from("digits");
    let mut text = String::new();
    GzDecoder::new(FILE)
        .read_to_string(&mut text)
        .map_err(|source| DataError::CorruptGzip { path: path.clone(), source })?;
    let image = ImageShape { height: 8, width: 8, channels: 1 };
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for (line, row) in text.lines().enumerate() {
        for (column, cell) in row.split(',').enumerate() {
            let number: u8 = cell.parse().map_err(|_| DataError::NotNumeric {
                path: path.clone(),
                cell: Cell::Line { line: line as u64 + 1, column: column + 1 },
                text: cell.to_owned(),
            })?;
            if column == image.len() {
                labels.push(u32::from(number));
            } else {
                values.push(number);
            }
        }
    }
    let values = Values::U8 { values, scale: SCALE };
    Dataset::new("digits", values, image.len())?.with_labels(labels)?.with_image_shape(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, sha256};

    #[test]
    fn the_embedded_file_is_the_published_one() {
        let manifest = Manifest::digits().unwrap();
        let file = &manifest.files[0];
        assert_eq!(file.bytes, Some(FILE.len() as u64));
        assert_eq!(file.sha256, Some(sha256(FILE).unwrap()));
    }

    #[test]
    fn shape_range_and_labels_are_as_published() {
        let data = load(None).unwrap();
        let manifest = Manifest::digits().unwrap();
        assert_eq!((data.rows(), data.width()), (1797, manifest.width));
        assert_eq!(data.rows(), manifest.files[0].rows);
        assert_eq!(data.image_shape(), Some(manifest.image));
        let values = data.to_f32();
        assert_eq!(values.iter().copied().fold(0.0, f32::max), 1.0);
        assert_eq!(values[..6], [0.0, 0.0, 0.3125, 0.8125, 0.5625, 0.0625]);
        let mut counts = [0; 10];
        for &label in data.labels().unwrap() {
            counts[label as usize] += 1;
        }
        // The class counts its authors publish for the test part.
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    }

    #[test]
    fn the_fixed_split_is_a_partition() {
        let train = load(Some(Part::Train)).unwrap();
        let test = load(Some(Part::Test)).unwrap();
        assert_eq!((train.rows(), test.rows()), (1438, 359));
        let sum = |data: &Dataset| data.to_f32().iter().map(|x| f64::from(*x)).sum::<f64>();
        assert_eq!(sum(&train) + sum(&test), sum(&load(None).unwrap()));
    }
}
