//! A data set in memory, handed out like a file.

use super::{Block, Meta, RowReader};
use crate::dataset::{Dataset, Values};
use crate::error::DataError;

/// Hands out the rows of a data set.
pub(crate) struct MemoryReader {
    data: Dataset,
    next: usize,
}

impl MemoryReader {
    pub(crate) fn new(data: Dataset) -> (Meta, Self) {
        let meta = Meta {
            path: data.name().into(),
            width: data.width(),
            rows: Some(data.rows() as u64),
            image: data.image_shape(),
            feature_names: data.feature_names().map(<[String]>::to_vec),
            byte_scale: match data.values() {
                Values::F32(_) => None,
                Values::U8 { scale, .. } => Some(*scale),
            },
        };
        (meta, Self { data, next: 0 })
    }
}

impl RowReader for MemoryReader {
    fn read(&mut self, max_rows: usize, block: &mut Block) -> Result<usize, DataError> {
        let rows = max_rows.min(self.data.rows() - self.next);
        let width = self.data.width();
        let range = self.next * width..(self.next + rows) * width;
        match self.data.values() {
            Values::F32(values) => block.floats.extend_from_slice(&values[range]),
            Values::U8 { values, .. } => block.bytes.extend_from_slice(&values[range]),
        }
        if let Some(labels) = self.data.labels() {
            for &label in &labels[self.next..self.next + rows] {
                block.labels.push(label);
            }
        }
        self.next += rows;
        Ok(rows)
    }
}
